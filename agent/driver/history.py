"""What of a conversation a request holds: as much as the driver's context has room for, the newest first.

There is no tokenizer here, since a driver may be anybody's endpoint: tokens are counted by characters, at the ratio
that the driver's own answers report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

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
from pydantic_ai.tools import ToolDefinition

from tunesmith.agent.queries.registry import TOOLS

_TOOLS_SHARE = 0.6
"""Of the context that descriptions of tools may take: the words of the conversation need the rest."""
_SUMMED_UP = "(What was said before, in short: "
_OLD_RESULT_CHARACTERS = 700
_LEAST_RESULT_CHARACTERS = 240
"""Of a result of the present turn that has to be cut: what it is can still be seen. The older results keep more than a
sentence, and are on the screen whole."""
_MOVED_BY = 4
"""Turns that leave at once: with every move the server computes the rest anew."""
_PART_CHARACTERS = 16
"""That a part's role and marks take beside its text."""
_CUT = " … (the rest is on the screen)"


@dataclass
class Window:
    """A driver's context, how much of it an answer may take, and what a token of it stands for."""

    context_tokens: int = 8192
    thinks: bool = False
    """Whether it thinks before it answers, which takes a multiple of the answer."""
    characters_per_token: float = 3.2
    """English; from the first answer on what the server counted."""

    @property
    def answer_tokens(self) -> int:
        """Room for an answer, with its thoughts before it."""
        # Thoughts take a multiple of an answer; a quarter, or a half, leaves the words their room.
        return min(4096, self.context_tokens // 2) if self.thinks else min(1024, self.context_tokens // 4)

    def room(self, others: int) -> int:
        """Characters that messages may take beside `others`, which are sent with every request."""
        # 0.9: templates and marks are counted by nobody before
        left = (self.context_tokens - self.answer_tokens) * self.characters_per_token * 0.9
        return max(0, int(left) - others)

    def learn(self, sent_characters: int, input_tokens: int) -> None:
        """Take over what a request of so many characters was counted as."""
        if input_tokens > 0:
            # a share from a short request may be far off
            self.characters_per_token = min(4.5, max(1.0, sent_characters / input_tokens))


def characters(messages: Iterable[ModelMessage]) -> int:
    """What some messages take."""
    return sum(_PART_CHARACTERS + len(_text(part)) for message in messages for part in message.parts)


def _text(part: object) -> str:
    if isinstance(part, ToolCallPart):
        return f"{part.tool_name}{part.args_as_json_str()}"
    content = getattr(part, "content", "")  # not every kind of part has one
    return content if isinstance(content, str) else str(content)


def tool_characters(tools: Iterable[ToolDefinition]) -> int:
    """What the descriptions of some tools take."""
    return sum(
        len(tool.name) + len(tool.description or "") + len(json.dumps(tool.parameters_json_schema)) for tool in tools
    )


def fitted(messages: Sequence[ModelMessage], room: int) -> list[ModelMessage]:
    """The messages that fit into `room` characters: a summary of what was before, the newest turns, and all of this
    turn, whose oldest results are cut where it is too long by itself."""
    head = 2 if messages and is_summary(messages[0]) else 0
    prompts = [index for index, message in enumerate(messages) if index >= head and is_prompt(message)]
    newest = prompts[-1] if prompts else len(messages)
    turns = [[_brief(one) for one in messages[a:b]] for a, b in pairwise(prompts)]
    now = _cut([*messages[newest:]], room - characters(messages[:head]))
    left = room - characters(messages[:head]) - characters(now)
    first = len(turns)
    while first and (size := characters(turns[first - 1])) <= left:
        first, left = first - 1, left - size
    moved = -(-first // _MOVED_BY) * _MOVED_BY
    first = moved if moved < len(turns) else first  # a small context keeps at least what it has room for
    return [*messages[:head], *(message for turn in turns[first:] for message in turn), *now]


def summed_up(summary: str) -> list[ModelMessage]:
    """The messages that stand for the turns before a compaction."""
    return [ModelRequest([UserPromptPart(f"{_SUMMED_UP}{summary})")]), ModelResponse([TextPart("Noted.")])]


def is_prompt(message: ModelMessage) -> bool:
    """Whether a message holds the user's words."""
    return isinstance(message, ModelRequest) and any(isinstance(part, UserPromptPart) for part in message.parts)


def is_summary(message: ModelMessage) -> bool:
    """Whether a message stands for the turns before a compaction."""
    return is_prompt(message) and str(getattr(message.parts[0], "content", "")).startswith(_SUMMED_UP)


def _brief(message: ModelMessage) -> ModelMessage:
    """A message of an earlier turn: without thoughts, its results shortened."""
    if isinstance(message, ModelResponse):
        return replace(message, parts=[part for part in message.parts if not isinstance(part, ThinkingPart)])
    return replace(message, parts=[shortened(part, _OLD_RESULT_CHARACTERS) for part in message.parts])


def _cut(messages: list[ModelMessage], room: int) -> list[ModelMessage]:
    """The present turn within `room`, as far as cutting its oldest results makes it so."""
    for index, message in enumerate(messages):
        too_much = characters(messages) - room
        if too_much <= 0:
            break
        if isinstance(message, ModelRequest):
            parts = []
            for part in message.parts:
                most = max(_LEAST_RESULT_CHARACTERS, len(_text(part)) - max(0, too_much) - len(_CUT))
                parts.append(shortened(part, most))
                too_much -= len(_text(part)) - len(_text(parts[-1]))
            messages[index] = replace(message, parts=parts)
    return messages


def shortened(part: Any, most: int) -> Any:
    """A tool's result cut after so many characters; any other part as it is."""
    if not isinstance(part, ToolReturnPart) or len(text := _text(part)) <= most + len(_CUT):
        return part
    return replace(part, content=text[:most] + _CUT)


def that_fit(tools: Sequence[ToolDefinition], window: Window) -> list[ToolDefinition]:
    """The tools that a context has room for: what acts, then the reads in their order, most asked first."""
    left = int(window.context_tokens * window.characters_per_token * _TOOLS_SHARE)
    visible: set[str] = set()
    for tool in sorted(tools, key=lambda tool: tool.name in TOOLS):
        if (size := tool_characters([tool])) <= left:
            visible, left = visible | {tool.name}, left - size
    return [tool for tool in tools if tool.name in visible]
