"""A price that nobody agreed to is no step of a run, and of each step only the newest open price waits for a yes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.memory.errors import BadInput
from tunesmith.memory.questions import ask_sql, show_run
from tunesmith.memory.records import Refusal, StepCounts
from tunesmith.memory.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def price(store: Store, run: str, stage: str, arm: str = "", **request: object) -> str:
    return store.propose(run, stage, arm=arm, plan_hash=f"{stage}{arm}{request}", request={"arm": arm, **request})


def begin(store: Store, step: str) -> str:
    store.decide(step, "yes", by="test", reason="", price={})
    store.claim(step, needs_approval=True, pid=1, pid_started=1.0, boot_id="b")
    return step


def do(store: Store, run: str, stage: str, arm: str = "", **request: object) -> str:
    step = begin(store, price(store, run, stage, arm, **request))
    store.finish(step, {})
    return step


def waiting(store: Store) -> list[str]:
    return [step.id for step in store.steps(status="planned")]


def abandoned(store: Store) -> list[str]:
    return [row["step"] for row in store.read("SELECT step FROM events WHERE event = 'price.abandoned' ORDER BY id")]


def test_a_newer_price_takes_the_place_of_an_older_one_of_the_same_step(store: Store) -> None:
    run, other = store.new_run("one"), store.new_run("other")
    first, beside, elsewhere = price(store, run, "train"), price(store, run, "merge"), price(store, other, "train")
    arms = [price(store, run, "evaluate", arm) for arm in ("base", "adapter")]
    second = price(store, run, "train", lora_rank=8)
    assert waiting(store) == [beside, elsewhere, *arms, second] and abandoned(store) == [first]
    assert store.step(first).status == "abandoned" and store.step(first).ended


def test_who_still_sees_an_abandoned_price_may_answer_it(store: Store) -> None:
    """A question that stands in another terminal is not taken from it."""
    run = store.new_run("one")
    yes = price(store, run, "train")
    no = price(store, run, "train", lora_rank=8)
    price(store, run, "train", lora_rank=16)
    begin(store, yes)
    store.decide(no, "no", by="test", reason="", price={})
    assert [store.step(step).status for step in (yes, no)] == ["running", "declined"]
    with pytest.raises(BadInput, match="is declined already"):
        store.decide(no, "yes", by="test", reason="", price={})


def test_stages_that_a_run_went_past_wait_no_more(store: Store) -> None:
    run = store.new_run("one")
    passed, open_ = price(store, run, "generate"), price(store, run, "evaluate")
    store.abandon(run, {"generate", "critique"}, "train (s9) has begun")
    assert waiting(store) == [open_] and abandoned(store) == [passed]


@pytest.mark.parametrize("how", ["declined", "abandoned"])
def test_a_price_to_go_on_that_is_not_agreed_to_leaves_a_step_as_it_had_ended(store: Store, how: str) -> None:
    run = store.new_run("one")
    for status in ("failed", "stopped"):
        step = begin(store, price(store, run, "train", was=status))
        store.fail(step, "it broke", status=status)
        before = store.step(step)
        for _ in range(2):
            store.reopen(step)
            assert store.step(step).status == "planned"
            if how == "declined":
                store.decide(step, "no", by="test", reason="later", price={})
            else:
                store.abandon_step(step, "it was interrupted")
            assert store.step(step) == before


def test_only_what_began_is_a_step(store: Store) -> None:
    run = store.new_run("one")
    done = do(store, run, "base")
    before = show_run(store, run), store.step_counts(run), store.runs()
    declined = price(store, run, "train")
    store.decide(declined, "no", by="test", reason="", price={})
    for _ in range(5):
        price(store, run, "merge")
    assert (show_run(store, run), store.step_counts(run), store.runs()) == before
    assert before[1] == StepCounts(1, 1) and [step.id for step in store.steps(run)] == [done]
    assert len(store.priced_steps(run)) == 7
    for sql, told in (("SELECT steps_done, steps FROM v_runs", (1, 1)), ("SELECT count(*) FROM v_steps", (1,))):
        assert ask_sql(store.path, sql).rows == (told,)


def test_a_run_with_a_plan_counts_the_steps_of_its_plan(store: Store) -> None:
    stages = ("base", "base", "evaluate", "evaluate", "deploy")
    run = store.new_run("one", plan={"steps": [{"stage": stage, "fields": {}} for stage in stages]})
    assert store.step_counts(run) == StepCounts(0, 5) and [one.id for one in store.runs()] == [run]
    do(store, run, "base", role="base")
    do(store, run, "inspect")
    assert store.step_counts(run) == StepCounts(1, 5), "a step beside the plan counts for nothing"
    for _ in range(3):
        do(store, run, "evaluate", "adapter")
    assert store.step_counts(run) == StepCounts(2, 5), "the same step again is no other step of the plan"
    for role, arm in (("teacher", "quantized"), ("driver", "merged")):
        do(store, run, "base", role=role)
        do(store, run, "evaluate", arm)
    assert store.step_counts(run) == StepCounts(4, 5)
    do(store, run, "deploy")
    assert str(store.step_counts(run)) == "5 of 5"


def test_a_run_that_only_a_price_opened_is_nobodys_and_serves_the_next_price(store: Store) -> None:
    kept = store.new_run("kept")
    do(store, kept, "base")
    asked = store.run_for_a_price("one model")
    price(store, asked, "base")
    assert [run.id for run in store.runs()] == [kept] and store.newest_run() == store.run(kept)
    assert store.run_for_a_price("another") == asked and store.run(asked).name == "another"
    assert store.run_for_a_price("driver") != asked, "the driver's run is not taken for a user's model"
    do(store, asked, "base")
    assert store.newest_run() == store.run(asked) and store.run_for_a_price("a third") != asked


def test_a_refusing_gate_is_told_until_the_plan_is_carried_out(store: Store) -> None:
    run = store.new_run("one", plan={"steps": [{"stage": "base"}, {"stage": "deploy"}]})
    do(store, run, "base")
    store.event("gate.refused", run=run, stage="deploy", reason="general got worse")
    assert store.refusal(run) is None, "it goes on"
    store.set_run_status(run, "done")
    assert store.refusal(run) == Refusal("deploy", "general got worse")
    assert store.status_words(store.run(run)) == "done, not deployed: the gate refused"
    assert show_run(store, run)["refused"] == "general got worse"
    do(store, run, "deploy")
    assert store.refusal(run) is None and store.status_words(store.run(run)) == "done"
