"""The verdict on answer sets whose truth is known: it is never wrong in its words."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product

import pytest

from tests.fixtures.tables import table
from tests.tools.evaluation.answer_sets import (
    GENERAL,
    HARMED,
    KINDS,
    NEAR,
    REFUSAL,
    SETS,
    TARGET,
    Answers,
    Kind,
    general,
    labels,
    plain,
)
from tunesmith.memory.records import EvalResult
from tunesmith.tools.core.stats import lower_bound
from tunesmith.tools.evaluation import controls
from tunesmith.tools.evaluation.controls import Triggers
from tunesmith.tools.evaluation.evidence import Evidence, weigh
from tunesmith.tools.evaluation.judge_agreement import JudgeAgreement
from tunesmith.tools.evaluation.peoples_cases import Pair, least_right
from tunesmith.tools.evaluation.ratings import Rated
from tunesmith.tools.evaluation.statistics import case_outcomes, compare_arms
from tunesmith.tools.evaluation.values import Answered
from tunesmith.tools.evaluation.verdict import (
    FORM_ONLY,
    LEARNED,
    NOT_LEARNED,
    ORDINARY,
    PARTLY,
    UNDECIDED,
    Facts,
    Guarded,
    decide,
)
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Response

pytestmark = pytest.mark.xdist_group("verdicts")  # the evidence of an answer set is made once

TRUSTED = JudgeAgreement(judge="j", marks=20, wrong=10, kappa=0.9)


_by_code = controls.grade_without_models
_graded: dict[tuple[int, str], tuple[Case, bool | None]] = {}
"""Case, by its place in memory, and text → the case, which so keeps its place, and its verdict on the text."""


def graded_once(case: Case, response: Response) -> bool | None:
    """What code says of an answer to a case; the answer sets of a kind have most of both in common."""
    key = id(case), response.output_text
    if key not in _graded:
        _graded[key] = case, _by_code(case, response)
    return _graded[key][1]


@pytest.fixture(autouse=True, scope="module")
def _each_answer_is_graded_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "grade_without_models", graded_once)
        yield
    _graded.clear()


@cache
def cases_of(kind: Kind) -> tuple[list[Case], list[Case], list[Case]]:
    """Target, near misses and general cases of a kind."""
    return [kind.case(n) for n in range(TARGET)], [kind.near(n) for n in range(NEAR)], _GENERAL


_GENERAL = [general(n) for n in range(GENERAL)]


def weighed(
    kind: Kind,
    said: Answers,
    rated: Sequence[Rated] = (),
    cases: Sequence[Case] | None = None,
    worth: JudgeAgreement = TRUSTED,
) -> Evidence:
    """The evidence where the base answers plainly and the adapter says this; a judge's word is the truth."""
    target, near, everyday = cases_of(kind)
    asked = [*(target if cases is None else cases), *near, *everyday]
    answers = [*said.target, *said.near, *said.general]
    truth = [*said.right, *[True] * (NEAR + GENERAL)]

    def result(arm: str, case: Case, text: str, right: bool) -> EvalResult:
        verdict = graded_once(case, Response(text))
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
    return weigh("adapter", asked, results, compared, rated=rated, agreement=worth)


@cache
def of_set(kind: Kind, name: str) -> Evidence:
    """The evidence of a whole answer set, which several laws are held against."""
    return weighed(kind, SETS[name](kind))


def rated(count: int, right: int, base: int = 0, *, generated: bool = False) -> list[Rated]:
    return [
        Rated(f"rated-{n}", n < base, n < right, "Ada", "2026-11-29T01:00:00+00:00", not generated)
        for n in range(count)
    ]


@pytest.mark.heavy
@table("kind", KINDS)
def test_no_word_is_wrong_of_any_answer_set(kind: Kind) -> None:
    wrong = []
    for name, make in SETS.items():
        said = make(kind)
        word = of_set(kind, name).verdict.word
        if word == LEARNED and (said.rate < 0.8 or name in HARMED):
            wrong.append((name, word, said.rate))
        if word in (NOT_LEARNED, FORM_ONLY) and said.rate >= 0.95 and name not in HARMED:
            wrong.append((name, word, said.rate))
    assert wrong == []


