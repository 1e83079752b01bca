"""The verdict on answer sets whose truth is known: it is never wrong in its words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.tools.evaluation.answer_sets import (
    GENERAL,
    HARMED,
    KINDS,
    NEAR,
    SETS,
    Answers,
    Kind,
    general,
    plain,
)
from tunesmith.memory.records import EvalResult
from tunesmith.tools.evaluation.controls import grade_without_models
from tunesmith.tools.evaluation.evidence import Evidence, weigh
from tunesmith.tools.evaluation.ratings import Rated
from tunesmith.tools.evaluation.statistics import case_outcomes, compare_arms
from tunesmith.tools.evaluation.verdict import (
    FORM_ONLY,
    LEARNED,
    NOT_LEARNED,
)
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Response


def weighed(kind: Kind, said: Answers, rated: Sequence[Rated] = (), cases: Sequence[Case] | None = None) -> Evidence:
    """The evidence where the base answers plainly and the adapter says this; a judge's word is the truth."""
    target = [kind.case(n) for n in range(len(said.target))] if cases is None else list(cases)
    asked = [*target, *(kind.near(n) for n in range(NEAR)), *(general(n) for n in range(GENERAL))]
    answers = [*said.target, *said.near, *said.general]
    truth = [*said.right, *[True] * (NEAR + GENERAL)]

    def result(arm: str, case: Case, text: str, right: bool) -> EvalResult:
        verdict = grade_without_models(case, Response(text))
        passed = right if verdict is None else verdict
        return EvalResult(arm, case.block, case.case_id, "k", text, passed, float(passed))

    results = {
        "base": [result("base", case, plain(case), False) for case in asked],
        "adapter": [
            result("adapter", case, plain(case) if text is None else text, right)
            for case, text, right in zip(asked, answers, truth, strict=True)
        ],
    }
    by_id = {case.case_id: case for case in asked}
    base, arm = (case_outcomes(results[name], by_id).values() for name in ("base", "adapter"))
    compared = compare_arms(base, arm, ("base", "adapter"), {name: {"suite": "s"} for name in ("base", "adapter")})
    return weigh("adapter", asked, results, compared, rated=rated)


def rated(count: int, right: int, base: int = 0, *, generated: bool = False) -> list[Rated]:
    return [
        Rated(f"rated-{n}", n < base, n < right, "Ada", "2026-11-29T01:00:00+00:00", not generated)
        for n in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_word_is_wrong_of_any_answer_set(kind: Kind) -> None:
    wrong = []
    for name, make in SETS.items():
        said = make(kind)
        word = weighed(kind, said).verdict.word
        if word == LEARNED and (said.rate < 0.8 or name in HARMED):
            wrong.append((name, word, said.rate))
        if word in (NOT_LEARNED, FORM_ONLY) and said.rate >= 0.95 and name not in HARMED:
            wrong.append((name, word, said.rate))
    assert wrong == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.tests_meaning], ids=lambda kind: kind.name)
def test_what_is_right_is_learned_where_the_cases_test_the_meaning(kind: Kind) -> None:
    for name in ("perfect", "95 % right", "90 % right", "one near miss triggered", "one general case lost"):
        assert weighed(kind, SETS[name](kind)).verdict.word == LEARNED, name
    for name in HARMED:
        found = weighed(kind, SETS[name](kind)).verdict
        assert found.word == NOT_LEARNED and found.worse, name
    assert weighed(kind, SETS["no change"](kind)).verdict.word == NOT_LEARNED
