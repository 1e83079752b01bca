"""What is counted, sampled and named is what is there: of a run with a row, an artifact, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.stored_runs import Builder
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Answer, Context
from tunesmith.agent.queries.registry import REQUESTS, answer
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.pipeline.workspace import Workspace

ALL = stored_runs.training_rows("")


def asked(build: Builder, kind: str, **given: Any) -> Answer:
    context = Context(Workspace(build.store, None, lambda event, **data: None), build.store.newest_run())
    return answer(REQUESTS[kind].model_validate(given), context)


def generated(build: Builder, rows: Sequence[TrainingRow]) -> None:
    step = build.step("generate")
    build.store.add_rows(build.run, step, list(rows))
    build.end(step, 1.0, 1, {})


def test_rows_that_were_written_anew_are_counted_once(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    generated(build, ALL)
    generated(build, ALL[:1])
    assert asked(build, "findings", about="more_rows").lines[-1] == "1 row of it was kept."


@pytest.mark.heavy
@table(("outcome", "spared", "added", "first", "last"), [
    ("gained", 1, 0, "^1 target case of r1 was gained from base to adapter", "None was lost."),
    ("gained", 2, 1, "^2 target cases of r1 were gained from base to adapter", "1 was lost."),
    ("lost", 0, 1, "^1 target case of r1 was lost from base to adapter", "None gained."),
    ("lost", 1, 0, "^No target cases of r1 were lost from base to adapter", "1 gained."),
])  # fmt: skip
def test_one_case_was_and_several_were(
    outcome: str, spared: int, added: int, first: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = stored_runs.FAILS["base"]["target"]
    passed = next(number for number in range(60) if number not in fails)
    adapter = {*sorted(fails)[spared:], *([passed] if added else [])}
    of_adapter = {**stored_runs.FAILS["adapter"], "target": adapter}
    monkeypatch.setattr(stored_runs, "FAILS", {**stored_runs.FAILS, "adapter": of_adapter})
    store, run = stored_runs.finished_run(tmp_path / "home")
    context = Context(Workspace(store, None, lambda event, **data: None), store.run(run))
    given = {"run": run, "arm": "adapter", "other_arm": "base", "block": "target", "outcome": outcome}
    lines = answer(REQUESTS["cases"].model_validate(given), context).lines
    assert re.search(first, lines[0]) and lines[-1] == last, lines
