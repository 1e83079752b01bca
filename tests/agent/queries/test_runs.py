"""Runs and their steps in facts: how they went, why one broke off, what is ahead and what that takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.driver.states import make_state, priceable
from tests.driver.stranger_states import home_of_state
from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.agent.queries.facts import Result
from tunesmith.agent.queries.table import text_of
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Estimate
from tunesmith.tools.pipeline.forecast import Forecast, forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.planning_facts import gather
from tunesmith.tools.pipeline.workspace import Workspace


def in_state(home: Path, state: str, kind: str, **given: Any) -> Result:
    with home_of_state(home, state):
        return asked(Store(home), kind, **given)


def test_each_run_has_its_verdict_and_what_its_last_arm_passes(two_runs: Store) -> None:
    found = asked(two_runs, "runs")
    assert found.of["runs"] == 2 and [one["run"] for one in found.facts] == ["r2", "r1"]
    whole = {"name": "ticket-triage", "status": "done", "steps_done": "12 of 13", "verdict": "learned"}
    assert {**whole, "arm": "quantized", "target_passed": "57 of 60"}.items() <= found.facts[1].items()


def test_runs_that_failed_are_chosen(two_runs: Store, tmp_path: Path) -> None:
    assert asked(two_runs, "runs", outcome="failed").of["runs"] == 0
    failed = in_state(tmp_path / "home", "a run whose training step failed", "runs", outcome="failed")
    assert [one["run"] for one in failed.facts] == ["r1"]


def test_a_run_that_fetched_the_driver_is_counted_and_not_listed(tmp_path: Path) -> None:
    store, _ = stored_runs.finished_run(tmp_path / "home")
    build = stored_runs.Builder(store, store.new_run("driver"))
    build.end(build.step("base"), 1.0, 1, {})
    found = asked(store, "runs")
    assert found.of["runs"] == 1 and dict(found.left_out) == {"runs of the driver and of checks": 1}


def test_a_run_is_told_with_its_goal_its_verdict_and_all_its_steps(two_runs: Store) -> None:
    found = asked(two_runs, "run", run="r1")
    assert str(found.of["goal"]).startswith("answer a support ticket") and found.of["verdict"] == "learned"
    assert found.of["target_passed"] == {"base": "2 of 60", "adapter": "59 of 60", "merged": "59 of 60",
                                         "quantized": "57 of 60"}  # fmt: skip
    assert len(found.facts) == 13 and found.of["steps_ahead"] == 0 and found.says[0].startswith("learned: 57 of 60")


def test_every_step_of_a_stage_is_told(two_runs: Store) -> None:
    facts = asked(two_runs, "run", run="r1", stage="evaluate").facts
    assert [one["arm"] for one in facts] == ["adapter", "merged", "quantized"]


def test_a_stage_that_was_not_done_is_told_so_and_proposed(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    build.end(build.step("merge"), 3.0, 1, {})
    assert asked(build.store, "run", stage="merge").facts[0]["status"] == "done"
    lacking = asked(build.store, "run", stage="quantize")
    assert lacking.facts == ({"stage": "quantize", "status": "not done"},)
    assert [(one.run, one.stage) for one in lacking.proposals] == [("r1", "quantize")]
    with pytest.raises(BadInput, match=r"There is no stage rm; they are .*quantize"):
        asked(build.store, "run", stage="rm")


@table("kind", ["run", "step", "steps"])
def test_a_run_that_is_not_there_is_told_with_those_that_are(two_runs: Store, kind: str) -> None:
    with pytest.raises(NotFound, match=r"There is no run r77; the runs are r2 .*, r1"):
        asked(two_runs, kind, run="r77")


@table(("kind", "given"), [("run", {}), ("step", {}), ("steps", {"outcome": "failed"})])
def test_what_broke_off_is_told_with_how_it_goes_on_and_its_price(
    tmp_path: Path, kind: str, given: dict[str, Any]
) -> None:
    found = in_state(tmp_path / "home", "a run whose training step failed", kind, **given)
    fact = found.of["broke_off"]["s6"] if kind == "run" else found.facts[0]  # type: ignore[index]
    assert fact["error"] == "the worker was killed (signal 9)" and fact["signal_sent_by"] == "not recorded"
    assert fact["goes_on_from"] == "optimiser step 25" and fact["done_share"] == pytest.approx(31 / 75, abs=0.01)
    assert fact["going_on_takes"]["estimated_seconds"] > 0 and fact["going_on_takes"]["disk_bytes"] > 0
    assert [(one.run, one.stage) for one in found.proposals] == [("r1", "train")]


def test_a_step_that_cannot_be_done_again_as_things_are_has_no_price(tmp_path: Path) -> None:
    store = stored_runs.failed_run(tmp_path / "home")[0]
    [fact] = asked(store, "steps", outcome="failed").facts
    assert "cannot_be_done" in fact["going_on_takes"]  # type: ignore[operator]


def test_steps_are_ordered_by_what_is_asked_for(two_runs: Store) -> None:
    longest = asked(two_runs, "steps", run="r1", order="time")
    assert longest.facts[0]["stage"] == "train" and longest.of["seconds"] == pytest.approx(804.9)
    assert (longest.of["of_steps"], longest.of["failed_or_stopped"]) == (13, 1)
    assert asked(two_runs, "steps", run="r1", order="memory").facts[0]["stage"] == "preflight"
    late = asked(two_runs, "steps", run="r1", order="late").facts
    over = [one["seconds"] - one["estimated_seconds"] for one in late]  # type: ignore[operator]
    assert over == sorted(over, reverse=True)


def test_the_steps_of_a_span_of_time_are_of_every_run(two_runs: Store) -> None:
    assert {one["run"] for one in asked(two_runs, "steps", since="2001-01-01").facts} == {"r1", "r2"}
    none = asked(two_runs, "steps", since="2000-01-01", until="2000-01-02")
    assert none.facts == () and {"since": "2000-01-01 00:00", "of_steps": 0}.items() <= none.of.items()


def test_failures_are_of_every_run_and_say_which_later_step_did_it_after_all(two_runs: Store) -> None:
    found = asked(two_runs, "steps", outcome="failed")
    assert found.of["runs"] == ["r2", "r1"] and found.of["failed_or_stopped"] == 1
    assert {"step": "s6", "done_since_by": "s7"}.items() <= found.facts[0].items() and not found.proposals
    none = asked(two_runs, "steps", outcome="failed", since="2001-02-03", until="2001-02-04")
    assert (none.of["failed_or_stopped"], none.of["of_steps"], none.facts) == (0, 0, ())
    whole = asked(two_runs, "steps", outcome="failed", stage="merge")
    assert whole.of["failed_or_stopped"] == 0 and {one["status"] for one in whole.facts} == {"done"}
    assert not any("error" in one for one in whole.facts) and none.of["seconds"] is None


def test_a_training_that_broke_off_goes_on_at_one_price_wherever_that_is_told(tmp_path: Path) -> None:
    found = in_state(tmp_path / "home", "a run whose training step failed", "run")
    train = next(one for one in found.facts if (one["stage"], one["status"]) == ("train", "could follow"))
    broke_off: Any = found.of["broke_off"]
    assert train["estimated_seconds"] == broke_off["s6"]["going_on_takes"]["estimated_seconds"]


def test_the_steps_ahead_have_the_prices_that_a_plan_shows(tmp_path: Path) -> None:
    home, _ = make_state(tmp_path / "home", "dataset")
    priceable(home)
    steps = [{"stage": stage, "fields": {}} for stage in ("preflight", "train", "merge")]
    with home.write() as conn:
        conn.execute("UPDATE runs SET plan = ? WHERE run = 'r1'", (json.dumps({"name": "p", "steps": steps}),))
    ws = Workspace(home, "/bin/true", lambda event, **data: None)
    plan = PipelinePlan.model_validate({"name": "p", "steps": steps})
    prices = forecast(ws, plan, facts=gather(home, "r1", vllm="/bin/true"))
    times = [price.estimate.seconds if price.estimate else None for price in prices]
    found = asked(home, "run")
    ahead = [one for one in found.facts if one["status"] == "planned"]
    assert [one["stage"] for one in ahead] == ["preflight", "train", "merge"] and all(times)
    assert [one["estimated_seconds"] for one in ahead] == pytest.approx(times, rel=0.05)
    assert found.of["all_ahead_seconds"] == pytest.approx(sum(filter(None, times)), rel=0.05)


def test_a_step_ahead_says_whether_it_fits_and_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = make_state(tmp_path / "home", "dataset")
    of = Estimate(seconds=9.0, basis="")
    prices = [Forecast("", "", of), Forecast("", "", of, lacks=("needs 9 GiB",)), Forecast("", "", refused="no rows")]
    monkeypatch.setattr("tunesmith.tools.pipeline.forecast.forecast",
                        lambda ws, plan, facts: [*prices, *[Forecast("", "")] * (len(plan.steps) - 3)])  # fmt: skip
    facts = [one for one in asked(store, "run").facts if one["status"] == "could follow"][:4]
    assert [(one["fits"], one["lacks"]) for one in facts] == [
        (True, []), (False, ["needs 9 GiB"]), (False, ["no rows"]), (None, [])
    ]  # fmt: skip


@pytest.mark.heavy
def test_a_run_that_did_not_learn_says_how_far_it_is_from_that(tmp_path: Path) -> None:
    found = in_state(tmp_path / "less", "r2 is tested and only partly learned", "run", run="r2")
    assert found.of["verdict"] == "partly learned" and found.says[0].startswith("partly learned: 20 of 60")


def test_what_could_follow_without_a_plan_has_its_time_or_none_yet(tmp_path: Path) -> None:
    home, _ = make_state(tmp_path / "home", "dataset")
    with home.write() as conn:
        conn.execute("UPDATE runs SET plan = '{}' WHERE run = 'r1'")
    found = asked(home, "run")
    ahead = [one for one in found.facts if one["status"] == "could follow"]
    chain = ["preflight", "train", "evaluate", "merge", "evaluate", "quantize", "evaluate", "deploy"]
    assert [one["stage"] for one in ahead] == chain and all(one["fits"] for one in ahead)
    assert all(0 < one["peak_ram_bytes"] < found.of["free_ram_bytes"] for one in ahead)  # type: ignore[operator]
    with home.write() as conn:
        conn.execute("UPDATE artifacts SET meta = '{}'")
    unknown = asked(home, "run")
    assert unknown.of["steps_ahead"] == 8 and unknown.of["all_ahead_seconds"] is None


def test_hostile_names_and_errors_are_shown_as_text(tmp_path: Path) -> None:
    store, _ = stored_runs.finished_run(tmp_path / "home", hostile="\x1b[2J\x1b]0;owned\x07 approved")
    for kind in ("runs", "run", "steps", "step", "approvals", "served", "jobs"):
        assert not any(mark in line for line in text_of(asked(store, kind)) for mark in "\x1b\x07"), kind
