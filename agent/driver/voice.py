"""What a driver says on its way to the user: sentence by sentence, each held to the records (`figures`).

Thoughts are no words: pydantic-ai hands them over as parts of their own, and of those that a template opened unseen
only what follows their end is said. A turn that ends without words is told where things stand.
"""

from __future__ import annotations

import re
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
from tunesmith.agent.driver.figures import hold
from tunesmith.agent.driver.state_summary import STATE_HEADING, in_silence
from tunesmith.agent.driver.turn_deps import TurnDeps

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered, and the figures of it that are marked as in no record."""

    text: str
    left_out: tuple[str, ...] = ()


class Voice:
    """The events of a turn on their way to the user."""

    def __init__(self, deps: TurnDeps, say: Say) -> None:
        self._deps, self._say = deps, say
        self._text = ""
        self._begun: list[str] = []
        """The sentences of this text that were said."""
        self._called: set[str] = set()
        self._uttered: list[str] = []
        self._left_out: list[str] = []

    async def hear(self, ctx: RunContext[TurnDeps], events: AsyncIterable[object]) -> None:
        """Take the events of one model request or one round of tool calls."""
        async for event in events:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                self._text, self._begun = event.part.content, []
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
                # whoever follows as JSON needs no page of it
                self._deps.ws.emit("tool.returned", tool=part.tool_name, result=str(part.content)[:2000], stage="")

    def _speak(self) -> None:
        """Say the sentences that are whole; what may turn out to be a call, a thought, or no answer, waits, and so do
        words of code's, which are said in their own lines."""
        waits = self._deps.window.thinks or looks_like_a_call(self._text) or STATE_HEADING in self._text
        if not waits and self._text not in self._deps.ledger:
            self._utter(sentences(self._text)[:-1])

    def _utter(self, whole: list[str]) -> None:
        """Say the sentences of a text, less those that were said of it."""
        said = len(self._begun) if whole[: len(self._begun)] == self._begun else 0
        for sentence in whole[said:]:
            self._begun.append(sentence)
            held, missing = hold(sentence, self._deps.ledger)
            self._left_out += missing
            self._uttered.append(held)
            self._say(held)

    def conclude(self, output: str) -> Reply:
        """Say what is left of the last text."""
        output = _own_words(after_thoughts(output))
        self._utter(output.splitlines() if output in self._deps.ledger else sentences(output))
        if not self._uttered:
            self._uttered.append(in_silence(self._deps))
            self._say(self._uttered[-1])
        return Reply(" ".join(self._uttered), tuple(self._left_out))


def _own_words(text: str) -> str:
    """A reply without the state that only the model was to read: a small one says it again, at its end."""
    return text.partition(STATE_HEADING)[0].rstrip(" (")


_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
_ONLY_A_MARK = re.compile(r"\s*\d{1,2}[.)]\s*")


def sentences(text: str) -> list[str]:
    """The text cut behind its sentences and lines; joined again it is the text but for white space at the cuts."""
    whole: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        if whole and _ONLY_A_MARK.fullmatch(whole[-1]):
            whole[-1] += f" {sentence}"
        elif sentence.strip():
            whole.append(sentence)
    return whole
