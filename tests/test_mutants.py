"""The table of mutations cannot rot: every entry still names a guard that is there, and tests that are."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.bench.ablation import PLAIN_ROWS
from tests.fixtures.tables import table
from tests.mutants import run
from tests.mutants.table import LAWS, MUTANTS, PROMISES, Mutant

ROOT = Path(__file__).parents[1]


@cache
def _meaning_of(text: str) -> str:
    return ast.dump(ast.parse(text))


@pytest.mark.heavy
@table("mutant", MUTANTS)
def test_a_mutation_breaks_a_guard_that_is_there_and_names_tests_that_are(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, "its guard was written anew: write the mutation anew, too"
    broken = text.replace(mutant.old, mutant.new)
    if mutant.file.endswith(".py"):
        assert ast.dump(ast.parse(broken)) != _meaning_of(text)
    assert broken != text and mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not name or f"def {name.partition('[')[0]}(" in source, f"{test} is gone"


@table(("file", "old", "new"), PLAIN_ROWS)
def test_what_the_ablation_takes_out_is_there(file: str, old: str, new: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert text.count(old) == 1 and ast.dump(ast.parse(text.replace(old, new))) != _meaning_of(text)


def test_every_promise_and_every_law_has_two_mutations() -> None:
    counts = Counter(mutant.guard for mutant in MUTANTS)
    assert set(counts) == {*PROMISES, *LAWS}
    assert {guard: count for guard, count in counts.items() if count < 2} == {}
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


def test_every_promise_of_security_md_stands_beside_its_test() -> None:
    promised = (ROOT / "SECURITY.md").read_text().partition("## What is promised")[2].partition("\n## ")[0]
    assert set(PROMISES) == set(re.findall(r"^### (.+)$", promised, re.MULTILINE))
    for group in promised.split("\n### ")[1:]:
        lines = group.splitlines()[1:]
        assert any(lines), group
        for line in filter(None, lines):
            assert re.fullmatch(r"- .+[.)](?: `[\w/]+\.py`)+", line), f"no test beside it: {line}"
            assert all((ROOT / "tests" / file).is_file() for file in re.findall(r"`([\w/]+\.py)`", line)), line


def test_a_word_that_no_mutation_holds_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mutants", "approvals", "no-such-guard"])
    with pytest.raises(SystemExit) as refused:
        run.main()
    told = capsys.readouterr().err
    assert refused.value.code == 2 and f"none of {len(MUTANTS)} mutations" in told and "agent/" in told
