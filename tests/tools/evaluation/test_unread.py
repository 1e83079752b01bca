"""What passes a suite without a message being read is said before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.agent.cli import main
from tunesmith.tools.evaluation.controls import MOST_CASES, answer_controls
from tunesmith.tools.evaluation.peoples_cases import Pair
from tunesmith.tools.evaluation.unread import (
    CONSTANT,
    ECHO,
    NOTHING,
    REFUSAL,
    suite_warnings,
    unread_answers,
    warnings_before,
)
from tunesmith.tools.evaluation.values import Answered
from tunesmith.tools.evaluation.verdict import UNDECIDED, Facts, decide
from tunesmith.tools.suites.case import Block, Case, Suite
from tunesmith.tools.suites.grading import Assertion, Response

Declared = dict[str, object]


def case(number: int, *asserted: Declared, block: Block = "target", says: str = "", **more: object) -> Case:
    text = says or f"Nachricht {number}: wo bleibt Bestellung {4000 + number}?"
    return Case(
        case_id=f"{block}{number}", block=block, suite="s", messages=({"role": "user", "content": text},),
        assertions=tuple(Assertion.model_validate(one) for one in asserted), **more,
    )  # fmt: skip


def answers(number: int) -> Declared:
    return {"type": "equals", "value": ["billing", "shipping", "other", "退款"][number % 4]}


PASSED = [
    ("no assertions at all", lambda n: [], {NOTHING: 12, REFUSAL: 12, ECHO: 12}),
    ("only what must not be said", lambda n: [{"type": "not-icontains", "value": f"bad {n}"}], {NOTHING: 12, ECHO: 12}),
    ("a weight of 0", lambda n: [{"type": "contains", "value": f"a{n}", "weight": 0}], {NOTHING: 12, REFUSAL: 12}),
    ("a number of the message", lambda n: [{"type": "contains", "value": str(4000 + n)}], {NOTHING: 0, ECHO: 12}),
    ("a refusal", lambda n: [{"type": "is-refusal"}], {NOTHING: 12, REFUSAL: 12, ECHO: 0}),
    ("one word of all", lambda n: [{"type": "icontains", "value": "Bestellung"}], {NOTHING: 0, ECHO: 12, CONSTANT: 12}),
    ("two labels", lambda n: [{"type": "equals", "value": "ja" if n % 3 else "nein"}], {NOTHING: 0, CONSTANT: 8}),
]


@table(("name", "asserts", "passed"), PASSED)
def test_what_reads_nothing_and_passes_is_said(name: str, asserts: object, passed: dict[str, int]) -> None:
    assert callable(asserts)
    cases = [case(n, *asserts(n)) for n in range(12)]
    found = {one.answer: one for one in unread_answers(cases)}
    assert {answer: found[answer].passed for answer in passed} == passed
    warning, *others = suite_warnings(cases)
    assert bool(others) is (name == "no assertions at all")
    assert all("12 cases of 12 assert nothing" in one for one in others)
    assert f"{max(one.passed for one in found.values())} of 12 target cases" in warning


def test_cases_that_say_their_own_answers_are_warned_of_nothing() -> None:
    cases = [case(n, answers(n)) for n in range(12)]
    assert {one.answer: one.passed for one in unread_answers(cases)} == {NOTHING: 0, REFUSAL: 0, CONSTANT: 3}
    assert suite_warnings(cases) == suite_warnings(cases[:3]) == suite_warnings([]) == []


def test_what_a_judge_reads_and_what_a_model_wrote_is_not_counted() -> None:
    judged = [case(n, {"type": "llm-rubric", "value": f"fits {n}"}) for n in range(12)]
    assert all(one.cases == 0 for one in unread_answers(judged)) and suite_warnings(judged) == []
    written = [case(n, metadata={"source": "written"}) for n in range(12)]
    assert unread_answers(written) == []


def test_near_misses_tell_a_label_that_is_nearly_always_right() -> None:
    target = [case(n, {"type": "equals", "value": "no" if n == 5 else "yes"}) for n in range(12)]
    near = [case(n, {"type": "not-equals", "value": "yes"}, block="over-trigger") for n in range(12)]
    assert suite_warnings(target) and not suite_warnings([*target, *near])


def test_one_text_that_passes_the_whole_target_is_said_whatever_stands_beside() -> None:
    """As the verdict has it: what one answer passes everywhere does not test the meaning."""
    target = [case(n, {"type": "contains", "value": "legal advice"}) for n in range(12)]
    near = [case(n, {"type": "not-contains", "value": "legal advice"}, block="over-trigger") for n in range(12)]
    [warning] = suite_warnings([*target, *near])
    assert "one text to everything (“legal advice”) passes 12 of 12 target cases" in warning


def test_a_block_that_an_empty_answer_passes_guards_little() -> None:
    general = [case(n, {"type": "not-contains", "value": "{"}, block="general") for n in range(8)]
    [warning] = suite_warnings(general)
    assert warning == "the general block guards little: an empty answer passes 8 of 8 general cases"
    assert suite_warnings([case(n, answers(n), block="general") for n in range(8)]) == []


def test_an_answer_that_must_end_in_a_line_break_is_said() -> None:
    cases = [case(n, {"type": "equals", "value": f"{n}\n" if n < 2 else f"{n}"}) for n in range(12)]
    [warning] = suite_warnings(cases)
    assert warning.startswith("2 cases can be passed only by an answer that begins or ends with white space")


def test_what_is_said_before_is_what_the_verdict_says_after() -> None:
    """Ten cases of two labels: an arm that is right on all of them is in no decision, and that is known before."""
    cases = [case(n, {"type": "equals", "value": "yes" if n % 2 else "no"}) for n in range(10)]
    right = [Answered(one, Response(one.assertions[0].text), True) for one in cases]
    facts = Facts(suite=[Pair(n, False, True) for n in range(10)], controls=answer_controls(right))
    assert decide(facts).word == UNDECIDED and "5 of 10 target cases" in suite_warnings(cases)[0]


def test_of_a_large_block_a_part_is_looked_at_and_that_is_said() -> None:
    cases = [case(n, answers(n)) for n in range(MOST_CASES + 4)]
    found = unread_answers(cases)
    assert {one.cases for one in found} == {MOST_CASES} and all("that were looked at" in one.says for one in found)


def test_suite_check_says_it_and_shows_what_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("prompts: ['Hallo {{q}}']\ntests: [{vars: {q: Welt}, assert: [{type: not-contains, value: x}]}]\n")
    assert main(["suite", "check", str(path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Hallo Welt" in told and "an empty answer passes 1 of 1 target cases" in told


def test_what_a_plan_says_is_of_its_own_suite_and_arm() -> None:
    easy = tuple(case(n, {"type": "icontains", "value": "Bestellung"}) for n in range(12))
    hard = tuple(case(n, {"type": "equals", "value": f"answer {n}"}) for n in range(12))
    told = [warnings_before(Suite(cases=cases), "base") for cases in (easy, hard, easy)]
    assert told[0] and told[0] == told[2] == (*suite_warnings(easy),) and told[1] == (*suite_warnings(hard),) != told[0]
    of_others = tuple(one.model_copy(update={"arms": ("adapter",)}) for one in easy)
    assert warnings_before(Suite(cases=of_others), "base") == ()