@pytest.mark.heavy
@table("kind", [kind for kind in KINDS if kind.tests_meaning])
def test_what_is_right_is_learned_where_the_cases_test_the_meaning(kind: Kind) -> None:
    for name in ("perfect", "95 % right", "90 % right", "one near miss triggered", "one general case lost"):
        assert of_set(kind, name).verdict.word == LEARNED, name
    for name in HARMED:
        found = of_set(kind, name).verdict
        assert found.word == NOT_LEARNED and found.worse, name
    assert of_set(kind, "no change").verdict.word == NOT_LEARNED


@pytest.mark.parametrize(
    "worth", [JudgeAgreement(), TRUSTED.model_copy(update={"kappa": 0.5})], ids=["unmarked", "poor"]
)
def test_a_judge_whose_word_is_worth_little_decides_nothing(worth: JudgeAgreement) -> None:
    [kind] = [kind for kind in KINDS if kind.tests_meaning and kind.case(0).asks_judge]
    perfect = SETS["perfect"](kind)
    found = weighed(kind, perfect, worth=worth).verdict
    assert found.word == UNDECIDED and worth.sentence in found.sentence and "tunesmith rate" in found.sentence
    assert weighed(kind, perfect, rated(found.needs, found.needs), worth=worth).verdict.word == LEARNED


def pairs(cases: int, right: int, base: int = 0) -> list[Pair]:
    return [Pair(n, n < base, n < right) for n in range(cases)]


@table(("right", "cases"), [(9, 10), (12, 14), (17, 20), (24, 30), (88, 110)])
def test_the_least_that_is_learned(right: int, cases: int) -> None:
    assert least_right(cases) == right
    assert decide(Facts(rated=pairs(cases, right))).word == LEARNED
    assert decide(Facts(rated=pairs(cases, right - 1))).word == PARTLY


@pytest.mark.heavy
def test_the_bound_is_that_of_scipy() -> None:
    from scipy.stats import binomtest

    for cases in (10, 14, 20, 33, 110):
        for right in range(1, cases + 1, 3):
            exact = binomtest(right, cases, alternative="greater").proportion_ci(0.9, "exact").low
            assert lower_bound(right, cases, 0.9) == pytest.approx(exact, abs=1e-9)


@table(("opening", "least"), [(1, [9, 12, 17, 24]), (2, [10, 13, 17, 25]), (5, [10, 14, 18, 26])])
def test_every_opening_of_the_same_cases_asks_for_more(opening: int, least: list[int]) -> None:
    assert [least_right(cases, opening) for cases in (10, 14, 20, 30)] == least
    for cases, right in zip((10, 14, 20, 30), least, strict=True):
        found = decide(Facts(rated=pairs(cases, right), opening=opening))
        assert found.word == LEARNED and found.confidence == 1 - 0.1 / opening
        short = decide(Facts(rated=pairs(cases, right - 1), opening=opening))
        assert short.word == PARTLY and f"learned takes {right} of {cases}" in short.sentence


