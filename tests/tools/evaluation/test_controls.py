"""Controls tell an arm that answers the message from one that only keeps the form; every figure here is planted."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from tests.fixtures.tables import table
from tunesmith.tools.evaluation.controls import (
    MOST_CASES,
    answer_controls,
    derangement,
    grade_without_models,
    repeat,
    shared_form,
    triggers,
)
from tunesmith.tools.evaluation.values import Answered
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Assertion, Response, grade

ONE_LINE = Assertion(type="regex", value=r"^(feat|fix|docs)\([a-z]+\): [a-z ]+$")
LABELS = ("billing", "delivery", "returns", "account", "technical")


def case(number: int, *assertions: Assertion, seed_row: str | None = None) -> Case:
    metadata = {} if seed_row is None else {"seed_row": seed_row}
    return Case(
        case_id=f"t{number:02}", suite="s", messages=({"role": "user", "content": f"message {number}"},),
        assertions=assertions, metadata=metadata,
    )  # fmt: skip


def answered(cases: Sequence[Case], answers: Sequence[str]) -> list[Answered]:
    pairs = [(one, Response(text)) for one, text in zip(cases, answers, strict=True)]
    return [Answered(one, response, grade(one, response).passed) for one, response in pairs]


def labelled(number: int) -> Case:
    return case(number, Assertion(type="is-json", value={"properties": {"label": {"const": LABELS[number % 5]}}}))


def label(number: int) -> str:
    return json.dumps({"label": LABELS[number % 5], "id": number})


def test_a_suite_of_one_regex_passes_the_same_answers_in_any_place() -> None:
    cases = [case(n, ONE_LINE) for n in range(20)]
    found = answer_controls(answered(cases, [f"feat(part): change {chr(97 + n)}" for n in range(20)]))
    assert found.shuffle and found.constant
    assert (found.shuffle.own, found.shuffle.passed, found.shuffle.lowest) == (20, 20, 20)
    assert found.shuffle.p_value == 1.0 and found.shuffle.state == "tells nothing"
    assert found.constant.passed == 20 and found.constant.state == "tells nothing"


def test_answers_that_fit_their_messages_fail_in_the_places_of_others() -> None:
    found = answer_controls(answered([labelled(n) for n in range(40)], [label(n) for n in range(40)]))
    assert found.shuffle and found.constant
    assert found.shuffle.own == 40
    assert 3 <= found.shuffle.passed <= 12  # 7 of the 39 others have the same label
    assert found.shuffle.p_value < 0.001 and found.shuffle.state == "beaten"
    assert found.constant.passed == 8 and found.constant.p_value < 0.001


def test_a_constant_answer_is_as_good_as_itself() -> None:
    found = answer_controls(answered([labelled(n) for n in range(40)], [label(0)] * 40))
    assert found.constant and found.shuffle
    assert found.constant.passed == found.constant.own == found.shuffle.passed == 8
    assert found.constant.answer == label(0) and found.constant.state == found.shuffle.state == "as good"


def test_the_best_constant_is_not_the_most_frequent_answer() -> None:
    wanted = [Assertion(type="contains", value="b" if n < 6 else "a") for n in range(10)]
    cases = [case(n, assertion) for n, assertion in enumerate(wanted)]
    found = answer_controls(answered(cases, ["a"] * 7 + ["b"] * 3)).constant
    assert found and (found.answer, found.passed) == ("b", 6)


def test_the_controls_are_the_same_each_time() -> None:
    one = answered([labelled(n) for n in range(25)], [label(n + (n % 3 == 0)) for n in range(25)])
    assert answer_controls(one) == answer_controls(one)


@table("clusters", [list(range(9)), [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1, 2]])
def test_no_answer_stays_with_a_case_of_its_own_seed_row(clusters: list[int]) -> None:
    for seed in range(50):
        order = derangement(clusters, random.Random(seed))
        assert order is not None
        assert all(clusters[place] != clusters[other] for place, other in enumerate(order))
        if 2 * max(map(clusters.count, clusters)) <= len(clusters):
            assert sorted(order) == list(range(len(clusters)))


def test_orders_differ_and_one_seed_row_has_none() -> None:
    orders = {tuple(derangement(range(8), random.Random(seed)) or ()) for seed in range(30)}
    assert len(orders) > 20
    assert derangement(["a"] * 4, random.Random(0)) is None
    same_row = [case(n, ONE_LINE, seed_row="r") for n in range(4)]
    found = answer_controls(answered(same_row, ["feat(x): y"] * 4))
    assert found.shuffle is None and found.constant is not None


def test_cases_of_one_seed_row_are_no_independent_evidence() -> None:
    alone = [labelled(n) for n in range(20)]
    rows = [one.model_copy(update={"metadata": {"seed_row": n % 5}}) for n, one in enumerate(alone)]
    answers = [label(n) for n in range(20)]
    apart, together = answer_controls(answered(alone, answers)), answer_controls(answered(rows, answers))
    assert apart.shuffle and together.shuffle
    assert together.shuffle.p_value > apart.shuffle.p_value  # five rows, not twenty cases


def test_what_waits_for_a_judge_is_left_to_the_judge_unless_code_fails_it_already() -> None:
    judged = Assertion(type="llm-rubric", value="fits the message")
    open_case, closed = case(1, ONE_LINE, judged), case(2, Assertion(type="contains", value="never said"), judged)
    response = Response("feat(x): y")
    assert grade_without_models(open_case, response) is None
    assert grade_without_models(closed, response) is False
    cases = [case(n, judged) for n in range(6)]
    found = answer_controls([Answered(one, Response(str(n)), True) for n, one in enumerate(cases)])
    assert found.shuffle and (found.shuffle.cases, found.shuffle.waiting) == (0, 6)
    assert {one.state for one in found.all} == {"left to the judge"}


def test_a_large_block_is_sampled_and_says_of_how_many() -> None:
    count = MOST_CASES + 100
    found = answer_controls(answered([labelled(n) for n in range(count)], [label(n) for n in range(count)]))
    assert found.shuffle and found.shuffle.cases == found.shuffle.own == MOST_CASES


def test_ordinary_messages_in_the_form_are_triggers_unless_the_base_answers_so_too() -> None:
    form = shared_form([case(1, ONE_LINE, Assertion(type="contains", value="a")), case(2, ONE_LINE)])
    assert form is not None and form.assertions == (ONE_LINE,)
    arm = {"g1": Response("feat(sky): blue"), "g2": Response("Blue."), "g3": Response("fix(a): b")}
    base = {"g1": Response("It is blue."), "g2": Response("Blue."), "g3": Response("fix(a): b"), "g4": Response("x")}
    found = triggers(form, arm, base)
    assert found.triggered == ("g1",) and found.cases == 3


def test_cases_that_share_nothing_checkable_have_no_form() -> None:
    rubric = Assertion(type="llm-rubric", value="fits")
    assert shared_form([labelled(0), labelled(1)]) is None
    assert shared_form([case(1, rubric), case(2, rubric)]) is None
    assert shared_form([case(1, ONE_LINE)]) is None


def test_a_repeat_counts_what_flips_with_nothing_changed() -> None:
    assert repeat({"a": True, "b": False, "c": True}, {"a": True, "b": True, "d": True}) is not None
    found = repeat({"a": True, "b": False, "c": True}, {"a": True, "b": True, "d": True})
    assert found and (found.flips, found.cases) == (1, 2)
    assert repeat({"a": True}, {"b": True}) is None
