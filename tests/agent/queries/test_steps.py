"""One step in facts, and one number by its name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.driver.states import make_state
from tests.driver.stranger_states import home_of_state
from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.registry import REQUESTS, ask
from tunesmith.agent.queries.steps import goes_on_from
from tunesmith.agent.queries.table import text_of
from tunesmith.memory.errors import NotFound
from tunesmith.memory.files import seal
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace


def test_a_step_is_told_with_its_time_its_memory_its_numbers_and_its_settings(two_runs: Store) -> None:
    found = asked(two_runs, "step", run="r1", stage="train")
    [fact] = found.facts
    assert fact["step"] == "s7"
    assert {"seconds": 152.0, "estimated_seconds": 160.0, "peak_rss_bytes": 2290 << 20}.items() <= fact.items()
    assert fact["recorded"]["trainable_parameters"] == 4_884_480  # type: ignore[index]
    assert fact["asked_for"]["lora_rank"] == 16 and fact["run_time_share"] == pytest.approx(152.4 / 805.2, abs=0.005)  # type: ignore[index, operator]


def test_what_a_step_passed_reported_and_said_is_among_its_facts(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    stored_runs.add_baseline(build)
    passed = asked(build.store, "step", stage="baseline").facts[0]["passed"]
    assert passed == {"target": "2 of 60", "general": "32 of 33", "tools": "0 of 12"}
    odd = "17 of your 225 rows look odd"
    build.end(build.step("import"), 1.0, 1, {"rows": 225, "incompatible": 3, "problems": ["a row of somebody's"]})
    build.end(build.step("critique"), 1.0, 1, {"kept": 200, "notes": [odd], "path": "/rows"})
    taken = asked(build.store, "step", stage="import")
    assert taken.facts[0]["recorded"] == {"rows": 225, "incompatible": 3} and "somebody" not in taken.for_model()
    assert asked(build.store, "step", stage="critique").says == (odd,)


def test_what_was_free_when_a_step_was_priced_is_told(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    step = build.store.propose(build.run, "merge", plan={"free_ram_bytes": 5 << 30}, plan_hash="h")
    fact = asked(build.store, "step", step=step).facts[0]
    assert (fact["status"], fact["free_ram_when_priced_bytes"]) == ("planned", 5 << 30)


def test_a_step_without_a_record_is_told_with_those_that_are_there(two_runs: Store) -> None:
    with pytest.raises(NotFound, match=r"There is no release step in r2, r1; there is: base, baseline"):
        asked(two_runs, "step", stage="release")
    with pytest.raises(NotFound, match=r"There is no evaluate step of the prompted arm in r1;"):
        asked(two_runs, "step", run="r1", stage="evaluate", arm="prompted")


def test_an_attempt_that_failed_stands_beside_the_one_that_did_it(two_runs: Store) -> None:
    fact = asked(two_runs, "step", run="r1", stage="train").facts[0]
    assert fact["failed_before"] == {"s6": "the worker was killed (signal 9)"}


def test_a_step_of_the_run_talked_about_names_a_newer_one_of_another_run(two_runs: Store) -> None:
    context = Context(Workspace(two_runs, None, lambda event, **data: None), two_runs.run("r1"))
    for given, newer in (({}, "r2"), ({"run": "r1"}, None)):
        found = ask(REQUESTS["step"].model_validate({"stage": "train", **given}), context)
        assert found.facts[0]["run"] == "r1" and found.facts[0]["newer"].get("run") == newer  # type: ignore[union-attr]


def test_a_checkpoint_counts_that_was_written_to_its_end(tmp_path: Path) -> None:
    store = stored_runs.failed_run(tmp_path / "home")[0]
    step = store.broken_off("r1")
    assert step and goes_on_from(store, step) == "the beginning"
    for at, whole in ((20, True), (100, True), (120, False)):
        folder = store.home / "runs" / step.run / step.id / "checkpoints" / f"checkpoint-{at}"
        folder.mkdir(parents=True)
        if whole:
            seal(folder, step=at)
    assert goes_on_from(store, step) == "optimiser step 100"
    assert goes_on_from(store, replace(step, stage="generate")) == "the rows that are written"
    assert goes_on_from(store, replace(step, stage="merge")) == "the beginning"


def test_a_training_that_runs_is_told_with_its_losses_and_what_would_be_left_of_it(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "a training step is running"):
        fact = asked(Store(tmp_path / "home"), "step").facts[0]
    known = {"validation_loss": 0.391, "best_checkpoint_step": 25, "would_go_on_from": "optimiser step 25"}
    assert known.items() <= fact.items()
    assert fact["training_loss"] == pytest.approx(0.161, abs=1e-3) and fact["done_share"] == pytest.approx(
        0.5, abs=0.02
    )


def test_no_loss_is_made_up(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    build.step("train", estimated=(100.0, 1))
    assert asked(build.store, "step").facts[0]["training_loss"] is None
    build.store.close()


@table(("state", "tested"), [("merged", False), ("merged and tested", True)])
def test_a_merged_model_is_told_with_whether_it_was_tested_as_it_is(tmp_path: Path, state: str, tested: bool) -> None:
    store = make_state(tmp_path / "home", state)[0]
    found = asked(store, "step", stage="merge")
    assert found.facts[0]["tested"] is tested
    assert [(one.stage, one.fields) for one in found.proposals] == [("evaluate", {"arm": "merged"})] * (not tested)
    store.close()


def test_the_end_of_a_log_is_for_the_screen(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    step = build.step("generate")
    build.end(step, 4.0, 1, error="the worker ended")
    folder = tmp_path / "home" / "runs" / build.run / step
    folder.mkdir(parents=True)
    (folder / "worker.log").write_text("a row of somebody's\n")
    found = asked(build.store, "step", step=step)
    assert "a row of somebody's" in " ".join(text_of(found))
    assert "a row of somebody's" not in found.for_model() + json.dumps(found.as_json())
    done = build.step("base")
    build.end(done, 4.0, 1, {})
    (tmp_path / "home" / "runs" / build.run / done).mkdir()
    (tmp_path / "home" / "runs" / build.run / done / "worker.log").write_text("it went well\n")
    assert not asked(build.store, "step", step=done).texts
    assert asked(build.store, "step", step=done, log=True).texts == ({"log": "it went well"},)


def test_a_number_is_found_by_its_name_in_the_newest_step_that_recorded_it(two_runs: Store) -> None:
    [fact] = asked(two_runs, "step", figure="trained_tokens").facts
    assert fact["run"] == "r2" and fact["recorded"]["trained_tokens"] == 58_113  # type: ignore[index]
    with pytest.raises(NotFound, match=r"No step of any run recorded nope; recorded are: steps, .*trained_tokens"):
        asked(two_runs, "step", figure="nope")


def test_a_number_of_a_step_at_work_is_not_made_up(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "a training step is running"):
        [fact] = asked(Store(tmp_path / "home"), "step", figure="trained_tokens").facts
    assert "trained_tokens" not in fact["recorded"]  # type: ignore[operator]
    assert str(fact["note"]).startswith("step 38 of 75") and fact["status"] == "running"
