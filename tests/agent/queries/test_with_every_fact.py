"""An answer of the right kind has the fact that people need with it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.driver.states import make_state
from tests.driver.stranger_states import home_of_state
from tests.fixtures import stored_runs
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Answer, Context, shortened, taken_up
from tunesmith.agent.queries.registry import REQUESTS, answer
from tunesmith.memory.errors import NotFound
from tunesmith.memory.files import seal
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace

LESS = "r2 is tested and only partly learned"


def told(store: Store, kind: str, **given: Any) -> Answer:
    context = Context(Workspace(store, "/bin/true", lambda event, **data: None), store.newest_run())
    return answer(REQUESTS[kind].model_validate(given), context)


def text(store: Store, kind: str, **given: Any) -> str:
    return "\n".join(told(store, kind, **given).lines)


def in_state(home: Path, state: str, kind: str, **given: Any) -> str:
    with home_of_state(home, state):
        return text(Store(home), kind, **given)


def test_a_training_that_runs_is_told_with_its_last_loss_wherever_it_is_asked_for(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "a training step is running"):
        store = Store(tmp_path / "home")
        assert "The last recorded training loss is 0.161 (optimiser step 38, from 2.022 at 1)" in text(store, "jobs")
        assert "Of its checkpoints that of step 25 is the best so far (0.391)." in text(store, "jobs")
        how_far = "50% done (step 38 of 75, 37 to go, 2.10 s each)"
        assert how_far in text(store, "jobs")
        assert "the peak is recorded when it ends" in text(store, "jobs")


def test_no_loss_is_made_up(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    build.step("train", estimated=(100.0, 1))
    assert "No loss of it is recorded yet." in text(build.store, "jobs")
    build.store.close()


def test_what_broke_off_is_told_with_how_it_goes_on_and_its_price(tmp_path: Path) -> None:
    for kind, given in (("step", {"about": "failure"}), ("steps", {"about": "failures"}), ("run", {"about": "status"}),
                        ("steps", {"about": "out_of_memory"}), ("run", {"about": "remaining"})):  # fmt: skip
        said = in_state(tmp_path / f"{kind}{given['about']}", "a run whose training step failed", kind, **given)
        assert (
            "“Go on” tries it again, from its checkpoint of optimiser step 25, the newest on this disk" in said
            and "Its price: about " in said
        ), said
        assert "of memory" in said and "of disk; it asks before it starts" in said


def test_a_checkpoint_counts_that_was_written_to_its_end(tmp_path: Path) -> None:
    store = stored_runs.failed_run(tmp_path / "home")[0]
    step = store.broken_off("r1")
    assert step and taken_up(store, step) == "from its beginning, as no checkpoint of it is on this disk"
    for at, whole in ((20, True), (100, True), (120, False)):
        folder = store.home / "runs" / step.run / step.id / "checkpoints" / f"checkpoint-{at}"
        folder.mkdir(parents=True)
        if whole:
            seal(folder, step=at)
    assert taken_up(store, step) == "from its checkpoint of optimiser step 100, the newest on this disk"
    assert taken_up(store, replace(step, stage="generate")) == "with the rows that are written"
    assert taken_up(store, replace(step, stage="merge")) == ""


@table(
    ("errors", "says"),
    [(("out of memory at 11.2 GiB", "out of memory at 9.8 GiB"), "2 of these 2 have the same error"),
     (("killed", "no disk", "killed"), "2 of these 3 have the same error on record."),
     (("killed", "no disk"), "Their errors all differ"), (("killed",), "")],
)  # fmt: skip
def test_of_several_failures_it_is_told_whether_their_errors_are_alike(
    tmp_path: Path, errors: tuple[str, ...], says: str
) -> None:
    build = stored_runs.new_builder(tmp_path / str(abs(hash(errors))))
    for error in errors:
        build.end(build.step("train", estimated=(9.0, 1)), 4.0, 1, error=error)
    said = text(build.store, "steps", about="failures")
    assert says in said and ("error" in said.replace("its error", "")) == bool(says), said
    build.store.close()


def test_a_step_that_cannot_be_done_again_as_things_are_has_no_price(tmp_path: Path) -> None:
    store = stored_runs.failed_run(tmp_path / "home")[0]
    assert "Its price: none as things are (" in text(store, "step", about="failure")
    store.close()


@pytest.mark.heavy
def test_the_way_to_learned_is_told_with_the_difference(tmp_path: Path) -> None:
    assert "learned takes 48 of 60, 28 more" in in_state(tmp_path / "less", LESS, "result", run="r2")
    assert "Learned takes 48 of 60, 9 more are right." in in_state(tmp_path / "one", "one finished run", "result")


@pytest.mark.heavy
def test_a_diagnosis_begins_with_what_falls_short_and_is_not_cut_within_a_clause(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", LESS):
        lines = told(Store(tmp_path / "home"), "findings", about="why", run="r2").lines
    assert lines[0].startswith("r2: The adapter model: partly learned: 20 of 60")
    assert lines[1].startswith("Its adapter model fails 40 of 60 target cases;")
    assert any("may have forgotten" in line for line in lines[2:]) and not any("…" in line for line in lines)


def test_a_block_that_the_test_calls_worse_comes_before_what_was_partly_learned(tmp_path: Path) -> None:
    worse = "UPDATE eval_results SET passed = 0 WHERE run = 'r2' AND block = 'general' AND arm = ?"
    with home_of_state(tmp_path / "home", LESS):
        store = Store(tmp_path / "home")
        with store.write() as conn:
            conn.execute(worse, ("adapter",))
        first = told(store, "findings", about="next", run="r2").lines[0]
    assert "not learned: general got worse: 32 → 0 of 33" in first, first


def test_what_was_merged_and_not_tested_is_said_to_be_unknown(tmp_path: Path) -> None:
    store = make_state(tmp_path / "home", "merged")[0]
    reply = told(store, "compare", arm="merged", other_arm="adapter")
    assert "was not tested, so whether something broke on the way to it is not known" in reply.lines[0]
    assert "“Evaluate the merged model” tells: about " in reply.lines[0]
    assert [(one.stage, one.fields) for one in reply.proposals] == [("evaluate", {"arm": "merged"})]
    assert "was not tested" in text(store, "step", stage="merge")
    with pytest.raises(NotFound, match="cannot compare"):
        told(store, "compare", arm="quantized", other_arm="base")  # it is not there: nothing could be tested
    store.close()
    tested = make_state(tmp_path / "tested", "merged and tested")[0]
    assert "was not tested" not in text(tested, "step", stage="merge")
    tested.close()


def test_whether_something_is_there_is_answered_with_yes_or_no_first(tmp_path: Path) -> None:
    store = make_state(tmp_path / "home", "merged")[0]
    assert text(store, "run", stage="merge").startswith("Yes: merge ")
    assert text(store, "run", stage="quantize").startswith("No: quantize was not done in r1 yet")
    stored_runs.start_training(stored_runs.Builder(store, "r1"), 3)
    assert text(store, "run", stage="train").startswith("Not yet: train ")
    store.close()


def test_what_was_refused_stands_beside_what_was_agreed_to(tmp_path: Path) -> None:
    store = stored_runs.baseline_run(tmp_path / "home")[0]
    assert text(store, "approvals", decision="yes").endswith("Refused: generate (s3 of r1).")
    assert "Refused" not in text(store, "approvals", decision="no")
    assert text(store, "approvals", decision="yes", stage="base").endswith("None of these was refused.")
    store.close()


@pytest.mark.heavy
def test_runs_that_do_equally_well_are_not_ranked(tmp_path: Path) -> None:
    lines = in_state(tmp_path / "home", "at least two finished runs", "runs", about="best").splitlines()
    assert lines[0].startswith("r2 and r1 do equally well: ") and "no difference is shown" in lines[1]
    assert in_state(tmp_path / "less", LESS, "runs", about="best").startswith("r1 (ticket-triage): its adapter model")


def test_where_no_label_can_be_mixed_up_the_checks_that_fail_are_counted(tmp_path: Path) -> None:
    said = in_state(
        tmp_path / "home", "r1 is finished and its tuned model fails more than five open cases", "confusion"
    )
    assert "have no labels to mix up; by check:" in said and said.endswith("fail: 9 by is-json."), said


def test_what_is_left_of_a_run_that_did_not_learn_begins_with_how_far_it_is_from_that(tmp_path: Path) -> None:
    short, steps = in_state(tmp_path / "less", LESS, "run", run="r2", about="remaining").splitlines()[::2][:2]
    assert "learned takes 48 of 60 (80% of them), so 28 cases more would be needed" in short, short
    assert "what could follow" in steps, steps
    learned = in_state(tmp_path / "one", "one finished run", "run", about="remaining")
    assert "learned takes" not in learned


def test_steps_ahead_are_said_to_ask(tmp_path: Path) -> None:
    said = in_state(tmp_path / "home", "a run is planned or begun", "run", about="remaining")
    assert "Each expensive one of them shows its price and waits for your yes before it starts." in said
    assert "Each expensive" not in in_state(tmp_path / "one", "r1's model is served now", "run", about="remaining")


def test_trainable_parameters_are_computed_where_no_step_recorded_them(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "one finished run"):
        store = Store(tmp_path / "home")
        recorded = text(store, "figure", figure="trainable_parameters")
        assert recorded.startswith("trainable parameters of train: 4,884,480 (s7 of r1).")
        with store.write() as conn:
            conn.execute("UPDATE steps SET result = json_remove(result, '$.trainable_parameters')")
        said = text(store, "figure", figure="trainable_parameters")
        assert "4,884,480 at rank 16, by arithmetic; no step of r1 recorded the number." in said, said
        with store.write() as conn:
            conn.execute("UPDATE steps SET request = json_set(request, '$.lora_rank', 'auto') WHERE stage = 'train'")
        with pytest.raises(NotFound, match="No step of any run recorded trainable_parameters"):
            told(store, "figure", figure="trainable_parameters")


def test_a_block_without_results_is_named_in_a_whole_sentence(tmp_path: Path) -> None:
    said = in_state(tmp_path / "home", "one finished run", "result", block="adversarial")
    assert said.startswith("r1 has no results on the adversarial block; measured are")


def test_a_sentence_is_shortened_at_a_clause() -> None:
    assert shortened("One is so; two is so; three is longer than what there is room for", 40) == "One is so; two is so."
    assert shortened("short", 40) == "short"
    assert shortened("one word after another without any mark at all", 20).endswith("…")


@pytest.mark.heavy
def test_whether_a_run_is_served_is_said_first(tmp_path: Path) -> None:
    state = "at least two finished runs; a model of one of them is served now, and another was served before it"
    assert in_state(tmp_path / "no", state, "served", run="r1").startswith("No: nothing of r1 is served now.")
    assert "it was made in r2" in in_state(tmp_path / "yes", state, "served", run="r2").splitlines()[0]


@table(
    ("state", "kind", "given", "fact"),
    [
        (LESS, "result", {"run": "r2", "block": "target"}, "learned takes 48 of 60, 28 more"),
        (LESS, "findings", {"run": "r2"}, "Its adapter model fails 40 of 60 target cases; "),
        ("a run whose training step failed", "step", {"about": "failure"}, "that signal is not recorded"),
        ("some steps were approved and at least one was declined", "approvals", {"decision": "no"}, "Approved: "),
        ("some steps were approved and at least one was declined", "approvals", {"decision": "yes"}, "Refused: "),
        ("r1 is trained and merged, not yet quantized", "price", {"stage": "quantize"}, "becomes about 108 MiB at 4"),
        ("r1 is trained and merged, not yet quantized", "run", {"about": "remaining"}, "GiB free and "),
        ("a training step is running", "step", {"about": "memory"}, "RAM: "),
        ("one finished run r1", "approvals", {"decision": "unasked"}, "Nothing expensive starts without a yes"),
        ("a training step is running", "price", {"stage": "train"}, "no train has ended on this machine yet"),
        ("a training step is running", "figure", {"figure": "trained_tokens"}, "step 38 of 75"),
    ],
)  # fmt: skip
def test_the_fact_that_people_ask_for_next_is_there(
    tmp_path: Path, state: str, kind: str, given: dict[str, str], fact: str
) -> None:
    assert fact in (said := in_state(tmp_path / "home", state, kind, **given)), said


def test_what_failed_is_told_with_its_day_and_of_a_span_in_which_nothing_did_the_newest(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", "several runs or steps, at least one of which failed"):
        store = Store(tmp_path / "home")
        first = told(store, "steps", about="failures").lines[0]
        assert re.search(r"^train \(s18 of r2\) failed \d{4}-\d\d-\d\d \d\d:\d\d after 12 s: ", first), first
        none, newest = told(store, "steps", about="failures", since="2001-02-03", until="2001-02-04").lines
        assert none.endswith(" failed or was stopped on 2001-02-03.") and "train (s18 of r2), " in newest
