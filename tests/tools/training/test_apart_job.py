"""A training in a child: what it calls back with arrives, and however it ends, that is said and nothing is left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.training import apart_job
from tunesmith.tools.training.lora_settings import LoraSettings

TELLING = """
import json, os, sys
asked = json.load(open(sys.argv[2]))
def tell(*values):
    print(json.dumps(values), flush=True)
"""
TRAINED = """
print("what a library prints")
tell("progress", 0, 1, asked["settings"]["lora_rank"])
tell("metric", "loss", float("nan"), 1)
tell("log", os.environ["PYTORCH_ALLOC_CONF"])
of = {"steps": 2, "epochs": 1, "train_loss": 1, "trainable_parameters": 7, "trained_tokens": 8, "seconds": 1}
tell("trained", {**of, "validation_loss_before": None, "validation_loss": None})
"""
LOST = 'tell("failed", "connection closed by peer");'
Train = Callable[..., apart_job.Trained]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """A training whose child runs a program in place of ours; its call-backs are appended to a list."""

    def begun(program: str, called: list[object]) -> apart_job.Trained:
        monkeypatch.setattr(apart_job, "python_module", lambda module, *asked: [sys.executable, "-c", program, *asked])
        asked = apart_job.ToTrain(
            tmp_path,
            tmp_path / "rows.jsonl",
            tmp_path / "adapter",
            LoraSettings(lora_rank=32),
            checkpoints_dir=tmp_path / "checkpoints",
            progress=lambda done, total, note: called.append(("progress", done, total, note)),
            metric=lambda name, value, x: called.append((name, str(value), x)),
            log=called.append,
        )
        return apart_job.train_apart(asked)

    return begun


def test_what_the_child_calls_back_with_arrives_and_it_has_the_environment_of_a_training(train: Train) -> None:
    called: list[object] = []
    assert train(TELLING + TRAINED, called).trainable_parameters == 7
    assert called == [
        "what a library prints",
        ("progress", 0, 1, 32),
        ("loss", "nan", 1),
        TORCH_ENV["PYTORCH_ALLOC_CONF"],
    ]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (
            "import os; os.kill(os.getpid(), 9)",
            "the process of the training was killed by signal 9 .*memory; try a",
        ),
        ("raise SystemExit(3)", "ended with exit code 3; the log of the step says more"),
        (TELLING, "ended with exit code 0"),
        (TELLING + 'tell("failed", "no luck; try again"); sys.exit(1)', "^no luck; try again$"),
        # Rank 0 lost its peer, and says so before the launcher says what became of that.
        (TELLING + LOST + 'tell("died", 0, 1); tell("died", 1, -9)', "^rank 1 of the training was killed by signal 9"),
        (
            TELLING + LOST + 'tell("died", 0, -15); tell("died", 2, -11)',
            "^rank 2 .* signal 11 .SIGSEGV., .*--resume",
        ),
        (TELLING + 'tell("failed", "a NaN");' + LOST + 'tell("died", 1, 1); tell("died", 0, 1)', "^a NaN$"),
        (TELLING + 'tell("died", 1, 3)', "^rank 1 of the training ended with exit code 3"),
    ],
)
def test_however_the_child_ends_that_is_what_breaks(train: Train, program: str, told: str) -> None:
    before = set(psutil.Process().children())
    with pytest.raises(StepFailed, match=told):
        train(program, [])
    assert set(psutil.Process().children()) <= before


def test_a_stop_of_the_parent_ends_the_child(train: Train, tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    class Stopping(list[object]):
        def append(self, value: object) -> None:
            raise Stopped

    before = set(psutil.Process().children())
    with pytest.raises(Stopped):
        train(TELLING + 'tell("log", "x"); import time; time.sleep(3); open("lived on", "w")', Stopping())
    assert set(psutil.Process().children()) <= before and not (tmp_path / "lived on").exists()
