"""A judge grades alone from a kappa of 0.6 on twenty marks of both kinds; below that it gives advice."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.tables import table
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.judge_agreement import JudgeAgreement, agreement_of, judge_agreement, record_agreement
from tunesmith.tools.suites.case import PEOPLE, VALUE, Case
from tunesmith.tools.suites.grading import Assertion

RUBRIC = Assertion(type="llm-rubric", value="it is kind")


def verdicts(right: int, wrong: int, missed: int) -> tuple[list[bool], list[bool]]:
    """What people found, and a judge that is mistaken in the first `missed` of each kind."""
    known = [True] * right + [False] * wrong
    told = [n >= missed for n in range(right)] + [n < missed for n in range(wrong)]
    return known, told


@table(
    ("right", "wrong", "missed", "alone"),
    [
        (10, 10, 0, True),
        (10, 10, 2, True),
        (10, 10, 3, False),
        (10, 9, 0, False),
        (20, 0, 0, False),
        (0, 20, 0, False),
        (19, 1, 0, True),
        (50, 50, 10, True),
        (50, 50, 11, False),
    ],
)
def test_what_a_judge_may_grade_alone(right: int, wrong: int, missed: int, alone: bool) -> None:
    worth = agreement_of("j", *verdicts(right, wrong, missed))
    assert worth.grades_alone is alone and (f"kappa of {worth.kappa:.2f}" in worth.sentence)


def test_a_judge_that_nobody_marked_for_decides_no_case_and_values_decide_themselves() -> None:
    by_value = Case(case_id="v", suite="s", messages=(), metadata={"meaning": VALUE})
    by_judge = by_value.model_copy(update={"assertions": (RUBRIC,)})
    by_people = by_value.model_copy(update={"metadata": {"meaning": PEOPLE}})
    none, good = JudgeAgreement(), agreement_of("j", *verdicts(10, 10, 0))
    assert [none.decides(one) for one in (by_value, by_judge, by_people)] == [True, False, False]
    assert [good.decides(one) for one in (by_value, by_judge, by_people)] == [True, True, False]


def test_the_newest_calibration_of_a_run_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = store.new_run("r")
    assert judge_agreement(store, run) == JudgeAgreement()
    step = store.propose(run, "evaluate", plan={}, plan_hash="h", estimated_seconds=1.0)
    for missed in (5, 0):
        record_agreement(store, run, step, agreement_of("j", *verdicts(10, 10, missed)))
    assert judge_agreement(store, run).kappa == 1 and judge_agreement(store, "r9") == JudgeAgreement()
