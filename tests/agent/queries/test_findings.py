"""What the records of a run mean, and which of its models may be deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver.stranger_states import home_of_state
from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tunesmith.agent.queries.facts import Fact, Result
from tunesmith.memory.store import Store

LESS = "r2 is tested and only partly learned"


def findings_of(result: Result) -> dict[object, Fact]:
    """The findings among the facts, by their names."""
    return {one["finding"]: one for one in result.facts if "finding" in one}


def arms_of(result: Result) -> dict[object, Fact]:
    """The models among the facts."""
    return {one["arm"]: one for one in result.facts if "arm" in one}


def test_what_the_records_mean_is_said_by_the_findings_with_the_step_that_each_proposes(two_runs: Store) -> None:
    result = asked(two_runs, "findings", run="r1")
    assert [one.partition(":")[0] for one in result.says][1:] == [
        "Quantizing lost cases", "The quantized model", "Not over-trained"
    ]  # fmt: skip
    forgot = findings_of(result)["forgot"]
    assert forgot["cases"] == ["general-021"] and forgot["try_next"] == "train"
    assert [(one.stage, one.fields) for one in result.proposals] == [("train", forgot["with"])]


def test_each_model_is_told_with_its_size_its_scores_and_whether_the_gate_lets_it_through(two_runs: Store) -> None:
    result = asked(two_runs, "findings", run="r1")
    quantized = {"bytes": 112 << 20, "target": "57 of 60", "verdict": "learned", "may_be_deployed": True}
    assert quantized.items() <= arms_of(result)["quantized"].items()
    assert arms_of(result)["quantized"]["was_deployed"] and not arms_of(result)["adapter"]["was_deployed"]
    assert result.of["rather_deploy"] == "quantized" and arms_of(result)["base"]["may_be_deployed"] is None


@pytest.mark.heavy
def test_a_model_that_the_gate_refuses_is_said_with_why(tmp_path: Path) -> None:
    store, _ = stored_runs.finished_run(tmp_path / "home")
    with store.write() as conn:
        conn.execute("UPDATE eval_results SET passed = 0 WHERE block = 'general' AND arm = 'quantized'")
    result = asked(store, "findings")
    assert arms_of(result)["quantized"]["may_be_deployed"] is False and result.of["rather_deploy"] == "merged"
    assert any(one.startswith("general") for one in result.says)


@pytest.mark.heavy
def test_what_falls_short_comes_before_what_chance_explains(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", LESS):
        result = asked(Store(tmp_path / "home"), "findings", run="r2")
    assert result.says[0].startswith("The adapter model: partly learned: 20 of 60")
    assert any("may have forgotten" in line for line in result.says[1:])


def test_a_block_that_the_test_calls_worse_comes_before_what_was_partly_learned(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", LESS):
        store = Store(tmp_path / "home")
        with store.write() as conn:
            conn.execute("UPDATE eval_results SET passed = 0 WHERE run = 'r2' AND block = 'general'"
                         " AND arm = 'adapter'")  # fmt: skip
        result = asked(store, "findings", run="r2")
    assert "not learned: 20 of 60 people's cases right" in result.says[0]
    assert "; general got worse: 32 → 0 of 33" in result.says[0]


def test_rows_that_were_written_anew_are_counted_once(tmp_path: Path) -> None:
    build, rows = stored_runs.new_builder(tmp_path / "home"), stored_runs.training_rows("")
    for written in (rows, [row for row in rows if row.usable and row.split == "train"][:1]):
        step = build.step("generate")
        build.store.add_rows(build.run, step, list(written))
        build.end(step, 1.0, 1, {})
    assert asked(build.store, "findings").of["rows_to_train_on"] == 1


def test_a_run_in_which_nothing_was_measured_is_said_to_lack_it_with_the_step_that_comes_next(tmp_path: Path) -> None:
    store, _ = stored_runs.baseline_run(tmp_path / "home")
    result = asked(store, "findings")
    assert findings_of(result)["not trained"]["try_next"] == "generate"
    assert not result.of["rather_deploy"] and not arms_of(result)["base"]["verdict"]
