"""A user's own rows as conversations: the formats that projects publish, recognised and turned into training rows.

Messages, a message with its answer, ShareGPT, Alpaca, tool calls, exports of chats; other columns by a mapping, which
is proposed where names tell it. Each record is taken by its own format. What cannot be turned is told with its row
number. Nothing here reads a file, and no row has its final id yet: a data set's own ids collide with each other and
with those of a run.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.core.record_files import ASKED, PREVIEW_RECORDS, Unreadable, strict_json

Message = dict[str, Any]
"""In OpenAI's form; as a file may say it: with tool calls beside the text."""
Status = Literal["READY", "NEEDS MAPPING", "INCOMPATIBLE"]
MAX_CELL_CHARS = 200_000
"""Of one message: no model here is trained on more, and a cell of millions is a mistake."""
_NEEDED = ("user", "assistant")
PARTS = (*_NEEDED, "system")
"""What a mapping names columns for."""
_ROLES = {
    "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant",
    "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool", "function_call": "call",
    "tool_call": "call",
}  # fmt: skip
_WEIGHT = "weight"
"""0 in a message of the assistant: OpenAI's word for one that is shown and not learned."""
_HALF = re.compile("[\ud800-\udfff]")
_LISTS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat", "chat_messages")
_ANSWERED = ("completion", "response", "answer", "output", "assistant", "reply", "target", "chosen", "label")
_PAIRS = (
    "prompt/completion", "prompt/answer", "prompt/response", "question/answer", "question/response", "query/response",
    "instruction/output", "instruction/response", "input/output", "message/reply", "user/assistant", "text/label",
)  # fmt: skip
"""Formats of two columns, a message and its answer, in small letters."""
_ALPACA, _MORE = "instruction", "input"
"""Below an instruction stands its input, where there is one."""
_SYSTEM, _TOOLS = ("system", "system_prompt"), ("tools", "functions")
_BESIDE = ("user", "source", "id", "uid", "uuid", "date", "lang", "language", *_SYSTEM)
"""Columns that by themselves are no message."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that is no row, by its number from 1."""

    number: int
    reason: str
    weight: int = 1
    """Lines of the file that it takes: a record that swallowed others counts as all of them."""
    file: str = ""
    """Where it lies and is counted, of a source of several files."""

    def __str__(self) -> str:
        return f"{self.file}{self.file and ', '}record {self.number}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file's rows look like before any is taken."""

    status: Status
    format: str
    mapping: dict[str, str]
    """Part → column, for a format of one's own; proposed where the status is NEEDS MAPPING."""
    problems: tuple[Problem, ...]
    checked: int
    preview: tuple[str, ...] = ()
    """A few rows as they would be taken."""
    columns: tuple[str, ...] = ()

    @property
    def taken(self) -> str:
        """Which columns rows are made of and which not, in words; empty where no column is left out."""
        own = {*(self.mapping.values() or (*self.format.split("/"), *_SYSTEM)), *_TOOLS}
        own.add(_MORE if self.format.startswith(_ALPACA) else "")
        taken = [name for name in self.columns if name in own or plain_name(name) in own]
        left = [name for name in self.columns if name not in taken]
        whole = not left or not (self.mapping or "/" in self.format)  # or a column holds conversations
        return "" if whole else f"columns taken: {in_words(taken)}; not taken: {in_words(left)}"


def plain_name(name: object) -> str:
    """A column's name without the space around it, in small letters."""
    return str(name).strip().lower()