@table(("suite", "rated_cases", "unusable"), [*product((0, 3, 9, 40), (0, 1, 9), ("", "errors"))])
def test_doing_exactly_what_would_decide_is_enough(suite: int, rated_cases: int, unusable: str) -> None:
    """However the further messages come out, and whatever the suite is worth."""
    controls = of_set(KINDS[0], "perfect").controls
    facts = Facts(
        suite=pairs(suite, suite), rated=pairs(rated_cases, rated_cases), controls=controls, unusable=unusable
    )
    found = decide(facts)
    if not found.needs:
        assert found.word != UNDECIDED
        return
    assert (
        found.word == UNDECIDED
        and f"{found.needs} more case" in found.sentence
        and "`tunesmith rate`" in found.sentence
    )
    for base, right in product((0, found.needs // 2, found.needs), (0, found.needs // 2, found.needs)):
        more = [Pair(f"more-{n}", n < base, n < right) for n in range(found.needs)]
        assert decide(replace(facts, rated=[*facts.rated, *more])).word != UNDECIDED
    assert decide(replace(facts, rated=[*facts.rated, *more[1:]])).word == UNDECIDED


@table("kind", [kind for kind in KINDS if not kind.tests_meaning])
def test_where_no_assertion_tells_the_meaning_people_decide(kind: Kind) -> None:
    perfect = SETS["perfect"](kind)
    open_ = of_set(kind, "perfect").verdict
    assert (open_.word, open_.needs) == (UNDECIDED, 10) and "form alone" in open_.sentence
    assert weighed(kind, perfect, rated(10, 10)).verdict.word == LEARNED
    assert weighed(kind, SETS["nonsense with the topic"](kind), rated(10, 0)).verdict.word == NOT_LEARNED
    assert weighed(kind, perfect, rated(10, 10, generated=True)).verdict.needs == 10
    marked = [
        kind.case(n).model_copy(update={"metadata": {"split": "blind", "meaning": "people"}}) for n in range(TARGET)
    ]
    assert weighed(kind, perfect, cases=marked).verdict.needs == 10


@pytest.mark.heavy
@table("kind", KINDS)
def test_an_arm_that_gives_the_message_back_never_shows_more_than_the_form(kind: Kind) -> None:
    for name in ("bare echo", "echo in the form"):
        assert of_set(kind, name).verdict.word in (FORM_ONLY, NOT_LEARNED, UNDECIDED)


def test_one_answer_that_passes_everything_is_right_only_where_the_cases_say_it_whole() -> None:
    """A fixed refusal, and a form that some refusal or other has."""
    asked = {"equals": LEARNED, "contains": UNDECIDED}
    for kind, word in asked.items():
        says = lambda n: REFUSAL  # noqa: E731
        refusal = Kind("refusal", says, partial(_asserting, kind), lambda n: str(n), says, form="Sorry")
        found = of_set(refusal, "perfect").verdict
        assert found.word == word, found.sentence


def _asserting(kind: str, n: int) -> list[dict[str, object]]:
    return [{"type": kind, "value": REFUSAL}]


def test_too_few_cases_are_not_said_to_hold_the_form_alone() -> None:
    """Ten cases of two labels assert the whole right answer: always the same label is right on five of them."""
    kind = labels("two", {"yes": 1, "no": 1})
    answered = [Answered(kind.case(n), Response(kind.right(n)), True) for n in range(10)]
    found = decide(Facts(suite=pairs(10, 10), controls=controls.answer_controls(answered)))
    assert found.word == UNDECIDED and "too few to tell the arm from a control: one answer" in found.sentence
    assert "form alone" not in found.sentence


def test_a_loss_needs_no_control_to_be_said() -> None:
    """An arm that says one of three labels always where the base was right: its answers, shuffled, do as well."""
    kind = labels("three", {"a": 1, "b": 1, "c": 1})
    answered = [Answered(kind.case(n), Response("a"), kind.right(n) == "a") for n in range(12)]
    lost = [Pair(n, True, one.passed) for n, one in enumerate(answered)]
    held = controls.answer_controls(answered)
    found = decide(Facts(suite=lost, controls=held))
    assert found.word == NOT_LEARNED and "worse than the base" in found.sentence
    assert decide(Facts(suite=pairs(12, 12, base=12), controls=held)).word == UNDECIDED


def test_where_the_base_leaves_nothing_to_win_no_rows_are_blamed() -> None:
    for base, right, blamed in ((12, 12, False), (7, 7, False), (6, 6, True), (12, 11, True)):
        found = decide(Facts(rated=pairs(12, right, base=base)))
        assert found.word == NOT_LEARNED and ("rows' answers" in found.advice) is blamed, (base, right)
        assert blamed or f"leaves {12 - base} to win" in found.advice


def test_learned_says_where_nothing_else_was_asked() -> None:
    alone = decide(Facts(rated=pairs(20, 20)))
    assert alone.word == LEARNED and "what it lost elsewhere is not known" in alone.sentence
    guarded = decide(Facts(rated=pairs(20, 20), guarded={"general": Guarded(20, 20, 20, "not worse")}))
    assert guarded.word == LEARNED and "elsewhere" not in guarded.sentence


def test_cases_that_ask_the_very_same_are_one_message_of_people() -> None:
    """Whoever writes two tests of one question did not write two questions, and one answer decides both."""
    kind = labels("many", {"a": 1, "b": 1, "c": 1})
    once = [kind.case(n) for n in range(6)]
    again = [one.model_copy(update={"case_id": f"{one.case_id}-again"}) for one in once]
    said = [kind.right(n) for n in range(6)] * 2
    found = weighed(kind, Answers(said, [True] * 12), cases=[*once, *again]).verdict
    assert found.people and (found.people.cases, found.people.arm, found.word) == (6, 6, UNDECIDED)
    for wrong in (0, 6):
        some = [*said[:wrong], "none of them", *said[wrong + 1 :]]
        found = weighed(kind, Answers(some, [True] * 12), cases=[*once, *again]).verdict
        assert found.people and (found.people.cases, found.people.arm) == (6, 5), "right where all of its cases pass"


def test_the_writers_rows_decide_nothing() -> None:
    kind = KINDS[0]
    perfect, wrong = SETS["perfect"](kind), SETS["all wrong in form"](kind)
    peoples = [kind.case(n, source="written" if n >= 20 else "") for n in range(TARGET)]
    half = Answers([*perfect.target[:20], *wrong.target[20:]], [*perfect.right[:20], *wrong.right[20:]])
    found = weighed(kind, half, cases=peoples).verdict
    assert found.word == LEARNED and found.people and found.writers
    assert (found.people.arm, found.people.cases, found.writers.arm, found.writers.cases) == (20, 20, 0, 20)
    theirs = [kind.case(n, source="written") for n in range(TARGET)]
    assert weighed(kind, perfect, cases=theirs).verdict.needs == 10


def test_a_majority_that_is_nearly_all_can_be_learned_and_never_by_saying_it_always() -> None:
    for share in (70, 80, 90, 95):
        kind = labels("moderator", {"keep": share, "remove": 100 - share})
        assert of_set(kind, "perfect").verdict.word == LEARNED, share
        for name in ("always the majority", "never the rarest"):
            assert of_set(kind, name).verdict.word != LEARNED, (share, name)


def test_a_right_answer_that_is_too_rare_is_named_as_untested() -> None:
    right = lambda n: "rare" if n == 3 else "ab"[n % 2]  # noqa: E731
    kind = Kind("rare", right, lambda n: [{"type": "equals", "value": right(n)}],
                lambda n: "ba"[n % 2], lambda n: "c", form="(a$|b$|rare)")  # fmt: skip
    blind = of_set(kind, "perfect").verdict
    assert blind.word == LEARNED and "rare" not in blind.sentence, "no text of a blind case is told"
    assert blind.untested == ("one that only blind cases have",)
    open_ = [kind.case(n).model_copy(update={"metadata": {}}) for n in range(TARGET)]
    found = weighed(kind, SETS["perfect"](kind), cases=open_).verdict
    assert found.word == LEARNED and found.untested == ("rare",) and "too few cases test rare" in found.sentence


@pytest.mark.heavy
def test_no_text_of_a_blind_case_stands_in_a_verdict() -> None:
    for kind in KINDS:
        for name in ("always the majority", "first right answer always", "right mix, wrong places", "never the rarest"):
            found = of_set(kind, name)
            told = json.dumps(found.to_json(), ensure_ascii=False)
            texts = {kind.right(n) for n in range(TARGET)} | {kind.says(n) for n in range(TARGET)}
            words = {text for text in texts if len(text) > 5}
            assert not [text for text in words if text in told or json.dumps(text)[1:-1] in told], (kind.name, name)


def test_a_block_that_got_worse_counts_however_right_the_target_is() -> None:
    right = pairs(20, 20)
    for judged, base, arm, word in (
        (60, 60, 55, LEARNED),
        (60, 60, 47, NOT_LEARNED),
        (9, 9, 7, LEARNED),
        (9, 9, 6, NOT_LEARNED),
        (34, 34, 28, LEARNED),
        (249, 240, 220, LEARNED),
        (400, 380, 360, LEARNED),
        (400, 380, 359, NOT_LEARNED),
    ):
        block = Guarded(judged, base, arm, "no decision")
        found = decide(Facts(rated=right, guarded={"over-trigger": block}))
        assert found.word == word and bool(found.worse) == (word == NOT_LEARNED), (judged, arm)
        assert found.harm["over-trigger"].word == ("harmed" if word == NOT_LEARNED else found.harm["over-trigger"].word)
    few = decide(Facts(rated=pairs(3, 3), guarded={"general": Guarded(20, 20, 2, "worse")}))
    assert few.word == UNDECIDED and few.worse, "what got worse is refused whatever the word is"


def test_a_loss_that_chance_explains_is_told_and_takes_no_word_away() -> None:
    block = Guarded(34, 34, 31, "no decision", p_value=0.25)
    found = decide(Facts(rated=pairs(20, 20), guarded={"general": block}))
    assert found.word == LEARNED and not found.worse
    told = "no harm is shown, but general: 34 → 31 of 34 passed, up to 20% cannot be excluded (p = 0.25)"
    assert f"{told}; more cases of it would tell" in found.sentence
    assert found.to_json()["harm"] == {
        "general": {"lost": 3, "cases": 34, "excluded_above": pytest.approx(0.2021, abs=1e-3), "word": "cannot tell"}
    }
    many = decide(Facts(rated=pairs(20, 20), guarded={"general": Guarded(300, 290, 290, "not worse")}))
    assert many.harm["general"].word == "none seen" and "harm" not in many.sentence


@table(
    ("cases", "of_one", "right", "word"),
    [(40, 1, 31, PARTLY), (40, 1, 32, LEARNED), (40, 2, 32, PARTLY), (40, 2, 34, LEARNED), (16, 2, 16, UNDECIDED)],
)
def test_cases_that_are_alike_count_once(cases: int, of_one: int, right: int, word: str) -> None:
    alike = [Pair(n // of_one, False, n < right) for n in range(cases)]
    found = decide(Facts(rated=alike))
    assert found.word == word, found.sentence
    assert ("independent ones" in found.sentence) == (of_one > 1)
    assert found.to_json()["people"]["independent"] == cases / of_one  # type: ignore[index,call-overload]


def test_what_is_not_learned_is_told_of_its_target_before_what_broke() -> None:
    block = Guarded(100, 100, 90, "worse")
    found = decide(Facts(rated=pairs(15, 3), guarded={"over-trigger": block}))
    assert found.word == NOT_LEARNED and found.reasons[0].startswith("3 of 15 people's cases right")
    assert found.reasons[1] == "over-trigger got worse: 100 → 90 of 100 passed"
    learned = decide(Facts(rated=pairs(20, 20), guarded={"over-trigger": block}))
    assert learned.word == NOT_LEARNED and learned.reasons[0].startswith("20 of 20 people's cases right")


@table(
    ("triggered", "cases", "word"),
    [(0, 60, "none seen"), (1, 17, "cannot tell"), (3, 50, "cannot tell"), (7, 50, "harmed"), (20, 20, "harmed")],
)
def test_ordinary_messages_in_the_form_are_harm_where_so_many_show_it(triggered: int, cases: int, word: str) -> None:
    seen = Triggers(tuple(f"n{n}" for n in range(triggered)), cases)
    found = decide(Facts(rated=pairs(20, 20), triggers=seen))
    assert found.harm[ORDINARY].word == word and bool(found.worse) == (word == "harmed")


def test_arms_that_may_not_be_compared_are_no_decision() -> None:
    found = decide(Facts(rated=pairs(20, 20), refused="they differ in the engine"))
    assert found.word == UNDECIDED and found.needs == 0 and "evaluate both again" in found.sentence


def test_a_prompt_that_does_as_well_is_advice_and_never_part_of_the_word() -> None:
    controls = of_set(KINDS[0], "perfect").controls
    found = decide(Facts(suite=pairs(40, 38), controls=controls, prompted=(39, 40)))
    assert found.word == LEARNED and "no fine-tune needed" in found.sentence and found.beats["prompted"] is False


def oracle(rate: float, right: int, cases: int) -> set[str]:
    """The words that are not wrong of an arm that is right so often, in truth and on these cases."""
    if right < 0.8 * cases:
        return {PARTLY, NOT_LEARNED, FORM_ONLY, UNDECIDED}
    return {LEARNED, PARTLY, UNDECIDED} if rate >= 0.95 else {LEARNED, PARTLY, NOT_LEARNED, FORM_ONLY, UNDECIDED}


@table("seed", range(12))
def test_generated_arms_get_no_word_that_the_oracle_forbids(seed: int) -> None:
    """A label mix, a true rate and a share of echoes, all drawn."""
    draw = random.Random(seed)
    shares = {name: draw.randint(1, 9) for name in ("alpha", "beta", "gamma", "delta")[: draw.randint(2, 4)]}
    kind = draw.choice([labels("drawn", shares), *KINDS])
    rate, echo = draw.choice((0.3, 0.65, 0.9, 1.0)), draw.choice((0.0, 0.0, 0.3, 1.0))
    right = [draw.random() < rate and draw.random() >= echo for _ in range(TARGET)]
    said = [
        kind.right(n) if ok else kind.says(n) if draw.random() < echo else kind.wrong(n) for n, ok in enumerate(right)
    ]
    found = weighed(kind, Answers(said, right)).verdict
    assert found.word in oracle(sum(right) / TARGET, sum(right), TARGET), (kind.name, rate, echo, found.sentence)
