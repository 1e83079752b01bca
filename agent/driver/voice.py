"""What a driver says on its way to the user: sentence by sentence, each held to the figures that the turn was told.

Thoughts are no words: pydantic-ai hands them over as parts of their own, and of those that a template opened unseen
only what follows their end is said.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass

from pydantic_ai import RunContext
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)

from tunesmith.agent.driver.agent import after_thoughts, looks_like_a_call
from tunesmith.agent.driver.number_grounding import checked, sentences
from tunesmith.agent.driver.state_summary import STATE_HEADING
from tunesmith.agent.driver.turn_deps import TurnDeps

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered, and the figures that were left out of it."""

    text: str
    left_out: tuple[str, ...] = ()


class Voice:
    """The events of a turn on their way to the user."""

    def __init__(self, deps: TurnDeps, say: Say) -> None:
        self._deps, self._say = deps, say
        self._text, self._spoken = "", ""
        self._called: set[str] = set()
        self._said: list[str] = []
        self._left_out: list[str] = []

    async def hear(self, ctx: RunContext[TurnDeps], events: AsyncIterable[object]) -> None:
        """Take the events of one model request or one round of tool calls."""
        async for event in events:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                self._text, self._spoken = event.part.content, ""
                self._speak()
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                self._text += event.delta.content_delta
                self._speak()
            elif isinstance(event, FunctionToolCallEvent) and event.part.tool_call_id not in self._called:
                self._called.add(event.part.tool_call_id)  # it comes again once it was agreed to
                self._deps.ws.emit(
                    "tool.called", tool=event.part.tool_name, arguments=event.part.args_as_dict(), stage=""
                )
            elif isinstance(event, FunctionToolResultEvent):
                part = event.part
                self._deps.ws.emit("tool.returned", tool=part.tool_name, result=str(part.content)[:2000], stage="")

    def _speak(self) -> None:
        """Say the sentences that are whole; what may turn out to be a call, a thought, or no answer, waits."""
        if self._deps.window.thinks or looks_like_a_call(self._text) or STATE_HEADING in self._text:
            return
        whole = sentences(self._text)[:-1]
        for sentence in whole[len(sentences(self._spoken)) :]:
            self._utter(sentence)
        self._spoken = "\n".join(whole)

    def _utter(self, sentence: str) -> None:
        if self._deps.spoken:
            return
        supported, wrong = checked(sentence, self._deps.heard)
        self._left_out += wrong
        if supported:
            self._said.append(supported)
            self._say(supported)

    def conclude(self, output: str) -> Reply:
        """Say what is left of the last text, and note what was left out."""
        output = _own_words(after_thoughts(output))
        rest = sentences(output)[len(sentences(self._spoken)) :] if self._text else sentences(output)
        for sentence in rest:
            self._utter(sentence)
        if self._deps.spoken:
            return Reply("\n".join(self._deps.spoken))
        if self._left_out:
            figures = ", ".join(dict.fromkeys(self._left_out))
            note = f"(A sentence with a figure that no record holds was left out: {figures}.)"
            self._said.append(note)
            self._say(note)
        if not self._said:
            self._said.append("I have no answer to that; say it in other words, or “help” for what I can do.")
            self._say(self._said[-1])
        return Reply(" ".join(self._said), tuple(self._left_out))


def _own_words(text: str) -> str:
    """A reply without the state that only the model was to read: a small one says it again, at its end."""
    return text.partition(STATE_HEADING)[0].rstrip(" (")
