"""A few words after a question: what they change of it, and what they leave as it was."""

from __future__ import annotations

import pytest

from tunesmith.agent.driver.understanding.entities import sentence_of
from tunesmith.agent.driver.understanding.follow_ups import follow_up
from tunesmith.agent.driver.understanding.query import Query

CARD = Query(kind="fits", model="13b", card_gib=48.0, work="train")
CASE = Query(kind="cases", text="target-billing-07")
STEP = Query(kind="step", stage="train", aspect="duration")


def after(before: Query, words: str) -> Query | None:
    return follow_up(before, sentence_of(words, ()), ["r2", "r1"])


@pytest.mark.parametrize(
    ("before", "words", "changed"),
    [
        (CARD, "and for serving it?", {"work": "serve"}),
        (CARD, "and the 32b?", {"model": "32b"}),
        (CARD, "what about two 3090s?", {"card_gib": 24.0, "cards": 2}),
        (CARD, "and without quantization?", {"bits": 16}),
        (STEP, "and the merge?", {"stage": "merge", "arm": ""}),
        (STEP, "and the memory?", {"aspect": "peak"}),
        (STEP, "and in r1?", {"run": "r1"}),
        (CASE, "and the base?", {"arm": "base", "text": "target-billing-07"}),
        (CASE, "what was expected there?", {"aspect": "why", "text": "target-billing-07"}),
        (Query(kind="setting", field="lora_rank"), "and dropout?", {"field": "lora_dropout"}),
        (Query(kind="result", run="r2", block="target"), "and the other?", {"run": "r1", "block": "target"}),
        (Query(kind="across", block="target"), "and the other one?", {"kind": "result", "run": "r1"}),
        (Query(kind="served"), "since when?", {"aspect": "when"}),
    ],
)
def test_a_few_words_change_one_thing_of_the_question(before: Query, words: str, changed: dict[str, object]) -> None:
    found = after(before, words)
    assert found is not None
    assert {name: getattr(found, name) for name in changed} == changed


@pytest.mark.parametrize(
    "words",
    ["and how long did merging take?", "and what about it?", "which cases failed?", "train it again", "and why?"],
)
def test_words_with_a_verb_of_their_own_are_a_question_of_their_own(words: str) -> None:
    assert after(CARD, words) is None
