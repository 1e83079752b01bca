"""`tunesmith doctor --gpu` where there is no card: one sentence, at once, and nothing touched."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.planted_gpus import gpu
from tests.fixtures.terminal import COMMAND, Tunesmith
from tunesmith.tools.machine.gpus import measure_gpus, why_no_gpu

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(bool(measure_gpus()), reason="a card is here: tests/gpu says what it says"),
]
SENTENCE = (
    "tunesmith: doctor: there is no NVIDIA GPU here that tunesmith can use, so nothing can be measured on one; run "
    "`nvidia-smi` to see whether the driver knows a card, then `tunesmith setup --device cuda` and this again\n"
)


def test_without_a_card_it_says_so_and_touches_nothing(tunesmith: Tunesmith) -> None:
    done = tunesmith("doctor", "--gpu")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", SENTENCE)
    assert not tunesmith.home.exists()


def test_it_loads_nothing_heavy_to_say_so(tmp_path: Path) -> None:
    script = """
import sys
from tunesmith.agent.cli import main

code = main(["doctor", "--gpu", "--yes"])
loaded = {name.partition(".")[0] for name in sys.modules}
print(code, *sorted({"torch", "transformers", "scipy", "numpy", "aiohttp"} & loaded))
"""
    env = {**os.environ, "TUNESMITH_HOME": str(tmp_path / "home")}
    done = subprocess.run([COMMAND[0], "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "2\n", done.stderr


def test_json_has_the_same_sentence(tunesmith: Tunesmith) -> None:
    done = tunesmith("doctor", "--gpu", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == document["exit_code"] == 2 and document["event"] == "error"
    assert f"tunesmith: {document['message']}\n" == SENTENCE == done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gpu", "--max-hours", "1"], "give --yes too"),
        (["--approve", "0123456789ab"], "no doctor step waits"),
        (["--approve", "0123456789ab", "--driver"], "want the same card"),
    ],
)
def test_what_does_not_go_together_is_bad_input(tunesmith: Tunesmith, words: list[str], told: str) -> None:
    done = tunesmith("doctor", *words)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1


def test_why_not_is_said_of_what_is_there() -> None:
    assert why_no_gpu((gpu(0),), on_cpu=False) == ""
    assert "Card 0 is here; run `tunesmith setup --device cuda`" in why_no_gpu((gpu(0),), on_cpu=True)
