"""What of a run is done, what was overtaken, and what is said before money is spent on it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.stored_runs import Builder
from tests.fixtures.tables import table
from tunesmith.agent.commands.render import step_end
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.evaluation.advice import baseline_advice, before_spending, target_advice
from tunesmith.tools.evaluation.baseline import BaselineResult, BlockResult
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.pipeline import catalog, progress
from tunesmith.tools.pipeline.following import next_stages

STEPS = ("base", "train", "evaluate adapter", "merge", "quantize", "evaluate quantized")
MAKES = {"base": "base", "train": "adapter", "merge": "merged", "quantize": "quantized"}
NEEDS = {"train": ("base",), "merge": ("base", "adapter"), "quantize": ("merged",)}


class Run:
    """A run that follows the plan STEPS; its artifacts are those of the steps that were done."""

    def __init__(self, home: Path) -> None:
        self.build: Builder = stored_runs.new_builder(home)
        self.store, self.run = self.build.store, self.build.run
        specs = [{"stage": s, "fields": {"arm": arm} if arm else {}} for s, _, arm in (w.partition(" ") for w in STEPS)]
        self.build.run = self.run = self.store.new_run("planned", plan={"name": "planned", "steps": specs})

    def do(self, *words: str) -> None:
        for word in words:
            stage, _, arm = word.partition(" ")
            needs = ("base", arm) if stage == "evaluate" else NEEDS.get(stage, ())
            pins = {kind: self.newest(kind) for kind in needs}
            inputs = {kind: {"artifact": made.id, "sha256": made.sha256} for kind, made in pins.items()}
            step = self.build.step(stage, arm=arm, inputs=inputs, request={"arm": arm} if arm else {})
            if stage in MAKES:
                self.build.artifact(step, MAKES[stage], "", *(made.id for made in pins.values()))
            self.build.end(step, 1.0, 1)

    def newest(self, kind: str) -> Any:
        return self.store.artifacts(self.run, kind)[-1]

    def done(self) -> list[int]:
        return sorted(progress.done_positions(self.store, self.run))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    made.do(*STEPS)
    return made


def test_a_whole_plan_is_done(run: Run) -> None:
    assert run.done() == [0, 1, 2, 3, 4, 5] and progress.is_complete(run.store, run.run)


def test_what_was_made_from_an_adapter_that_was_trained_anew_is_no_longer_done(run: Run) -> None:
    run.do("train")
    assert run.done() == [0, 1] and not progress.is_complete(run.store, run.run)
    following = next_stages(run.store, run.store.run(run.run))
    assert following[0] == "evaluate" and "merge" in following and "deploy" not in following
    run.do("evaluate adapter", "merge")
    assert run.done() == [0, 1, 2, 3]
    run.do("quantize", "evaluate quantized")
    assert progress.is_complete(run.store, run.run)


def test_what_an_earlier_version_quantized_in_a_way_that_is_gone_is_done_and_is_not_begun_anew(run: Run) -> None:
    for gone in ({"rounding": "awq"}, {"keep": ["measured"], "keep_share": 0.5}, {"distil_steps": 100}):
        with closing(sqlite3.connect(run.store.home / "tunesmith.db")) as conn, conn:
            conn.execute("UPDATE steps SET request = ? WHERE stage = 'quantize'", (json.dumps(gone),))
        assert run.done() == [0, 1, 2, 3, 4, 5]
        with pytest.raises(BadInput, match=r"version planned this quantize .* plan it anew with `tunesmith quan"):
            QuantizeRequest.of("quantize", gone)
    assert QuantizeRequest.of("quantize", {"distil_steps": 0, "keep_share": 0.25}) == QuantizeRequest()


def test_rows_that_are_added_to_imported_rows_leave_their_own_step_done(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path)
    stages = ("import", "generate", "critique")
    steps = [{"stage": stage, "fields": {}} for stage in stages]
    store = build.store
    build.run = run = store.new_run("planned", plan={"name": "planned", "steps": steps})

    def do(stage: str) -> None:
        pins = [] if stage == "import" else store.artifacts(run, "rows")[-1 if stage == "critique" else 0 :][:1]
        inputs = {made.kind: {"artifact": made.id, "sha256": made.sha256} for made in pins}
        step = build.step(stage, inputs=inputs)
        build.artifact(step, "dataset" if stage == "critique" else "rows", "", *(made.id for made in pins))
        build.end(step, 1.0, 1)

    for stage in stages:
        do(stage)
    assert sorted(progress.done_positions(store, run)) == [0, 1, 2], "a step does not overtake itself"
    do("generate")
    assert sorted(progress.done_positions(store, run)) == [0, 1], "the data set is of the rows before"
    do("import")
    assert sorted(progress.done_positions(store, run)) == [0], "and these were added to other rows"


def test_an_evaluation_of_another_arm_stands_in_for_none(tmp_path: Path) -> None:
    made = Run(tmp_path)
    made.do("base", "train", "merge", "evaluate merged")
    assert made.done() == [0, 1]


def test_a_plan_that_works_on_an_earlier_adapters_model_says_so(run: Run) -> None:
    def notes() -> tuple[str, ...]:
        made = run.newest("quantized")
        pin = {"artifact": made.id, "sha256": made.sha256}
        plan = Plan.model_validate(
            {"stage": "deploy", "run": run.run, "summary": "s", "steps": (), "request": {}, "inputs": {"model": pin},
             "estimate": Estimate(seconds=1.0, basis="b")}
        )  # fmt: skip
        return progress.older_line(run.store, plan)

    assert notes() == ()
    old = run.newest("adapter").id
    run.do("train")
    [note] = notes()
    assert f"was made from adapter {old}; the newest, {run.newest('adapter').id}, is not in it" in note


@table(
    ("passed", "judged", "told"),
    [
        (0, 87, ""),
        (60, 100, ""),
        (35, 40, "the 5 left cannot show a gain, which takes 6"),
        (40, 40, "the 0 left cannot show"),
        (79, 100, ""),
        (80, 100, "reaches 80% untrained: advised against training"),
        (0, 0, "no target case was answered"),
    ],
)
def test_a_base_with_little_to_win_is_told_before_anything_is_bought(passed: int, judged: int, told: str) -> None:
    found = target_advice(passed, judged)
    assert told in found and bool(found) == bool(told)


def test_the_advice_stands_below_the_baseline_and_on_every_plan_that_spends(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path)
    blocks = {"target": BlockResult(cases=41, passed=38, errors=1)}
    step = build.step("baseline", arm="base")
    report = BaselineResult(artifact="a1", suite_sha256="s", blocks=blocks, key={}, advice=baseline_advice(blocks))
    build.end(step, 1.0, 1, report.model_dump(mode="json"))
    told = "the untouched base passes 38 of 40 target cases: the 2 left cannot show a gain"
    assert told in step_end(build.store.step(step)).text.plain
    for stage, spends in (("generate", True), ("train", True), ("critique", False), ("deploy", False)):
        assert catalog.BY_NAME[stage].load().spends is spends
    assert [told in note for note in before_spending(build.store.steps(build.run))] == [True]
