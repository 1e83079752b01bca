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
from tunesmith.memory.errors import NotFound
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


def test_as_many_rows_are_shown_as_the_first_line_says(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    generated(build, [*ALL[:2], *ALL[150:160]])
    for given, count in (({}, 2), ({"origin": "rehearsal"}, 4)):
        lines = asked(build, "rows", about="examples", **given).lines
        assert lines[0].endswith(f"; {count} of them:") and len(lines) == 1 + 2 * count, lines


def test_rows_of_one_origin_are_shown_where_no_other_is(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    generated(build, ALL[155:156])
    lines = asked(build, "rows", about="examples").lines
    assert lines[0] == "1 row of r1; 1 of them:" and "g155" in lines[1]


def test_the_longest_row_is_of_the_part_that_was_asked_for(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    generated(build, ALL)
    for split in ("train", "valid"):
        [name] = re.findall(r"is (g\d+):", asked(build, "rows", about="longest", split=split).lines[0])
        assert next(row for row in ALL if row.row_id == name).split == split
    named = asked(build, "rows", about="longest", reason="near-duplicate", verdict="drop").lines[0]
    [name] = re.findall(r"is (g\d+):", named)
    assert str(next(row for row in ALL if row.row_id == name).verdict).startswith("near-duplicate")


def test_rows_that_were_written_anew_are_counted_once(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    generated(build, ALL)
    generated(build, ALL[:1])
    assert asked(build, "findings", about="more_rows").lines[-1] == "1 row of it was kept."


def test_what_a_run_without_artifacts_lacks_is_named(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    step = build.step("base")
    with pytest.raises(NotFound, match=r"^r1 has no artifacts; it has made: nothing yet"):
        asked(build, "artifact")
    build.artifact(step, "base", bytes_=5)
    assert re.match("r1 .*has made 1 artifact, 5", asked(build, "artifact").lines[0])
    assert asked(build, "disk_use").lines[0].startswith("The 1 artifact of 1 run takes 5")


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
