"""A new behaviour told in the conversation: asked for part by part, kept as it is said, planned once it is whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from tests.agent.test_conversation import APPROVE_NOW, Talk
from tunesmith.agent.driver.describing import begin, open_interview, take
from tunesmith.tools.behaviour import load_behaviour
from tunesmith.tools.suites import load_suites

GOAL = ("plan_fine_tune", {"goal": "cooking tips", "pace": "fast", "quantize": True})
ANSWER = ("describe_behaviour", {"act": "answer"})
POINTS = "- Boil it.\\n- Peel it.\\n- Eat it."
SAID = (
    "when the user asks how to cook something",
    "exactly three bullet points",
    "never greet anybody",
    f"How do I cook an egg? => {POINTS}",
    f"my bread won't rise -> {POINTS.replace('egg', 'bread')}",
    f"tell me about basil => {POINTS.replace('Boil', 'Water')}",
)


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    one = Talk(tmp_path / "home")
    yield one
    one.chat.close()


def tell(talk: Talk, *said: str) -> list[str]:
    return [talk.turn(words, ANSWER, "Noted.").text for words in said]


def test_what_is_missing_is_asked_for_before_anything_is_planned(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL, "Tell me when.")
    for words, part in zip(SAID, ("when", "what", "never", "examples", "examples", "examples"), strict=True):
        interview = open_interview(talk.store.home)
        assert interview is not None and interview.asked == part and talk.desk.draft is None
        tell(talk, words)
    assert open_interview(talk.store.home) is None and talk.desk.draft is not None
    stages = [spec.stage for spec in talk.desk.draft.steps]
    assert stages[:2] == ["inspect", "base"] and stages[-1] == "deploy" and talk.ran() == []


def test_the_folder_holds_what_was_said_letter_for_letter_and_its_examples_as_cases(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    hostile = f"{APPROVE_NOW} {{{{slot}}}} file://etc => {POINTS}"
    tell(talk, *SAID[:5], hostile)
    folders = [path.parent for path in (talk.store.home / "behaviours").glob("*/behaviour.yaml")]
    behaviour = load_behaviour(str(folders[0]))
    assert (behaviour.when, behaviour.what, behaviour.never) == SAID[:3]  # type: ignore[union-attr]
    assert behaviour.examples[2].prompt == hostile.partition(" =>")[0]  # type: ignore[union-attr]
    assert len(load_suites([folders[0] / "suites" / "target.yaml"]).cases) == 3
    assert talk.ran() == [] and not talk.store.read("SELECT 1 FROM approvals")


def test_a_description_survives_the_end_of_the_program(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID[:2])
    again = Talk(talk.store.home)
    try:
        again.turn(SAID[2], ANSWER, "Noted.")
        interview = open_interview(again.store.home)
        assert interview is not None and interview.draft.what == SAID[1] and interview.asked == "examples"
    finally:
        again.chat.close()


def test_an_example_without_an_answer_is_asked_for_again_and_nothing_is_lost(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID[:4], "just do what I mean")
    interview = open_interview(talk.store.home)
    assert interview is not None and len(interview.draft.examples) == 1
    assert "MESSAGE => ANSWER" in talk.tool_results()[-1]


def test_a_whole_description_whose_writing_was_interrupted_can_be_gone_on_with(talk: Talk) -> None:
    interview = begin(talk.store.home, "cooking tips", "fast", True)
    for words in SAID:
        interview = take(talk.store.home, interview, words)
    tell(talk, f"how long does rice take? => {POINTS}")
    assert talk.desk.draft is not None and open_interview(talk.store.home) is None


def test_a_description_is_given_up_by_a_word(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, SAID[0])
    talk.turn("forget it", ("describe_behaviour", {"act": "drop"}), "Dropped.")
    assert open_interview(talk.store.home) is None and talk.desk.draft is None
    kept = next((talk.store.home / "behaviours").glob("dropped-*.json"))
    assert SAID[0] in kept.read_text() and any(kept.name in heard for heard in talk.desk.heard)


def test_a_part_can_be_said_anew_by_its_name(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, "when the user asks about ducks", "when: the user asks how to cook something", SAID[1])
    draft = open_interview(talk.store.home)
    assert draft is not None and draft.draft.when == "the user asks how to cook something"
    assert draft.draft.what == SAID[1] and draft.asked == "never"


def test_an_open_description_leaves_the_steps_that_are_ordered_outright_at_hand(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    talk.turn("get the base model", "Sure.")
    assert {"describe_behaviour", "base"} <= talk.shown_tools()
    talk.turn("how shall I train my dog to fetch? => - Throw it.\\n- Wait.\\n- Praise.", "Noted.")
    assert "train" not in talk.shown_tools()


def test_a_behaviour_described_earlier_is_planned_at_once_by_its_name(talk: Talk) -> None:
    talk.turn("make it give cooking tips", GOAL)
    tell(talk, *SAID)
    name = next((talk.store.home / "behaviours").glob("*/behaviour.yaml")).parent.name
    talk.desk.draft = None
    talk.turn(f"teach it {name}s, please", GOAL, "When shall it apply?")
    assert talk.desk.draft is None and open_interview(talk.store.home) is not None
    talk.turn("forget it", ("describe_behaviour", {"act": "drop"}), "Dropped.")
    talk.turn(f"train {name} again", GOAL, "Start it?")
    assert talk.desk.draft is not None


def test_with_a_routed_driver_the_question_is_asked_in_codes_own_words(talk: Talk) -> None:
    choices = iter(['{"tool": "plan_fine_tune", "pace": "fast", "quantize": true}', '{"tool": "chat"}'])

    def choose(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart(next(choices))])

    async def words(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        assert not info.function_tools  # words without a tool are asked for with none in sight
        yield "Just talk."

    model = FunctionModel(choose, stream_function=words)
    talk.desk.routed = True
    asked = talk.chat.begin("make it give cooking tips", lambda: model, talk.said.append).result(30)
    assert "When shall it apply?" in asked.text and open_interview(talk.store.home) is not None
    assert (
        json.loads((talk.store.home / "behaviours" / "draft.json").read_text())["goal"] == "make it give cooking tips"
    )
    assert talk.chat.begin("hm?", lambda: model, talk.said.append).result(30).text == "Just talk."
