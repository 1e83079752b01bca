"""The word for a claim: what each of its conditions stops, alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.tools.evaluation.claim import (
    FORM_ONLY,
    LEARNED,
    NO_CLAIM,
    NOT_LEARNED,
    Controls,
    Counts,
    claim_of,
)
from tunesmith.tools.evaluation.controls import Constant, Shuffle, Triggers

WON = Counts(judged=87, base_passed=0, passed=80, verdict="better", reason="", tested=True)
KEPT = Counts(judged=60, base_passed=60, passed=59, verdict="not worse", reason="", tested=True)
SHUFFLED = Shuffle(passed=8, cases=87, own=80, lowest=2, highest=14, orders=40, p_value=0.0001)
CONSTANT = Constant(passed=12, cases=87, answer="{}", own=80, p_value=0.0001)
BOTH = Controls(shuffle=SHUFFLED, constant=CONSTANT)


@pytest.mark.parametrize(
    ("by_people", "word"),
    [(None, LEARNED), ((0, 0), NO_CLAIM), ((9, 9), NO_CLAIM), ((10, 10), LEARNED), ((8, 10), LEARNED),
     ((7, 10), NOT_LEARNED), ((5, 40), NOT_LEARNED)],
)  # fmt: skip
def test_what_the_writer_of_the_rows_wrote_is_no_proof_that_peoples_messages_are_answered(
    by_people: tuple[int, int] | None, word: str
) -> None:
    found = claim_of(replace(WON, by_people=by_people), {"general": KEPT}, BOTH)
    assert found.word == word
    assert (word == LEARNED) or "a person's" in found.sentence


def test_beating_the_base_and_both_controls_without_a_trigger_is_learned() -> None:
    found = claim_of(WON, {"general": KEPT, "over-trigger": KEPT}, BOTH)
    assert found.word == LEARNED
    assert found.beats == {"base": True, "shuffle": True, "constant": True, "prompted": None}


@pytest.mark.parametrize(
    "controls",
    [
        replace(BOTH, shuffle=replace(SHUFFLED, passed=80, lowest=80, highest=80, p_value=1.0)),
        replace(BOTH, shuffle=replace(SHUFFLED, passed=64)),  # 18 points below its own
        replace(BOTH, shuffle=replace(SHUFFLED, p_value=0.2)),
        replace(BOTH, constant=replace(CONSTANT, passed=70)),
        replace(BOTH, shuffle=None),
    ],
)
def test_an_arm_that_does_not_beat_its_controls_shows_the_form_alone(controls: Controls) -> None:
    assert claim_of(WON, {}, controls).word == FORM_ONLY


def test_what_could_be_told_apart_and_was_not_is_no_fault_of_the_suite() -> None:
    few = Controls(replace(SHUFFLED, passed=5, own=20, p_value=0.01), replace(CONSTANT, passed=11, own=20, p_value=0.1))
    found = claim_of(replace(WON, passed=20), {}, few)
    assert found.word == FORM_ONLY and found.meaning_tested
    assert found.sentence.startswith("the form was learned, the meaning was not: ") and "suite" not in found.sentence
    for passed, tested in ((52, True), (53, False)):  # of 87: an arm of 80 % would lead by 20.2 and by 19.1 points
        full = replace(few, constant=replace(CONSTANT, passed=passed, p_value=1.0))
        assert claim_of(WON, {}, full).meaning_tested is tested


def test_form_only_names_the_cases_that_any_answer_passes() -> None:
    indifferent = replace(SHUFFLED, passed=80, p_value=1.0, indifferent=("c0", "c1", "c2", "c3"))
    told = claim_of(WON, {}, replace(BOTH, shuffle=indifferent)).sentence
    assert told.startswith("the form was learned; the suite does not test the meaning")
    assert "c0, c1, c2" in told and "4 cases" in told


def test_a_judge_that_was_not_asked_is_asked_for() -> None:
    waiting = replace(SHUFFLED, passed=80, p_value=1.0, open=80)
    found = claim_of(WON, {}, replace(BOTH, shuffle=waiting))
    assert found.word == FORM_ONLY and "wait for a judge" in found.add


@pytest.mark.parametrize(("passed", "word"), [(70, LEARNED), (69, NOT_LEARNED)])  # of 87: 80.5 % and 79.3 %
def test_under_four_in_five_nothing_is_learned(passed: int, word: str) -> None:
    assert claim_of(replace(WON, passed=passed), {}, BOTH).word == word


@pytest.mark.parametrize(("passed", "word"), [(54, LEARNED), (53, NOT_LEARNED)])  # of 60: 10 % and 11.7 % lost
def test_more_than_one_in_ten_near_misses_lost_is_not_learned(passed: int, word: str) -> None:
    near = replace(KEPT, passed=passed, verdict="no decision")
    assert claim_of(WON, {"over-trigger": near}, BOTH).word == word


@pytest.mark.parametrize(("triggered", "word"), [(6, LEARNED), (7, NOT_LEARNED)])
def test_ordinary_messages_answered_in_the_form_are_not_learned(triggered: int, word: str) -> None:
    found = Triggers(tuple(f"g{n}" for n in range(triggered)), 60)
    assert claim_of(WON, {"general": KEPT}, replace(BOTH, triggers=found)).word == word


def test_what_was_not_tested_is_no_decision() -> None:
    assert claim_of(WON, {}, BOTH, refused="they differ in the engine").word == NO_CLAIM
    assert claim_of(None, {}, BOTH).word == NO_CLAIM
    untested = replace(WON, tested=False, verdict="no decision", reason="9 of 87 cases erred")
    assert claim_of(untested, {}, BOTH).reasons == ("9 of 87 cases erred",)


@pytest.mark.parametrize(
    ("base", "passed", "verdict", "word"),
    [
        (40, 10, "worse", NOT_LEARNED),
        (2, 6, "no decision", NOT_LEARNED),
        (84, 86, "no decision", NO_CLAIM),  # the base leaves no room in which a gain could show
    ],
)
def test_no_gain_is_not_learned_unless_none_could_show(base: int, passed: int, verdict: str, word: str) -> None:
    assert claim_of(replace(WON, base_passed=base, passed=passed, verdict=verdict), {}, BOTH).word == word


def test_the_prompted_base_is_beaten_or_not_and_stops_no_claim() -> None:
    found = claim_of(WON, {}, replace(BOTH, prompted=(85, 87)))
    assert found.word == LEARNED and found.beats["prompted"] is False
