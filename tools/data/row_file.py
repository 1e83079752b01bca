"""Training rows as JSON lines, the one shape in which the stages hand them on; and conversations as text and back.

The file is the truth: it is what a manifest hashes and a plan pins. The table `rows` of the store is its index, for
questions, verdicts and the report. A row keeps its `row_id` from the writer to the gradient.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.suites.grading.calls import check_tools

VARIANTS = "variants.jsonl"
"""Beside a dataset's train.jsonl: other forms of its rows, each of a `variant_of`, seen in turn with it."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: str
    content: str | None
    """None, or empty, where the message is a tool call."""


class _Line(BaseModel):
    """What a line must hold; a user's own file may leave out all but the two conversations."""

    row_id: str = ""
    origin: str = ""
    prompt: list[_Message]
    completion: list[_Message]
    attributes: dict[str, JsonValue] = {}


def write_rows(path: Path, rows: Iterable[TrainingRow]) -> None:
    """Write rows, atomically. Verdicts are left to the store: a dataset holds kept rows alone."""
    lines = (
        {
            "row_id": row.row_id,
            "origin": row.origin,
            "prompt": row.prompt,
            "completion": row.completion,
            "attributes": row.attributes.as_json(),
        }
        for row in rows
    )
    atomic_write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_rows(path: Path) -> list[TrainingRow]:
    """The rows of a file, at least one; a row without an id is named by its line. Raises BadInput naming the line."""
    with path.open(encoding="utf-8") as file:
        rows = [_row(path, number, line) for number, line in enumerate(file, 1) if line.strip()]
    if not rows:
        raise BadInput(f"{path} holds no rows; generate some first")
    return rows


def _row(path: Path, number: int, text: str) -> TrainingRow:
    """A line as a row. Raises BadInput, naming the line."""
    try:
        line = _Line.model_validate_json(text)
    except ValidationError as error:
        why = sentence(error.errors()[0], _Line)
        raise BadInput(f"{path}:{number} is not a row with prompt and completion messages: {why}") from None
    mute = [
        m for m in (*line.prompt, *line.completion) if m.content is None and not (m.model_extra or {}).get("tool_calls")
    ]
    if mute:
        raise BadInput(f"{path}:{number}: the {mute[0].role}'s message has neither content nor tool_calls")
    if not (line.prompt and line.completion):
        raise BadInput(f"{path}:{number}: prompt and completion must be non-empty lists of messages")
    conversations = line.model_dump(include={"prompt", "completion"})
    attributes = RowAttributes.of(line.attributes)
    return TrainingRow(line.row_id or f"line {number}", line.origin, **conversations, attributes=attributes)


_MESSAGES_MOST, _TOOLS_MOST, _TOOLS_CHARS = 40, 20, 32_000
"""Of a conversation and of the tools offered with it, all of which a model is given with every row."""
_NAMES = {"user": "User", "assistant": "Assistant"}
_TURN = re.compile(r"^(User|Assistant): ", re.MULTILINE)

Message = dict[str, Any]


def transcript(turns: Sequence[tuple[str, str]]) -> str:
    """(role, text) of some turns as one text; a single one is its own text."""
    if len(turns) == 1:
        return turns[0][1]
    return "\n".join(f"{_NAMES[role]}: {text}" for role, text in turns)


def turns_of(text: str) -> list[Message]:
    """The messages of a transcript; of any other text one of the user's."""
    starts = list(_TURN.finditer(text))
    if not starts or starts[0].start():
        return [{"role": "user", "content": text}]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return [
        {"role": match[1].lower(), "content": text[match.end() : end].strip()}
        for match, end in zip(starts, ends, strict=True)
    ]


def takes_turns(messages: Sequence[Mapping[str, object]]) -> bool:
    """Whether user and assistant speak in turn, the user first and last."""
    roles = [message.get("role") for message in messages]
    return len(roles) % 2 == 1 and all(role == ("assistant" if n % 2 else "user") for n, role in enumerate(roles))


def taught(messages: object) -> dict[str, object]:
    """The fields of an example that a conversation is. Raises ValueError where it is none that can be taught."""
    if not isinstance(messages, list) or not 2 <= len(messages) <= _MESSAGES_MOST:
        count = len(messages) if isinstance(messages, list) else 0
        raise ValueError(f"messages is a list of 2 to {_MESSAGES_MOST} messages, the last one the answer; got {count}")
    for place, message in enumerate(messages, 1):
        _check(message, place, last=place == len(messages))
    system = str(messages[0]["content"]) if messages[0]["role"] == "system" else ""
    asked = messages[bool(system) : -1]
    if not takes_turns(asked) or messages[-1]["role"] != "assistant":
        raise ValueError(
            "messages are a system message or none, then user and assistant in turn, and an answer at the end; "
            "results of tools (role tool) cannot be taught from examples: bring such rows with `rows import`"
        )
    turns = [(str(m["role"]), str(m["content"])) for m in asked]
    if len(turns) > 1 and (marked := next(filter(None, (_TURN.search(text) for _, text in turns)), None)):
        raise ValueError(f"a message has a line that begins with {marked[0]!r}, as turns do; put it in other words")
    return {
        "prompt": transcript(turns),
        "answer": _answer(messages[-1]),
        "system": system,
        "conversation": len(asked) > 1,
    }


def _check(message: object, place: int, *, last: bool) -> None:
    """Refuse, by ValueError, a message that an example cannot be made from."""
    if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant", "tool"):
        raise ValueError(f"message {place} has no role out of system, user, assistant")
    if odd := message.keys() - {"role", "content", "tool_calls"}:
        raise ValueError(f"message {place} has {min(map(str, odd))!r}; a message has a role, a content, or tool_calls")
    if message.get("tool_calls") and not last:
        raise ValueError(f"message {place} calls a tool before the last turn; only the last answer may call one")
    if not message.get("tool_calls") and not isinstance(message.get("content"), str):
        raise ValueError(f"message {place} has no text; images and other parts cannot be taught")


def _answer(message: Mapping[str, object]) -> str:
    calls = message.get("tool_calls")
    if not calls:
        return str(message["content"])
    if not isinstance(calls, list) or len(calls) != 1:
        raise ValueError("an answer that calls several tools at once cannot be taught; show one call")
    return call_text(calls[0])


def call_text(call: object) -> str:
    """A tool call in OpenAI's form as the text of an answer. Raises ValueError where it is none."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("a tool call has a function with a name and arguments")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments of {function['name']} are no object")
    return json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)


def offered(tools: Sequence[dict[str, JsonValue]]) -> tuple[dict[str, JsonValue], ...]:
    """Tools, each by itself valid. Raises ValueError where they are none, too many, or larger than may be."""
    if len(tools) > _TOOLS_MOST or len(json.dumps(list(tools))) > _TOOLS_CHARS:
        raise ValueError(f"tools: at most {_TOOLS_MOST}, of {_TOOLS_CHARS:,} characters together, are offered")
    check_tools(list(tools))
    return tuple(tools)