def in_words(columns: Sequence[str]) -> str:
    """Columns for a sentence: in a file without a header the name of one is a cell of any length."""
    return ", ".join(name[:60] for name in columns[:12])


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raises BadInput where a mapping names something else than parts of a conversation, or too few of them."""
    if odd := next((part for part in mapping if part not in PARTS), None):
        raise BadInput(f"mapping names {odd!r}; it names columns for {', '.join(PARTS)}")
    if mapping and (lacking := [part for part in _NEEDED if part not in mapping]):
        raise BadInput(f"mapping names no column for {lacking[0]}; it takes one for {' and one for '.join(_NEEDED)}")


def inspect_records(
    records: Sequence[object], mapping: Mapping[str, str] | None = None, behind: Iterable[object] = (), name: str = "it"
) -> Inspection:
    """How the records of a source would be taken: their format, and which of them cannot be.

    Raises BadInput for a mapping that is followed nowhere, also not in the records `behind` these.
    """
    check_mapping(mapping or {})
    whole = [record for record in records if isinstance(record, dict) and record]
    columns = tuple(dict.fromkeys(str(name) for record in whole for name in record))
    if mapping and not set(mapping.values()) <= {*columns}:
        # Files of several formats may lie in one folder, and those looked at first need no mapping.
        heads = (name for record in behind if isinstance(record, dict) for name in record)
        known = dict.fromkeys([*columns, *map(str, heads)])
        if whole and (lacking := [column for column in mapping.values() if column not in known]):
            raise BadInput(f"{name} has no column {' or '.join(map(repr, lacking))}; its columns: {in_words([*known])}")
    format_ = "mapping" if mapping else _format_of(whole)
    chosen = dict(mapping or {}) if format_ else propose_mapping(whole)
    rows, problems = convert(records, format_ or "mapping", chosen)
    if not format_ and not chosen and len(columns) > 1:
        return Inspection("NEEDS MAPPING", "", {}, (), len(records), columns=columns)
    preview = tuple(_preview(row) for row in rows[:PREVIEW_RECORDS])
    if not rows:
        return Inspection("INCOMPATIBLE", format_, chosen, problems, len(records), columns=columns)
    status: Status = "READY" if format_ else "NEEDS MAPPING"
    return Inspection(status, format_, chosen, problems, len(records), preview, columns)


def convert(
    records: Iterable[object], name: str, mapping: Mapping[str, str], first: int = 1
) -> tuple[list[TrainingRow], tuple[Problem, ...]]:
    """The rows of records in a format, and the records that are none."""
    converted = [convert_one(record, number, name, mapping) for number, record in enumerate(records, first)]
    rows = [one for one in converted if isinstance(one, TrainingRow)]
    return rows, tuple(one for one in converted if isinstance(one, Problem))


def convert_one(record: object, number: int, name: str, mapping: Mapping[str, str]) -> TrainingRow | Problem:
    """The row of one record, its id as the record gives it (empty: none); or why it is none."""
    if isinstance(record, Unreadable):
        return Problem(number, record.reason, record.lines)
    try:
        if not isinstance(record, dict):
            raise ValueError(f"it is {type(record).__name__}, no object with fields")
        messages, tools = _messages(record, name, mapping)
        return _row(number, record, messages, tools)
    # Whatever a record that anybody wrote may raise as it is taken apart; RecursionError for endless nesting.
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = str(error.args[0]) if error.args else ""  # of a KeyError the text alone, without quotes around it
        return Problem(number, reason[:200] or type(error).__name__)


def _format_of(records: Sequence[Mapping[str, object]]) -> str:
    """The name of the commonest format, where at least half of the records have a known one; else empty."""
    votes = Counter(name for record in records if (name := _format_of_one(record)))
    return votes.most_common(1)[0][0] if votes and votes.total() * 2 >= len(records) else ""


def _format_of_one(record: Mapping[str, object]) -> str:
    """The format by the columns and the shape of the first turn; empty for one of its own."""
    turns = _turns_of(record)
    if turns and isinstance(turns[0], dict):
        if "from" in turns[0] and "value" in turns[0]:
            return "sharegpt"
        if "role" in turns[0] or "sender" in turns[0]:
            called = any("tool_calls" in turn for turn in turns if isinstance(turn, dict))
            return "tool calls" if record.get("tools") or called else "messages"
    names = {*map(plain_name, record)}
    pairs = [pair for pair in _PAIRS if {*pair.split("/")} <= names]
    pairs = [pair for pair in pairs if not (_ALPACA in names and pair.startswith(_MORE))]
    return pairs[0] if len(pairs) == 1 else ""  # of several nobody can say which is meant


def _listed(value: object) -> list[object]:
    """A list, also where it stands in its cell as JSON."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = strict_json(value)
        except (ValueError, RecursionError):  # text that begins like a list
            return []
    return list(value) if isinstance(value, list | tuple) else []


