"""What a request holds of a conversation: as much as the context has room for, and never a call without its result."""

from __future__ import annotations

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from tests.fixtures.tables import table
from tunesmith.agent.driver.history import Window, characters, fitted, is_prompt, summed_up


def turn(number: int, *, result: int = 100, calls: int = 1) -> list[ModelMessage]:
    messages: list[ModelMessage] = [ModelRequest([UserPromptPart(f"question {number}")])]
    for call in range(calls):
        name = f"{number}-{call}"
        thought = ThinkingPart(f"thought {name} " * 20)
        messages.append(ModelResponse([thought, ToolCallPart("read_runs", {"about": "all"}, name)]))
        messages.append(ModelRequest([ToolReturnPart("read_runs", f"result {name} " + "x" * result, name)]))
    return [*messages, ModelResponse([TextPart(f"answer {number}")])]


def prompts(messages: list[ModelMessage]) -> list[str]:
    return [str(message.parts[0].content) for message in messages if is_prompt(message)]  # type: ignore[union-attr]


@table("room", [0, 300, 1000, 3000, 10_000, 10**6])
def test_the_newest_turn_is_always_sent_and_earlier_ones_as_far_as_there_is_room(room: int) -> None:
    messages = [message for number in range(20) for message in turn(number)]
    sent = fitted(messages, room)
    kept = prompts(sent)
    assert kept == [f"question {number}" for number in range(20 - len(kept), 20)] and kept
    assert characters(sent) <= max(room, characters(fitted(turn(19), room)))
    assert len(kept) == 20 or room < 10**6


@table("room", [500, 2000, 5000])
def test_a_call_is_never_sent_without_its_result(room: int) -> None:
    messages = [message for number in range(6) for message in turn(number, result=2000, calls=3)]
    parts = [part for message in fitted(messages, room) for part in message.parts]
    called = [part.tool_call_id for part in parts if isinstance(part, ToolCallPart)]
    assert called == [part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)] and called


def test_of_a_long_turn_the_oldest_results_are_cut_and_the_newest_stay_whole() -> None:
    sent = fitted(turn(1, result=3000, calls=4), 6000)
    results = [str(part.content) for message in sent for part in message.parts if isinstance(part, ToolReturnPart)]
    assert len(results[-1]) > 3000 and len(results[0]) < 400
    assert results[0].startswith("result 1-0") and results[0].endswith("(the rest is on the screen)")


def test_thoughts_of_earlier_turns_are_not_sent_again_and_those_of_this_one_are() -> None:
    sent = fitted([*turn(1), *turn(2)], 10**6)
    thoughts = [part.content for message in sent for part in message.parts if isinstance(part, ThinkingPart)]
    assert [thought.split()[1] for thought in thoughts] == ["2-0"]


def test_the_window_moves_by_several_turns_at_once() -> None:
    """What a server computed of the beginning holds for a few turns more."""
    firsts = []
    for count in range(8, 20):
        messages = [message for number in range(count) for message in turn(number)]
        firsts.append(prompts(fitted(messages, 3000))[0])
    assert len(dict.fromkeys(firsts)) <= 5, firsts


def test_a_summary_stays_in_front() -> None:
    sent = fitted([*summed_up("the dog is called Rex"), *turn(1, result=5000), *turn(2)], 1500)
    assert "Rex" in prompts(sent)[0] and prompts(sent)[-1] == "question 2"


def test_a_window_leaves_room_for_an_answer_and_more_for_thoughts() -> None:
    plain, thinking = Window(8192), Window(8192, thinks=True)
    assert plain.answer_tokens >= 1024 and thinking.answer_tokens >= 4 * 1024
    assert thinking.room(0) < plain.room(0) < 8192 * plain.characters_per_token
    assert Window(2048).answer_tokens <= 512, "a short context is no answer alone"


def test_what_a_token_is_worth_is_learned_from_the_drivers_own_counts() -> None:
    window = Window()
    window.learn(8000, 4000)
    assert window.characters_per_token == 2.0
    before = window.room(0)
    window.learn(8000, 0)
    assert window.room(0) == before, "an endpoint that counts nothing teaches nothing"
