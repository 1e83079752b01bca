"""What is counted, sampled and named is what is there: of a run with a row, an artifact, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.stored_runs import Builder
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


def test_what_a_run_without_artifacts_lacks_is_named(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    step = build.step("base")
    with pytest.raises(NotFound, match=r"^r1 has no artifacts; it has made: nothing yet"):
        asked(build, "artifact")
    build.artifact(step, "base", bytes_=5)
    assert re.match("r1 .*has made 1 artifact, 5", asked(build, "artifact").lines[0])
    assert asked(build, "disk_use").lines[0].startswith("The 1 artifact of 1 run takes 5")


def test_a_step_that_broke_off_says_how_far_it_was(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    step = stored_runs.start_training(build, 31)
    build.store.progress(step, 31, 75, "step 31 of 75")
    build.end(step, 20.0, 1, error="the worker was killed (signal 9)")
    lines = asked(build, "step", stage="train", about="failure").lines
    assert any("signal 9" in line and line.endswith("It was at 41 % (step 31 of 75).") for line in lines), lines


def test_a_question_about_a_step_of_a_run_begins_with_whether_it_is_done_and_proposes_it_where_it_is_not(
    tmp_path: Path,
) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    build.end(build.step("merge"), 3.0, 1, {})
    assert asked(build, "run", stage="merge").lines[0] == "Yes: merge (s1) of r1: done."
    lacking = asked(build, "run", stage="quantize", about="steps")
    assert lacking.lines[0].startswith("No: quantize was not done in r1 yet")
    assert [(one.run, one.stage) for one in lacking.proposals] == [("r1", "quantize")]
    assert "yet" not in asked(build, "run").lines[0]