def _turns_of(record: Mapping[str, object]) -> list[object]:
    """The turns of a conversation; of ChatGPT's export, which is a tree, those of the branch that was shown last."""
    listed = next(filter(None, (_listed(record.get(column)) for column in _LISTS)), [])
    nodes = record.get("mapping")
    if listed or not isinstance(nodes, dict):
        return listed
    turns: list[object] = []
    left, node = dict(nodes), nodes.get(str(record.get("current_node")))
    while isinstance(node, dict):
        message = _object(node.get("message"))
        parts = _object(message.get("content")).get("parts")
        if isinstance(parts, list) and any(parts):  # its first messages are empty
            turns.append({"role": _object(message.get("author")).get("role"), "content": parts})
        node = left.pop(str(node.get("parent")), None)  # each once, whatever leads to what
    return turns[::-1]


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def propose_mapping(records: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Columns for the message and the answer: both by their names, or one so and the only other one; else none."""
    cells = ((str(name), value) for record in records for name, value in record.items())
    texts = Counter(name for name, value in cells if isinstance(value, str) and value.strip())
    columns = {plain_name(name): name for name, count in texts.items() if count * 2 > len(records)}
    asked = [name for name in ASKED if name in columns and name not in _BESIDE]
    answered = [name for name in _ANSWERED if name in columns]
    rest = [name for name in columns if name not in (*asked, *answered, *_BESIDE)]
    if not (asked or answered) or (len(asked or rest), len(answered or rest)) != (1, 1):
        return {}
    parts = (*(asked or rest), *(answered or rest), *(name for name in _SYSTEM if name in columns))
    return {part: columns[name] for part, name in zip(PARTS, parts, strict=False)}


# One record


def _messages(
    record: Mapping[str, object], name: str, mapping: Mapping[str, str]
) -> tuple[list[Message], list[dict[str, Any]]]:
    """The conversation of a record by its format, and the tools that were offered with it."""
    tools = _tools(record)
    mapped = name == "mapping" and all(mapping.get(part) in record for part in _NEEDED)
    if not mapped:  # files of several formats may lie in one folder
        name = _format_of_one(record) or name
    if name in ("messages", "tool calls", "sharegpt"):
        turns = [_turn(turn, place) for place, turn in enumerate(_turns_of(record), 1)]
        if not turns:
            raise ValueError("it holds no list of messages")
        given = [{"role": "system", "content": _text(record["system"], "system")}] if record.get("system") else []
        return ([] if turns[0]["role"] == "system" else given) + turns, tools
    if "/" in name:
        cells = {plain_name(key): value for key, value in record.items()}
        question, _, column = name.partition("/")
        asked_, answered = cells.get(question), cells.get(column)
        if _is_chat(asked_) or _is_chat(answered):
            both = enumerate([*_chat(asked_, "user"), *_chat(answered, "assistant")], 1)
            return [_turn(turn, n) for n, turn in both], tools
        asked = _text(asked_, question)
        if question == _ALPACA and isinstance(more := cells.get(_MORE), str) and more.strip():
            asked += f"\n\n{_text(more, _MORE)}"
        system = next((cells[key] for key in _SYSTEM if cells.get(key)), None)
        return _pair(asked, _answer(answered, column), system), tools
    missing = next((mapping.get(part) for part in _NEEDED if mapping.get(part) not in record), None)
    if missing is not None or not mapping.get("user"):
        raise ValueError(f"it has no column {missing or 'for the message'}")
    named = record.get(mapping["system"]) if mapping.get("system") else None
    asked_, answered = (record[mapping[part]] for part in ("user", "assistant"))
    return _pair(_text(asked_, mapping["user"]), _answer(answered, mapping["assistant"]), named), tools


def _pair(asked: str, answered: str, system: object) -> list[Message]:
    given = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return [*given, {"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _answer(value: object, column: str) -> str:
    """The text of an answer, which may be an object or a list of values: as JSON, as an example's is."""
    return _text(json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value, column)


def _is_chat(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(turn, dict) and "role" in turn for turn in value)


def _chat(value: object, role: str) -> list[object]:
    return list(value) if isinstance(value, list) else [{"role": role, "content": value}]


def _turn(turn: object, place: int) -> Message:
    """A message in OpenAI's form."""
    if not isinstance(turn, dict):
        raise ValueError(f"message {place} is {type(turn).__name__}, no object")
    named = str(turn.get("role", turn.get("from", turn.get("sender", "")))).strip().lower()
    role = _ROLES.get(named)
    if role is None:
        raise ValueError(f"message {place} has the role {named[:40]!r}")
    content = turn.get("content", turn.get("value", turn.get("text")))
    if isinstance(content, list):  # parts; only text can be trained on here
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        if not all(isinstance(part, str) for part in texts):
            raise ValueError(f"message {place} holds something that is no text, such as an image")
        content = "".join(part for part in texts if part)
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": [_call(content, place)]}
    old_call = turn.get("function_call")
    calls = _listed(turn.get("tool_calls")) or ([old_call] if old_call else [])
    message: Message = {"role": role}
    what = f"the text of message {place}"
    message["content"] = "" if content is None and calls else _text(content, what, empty=role != "user")
    if turn.get(_WEIGHT) == 0:
        message[_WEIGHT] = 0
    if calls:
        message["tool_calls"] = [_call(call, place) for call in calls]
    for name in ("tool_call_id", "name"):
        if isinstance(turn.get(name), str) and role == "tool":
            message[name] = turn[name]
    return message


def _call(call: object, place: int) -> dict[str, object]:
    """A tool call as chat templates take it: its arguments an object."""
    if isinstance(call, str):
        call = strict_json(call)
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"message {place} has a tool call without a name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = strict_json(arguments or "{}")
    if not isinstance(arguments, dict):
        raise ValueError(f"message {place} has a tool call whose arguments are no object")
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tools(record: Mapping[str, object]) -> list[dict[str, Any]]:
    listed = _listed(record.get("tools", record.get("functions")))
    tools = [tool for tool in listed if isinstance(tool, dict)]
    if len(tools) < len(listed):
        raise ValueError("tools is no list of tool definitions")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def _text(value: object, column: str, *, empty: bool = False) -> str:
    """A cell as a text within bounds. Raises ValueError, naming its column."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{column} is {value}, no number")
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"{column} is {'missing' if value is None else type(value).__name__ + ', no text'}")
    text = value.replace("\r\n", "\n").replace("\x00", "").strip()
    if not text and not empty:
        raise ValueError(f"{column} is empty")
    if len(text) > MAX_CELL_CHARS:
        raise ValueError(f"{column} has {len(text):,} characters; at most {MAX_CELL_CHARS:,} are taken")
    if _HALF.search(text):
        raise ValueError(f"{column} holds half a character (a lone surrogate)")
    return text


def _row(
    number: int, record: Mapping[str, object], messages: list[Message], tools: list[dict[str, Any]]
) -> TrainingRow:
    """A conversation as a row: from the first answer on it is learned, what follows the last answer is left out.

    An answer of weight 0 is none to learn: learning begins behind the last such one.
    """
    answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    untaught = {n for n in answers if messages[n].pop(_WEIGHT, 1) == 0}
    last = max(set(answers) - untaught, default=None)
    if last is None:
        raise ValueError("there is no answer of the assistant" + (" that has a weight" if untaught else ""))
    last_untaught = max((n for n in untaught if n < last), default=-1)
    first = next(n for n in answers if n > last_untaught)
    if first == 0 or not any(message["role"] == "user" for message in messages[:first]):
        raise ValueError("nothing of a user stands before the answer")
    given = record.get("id", record.get("row_id"))
    # it becomes a part of ids and is shown
    name = "".join(c for c in str(given) if c.isalnum() or c in "-_.")[:60] if isinstance(given, str | int) else ""
    attributes = RowAttributes(number=number, tools=tuple(tools))
    return TrainingRow(name, "imported", messages[:first], messages[first : last + 1], attributes)


def _preview(row: TrainingRow) -> str:
    asked = " ".join(str(row.prompt[-1]["content"]).split())[:120]  # a preview is two lines
    answer = row.completion[-1]
    text = answer["content"] or json.dumps(answer.get("tool_calls", ""), ensure_ascii=False)
    return f"{asked} => {' '.join(str(text).split())[:120]}"
