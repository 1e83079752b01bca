"""What a step would take, and what was agreed to and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.driver.stranger_states import home_of_state
from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store

MERGED = "r1 is trained and merged, not yet quantized"


def test_a_price_stands_beside_what_is_free_what_it_rests_on_and_what_it_took_before(tmp_path: Path) -> None:
    with home_of_state(tmp_path / "home", MERGED):
        store = Store(tmp_path / "home")
        train = asked(store, "price", stage="train", times={"epochs": 2})
        [fact] = train.facts
        assert (
            train.of["epochs"] == 6 and fact["fits"] is True and "no train has ended on this machine" in str(fact["by"])
        )
        assert 0 < fact["peak_ram_bytes"] < fact["free_ram_bytes"] and fact["before"]["step"] == "s7"  # type: ignore[operator, index]
        assert [(one.stage, one.fields) for one in train.proposals] == [("train", {"epochs": 6})]
        quantize = asked(store, "price", stage="quantize").facts[0]
        assert quantize["at_4_bits_bytes"] < quantize["at_8_bits_bytes"]  # type: ignore[operator]
        assert not store.steps("r1", status="planned")


def test_what_cannot_be_priced_from_these_records_is_said_with_what_to_try(two_runs: Store) -> None:
    with pytest.raises(BadInput, match=r"train cannot be priced: the records of r\d lack .* do the steps"):
        asked(two_runs, "price", stage="train", values={"epochs": 5})
    with pytest.raises(BadInput, match="There is no stage rm"):
        asked(two_runs, "price", stage="rm -rf")


@table(
    ("given", "approved", "refused", "steps"),
    [({}, 2, 1, ["s3", "s2", "s1"]), ({"decision": "yes"}, 2, 1, ["s2", "s1"]), ({"decision": "no"}, 2, 1, ["s3"]),
     ({"stage": "base"}, 1, 0, ["s1"]), ({"step": "s3"}, 0, 1, ["s3"]), ({"until": "2001-01-01"}, 0, 0, [])],
)  # fmt: skip
def test_decisions_are_listed_and_those_of_the_other_kind_are_counted_beside_them(
    tmp_path: Path, given: dict[str, Any], approved: int, refused: int, steps: list[str]
) -> None:
    store = stored_runs.baseline_run(tmp_path / "home")[0]
    found = asked(store, "approvals", **given)
    assert (found.of["approved"], found.of["refused"]) == (approved, refused)
    assert [one["step"] for one in found.facts] == steps
    assert found.of["until"] == (given["until"] + " 00:00" if "until" in given else None)
    store.close()


def test_a_decision_has_who_when_why_and_at_which_price(tmp_path: Path) -> None:
    store = stored_runs.baseline_run(tmp_path / "home")[0]
    [no] = asked(store, "approvals", decision="no").facts
    own = {"by": "you at the terminal", "reason": "not tonight", "priced_seconds": 5400.0}
    assert own.items() <= no.items() and no["decided_at"]


def test_a_step_that_ran_without_a_yes_is_counted_whatever_else_was_agreed_to(tmp_path: Path) -> None:
    store = stored_runs.baseline_run(tmp_path / "home")[0]
    ran, unasked = "expensive_steps_that_ran", "of_them_without_a_yes"
    assert asked(store, "approvals", stage="base").of[unasked] == 0
    with store.write() as conn:
        conn.execute("UPDATE approvals SET decision = 'no' WHERE step = 's2'")
    of = asked(store, "approvals").of
    assert (of[ran], of[unasked]) == (2, 1)
    assert asked(store, "approvals", stage="base").of[unasked] == 0


def test_what_was_answered_before_a_price_is_told_and_only_of_the_run_that_is_meant(tmp_path: Path) -> None:
    home, _ = stored_runs.finished_run(tmp_path / "home")
    assert asked(home, "approvals", decision="asked").of["questions_answered"] == 0
    home.event("question.answered", run="r1", stage="train", text="Train on these rows all the same?", answer="no")
    home.event("question.answered", run=None, stage="base", text="Take the smaller one?", answer="yes")
    both = asked(home, "approvals", decision="asked").facts
    assert [(one["stage"], one["run"], one["answer"]) for one in both] == [("base", "", "yes"), ("train", "r1", "no")]
    assert both[1]["question"] == "Train on these rows all the same?"
    assert asked(home, "approvals", decision="asked", stage="train").facts == both[1:]
    assert asked(home, "approvals", decision="asked", run="r1").facts == both[1:]
    assert asked(home, "approvals", decision="asked", stage="merge").facts == both, "asked at another stage"
