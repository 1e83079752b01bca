"""`make words` runs scripts that are there; the package holds what they made, and neither them nor their data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.words import train

ROOT = Path(__file__).parents[2]


def test_make_words_runs_a_script_that_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nwords:")[2].partition("\n\n")[0]
    assert re.search(rf"-m {re.escape(train.main.__module__)}\b", recipe)
    with pytest.raises(SystemExit) as ended:
        train.main(["--help"])
    assert ended.value.code == 0 and "make words" in " ".join(capsys.readouterr().out.split())


def test_the_package_holds_no_sentence_to_learn_from_and_nothing_that_trains() -> None:
    words = ROOT / "agent" / "words"
    assert {path.name for path in words.rglob("*.yaml")} == {"lexicon.yaml"}
    assert not [path.name for path in words.glob("*.py") if "import torch" in path.read_text(encoding="utf-8")]
    assert len([*train.HERE.rglob("*.yaml")]) > 10  # positive control: the sentences are beside the scripts
    assert "import torch" in (train.HERE / "tuning.py").read_text(encoding="utf-8")
