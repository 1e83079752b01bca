"""Training rows as JSON lines: the one shape in which generate, critique and training hand rows to each other.

The file is the truth: it is what a manifest hashes and a plan pins. The table `rows` of the store is its index, for
questions, verdicts and the report. A row keeps its `row_id` from the writer to the gradient.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.core.wrong_values import sentence

VARIANTS = "variants.jsonl"
"""Beside a dataset's train.jsonl: other forms of its rows, each of a `variant_of`, seen in turn with it."""


_NUMBERED = re.compile(r"i-(\d{1,12})")


class RowIds:
    """Ids of imported rows: none is given twice, whatever a data set calls its own."""

    def __init__(self, used: Iterable[str] = ()) -> None:
        self._used = set(used)
        self._number = max((int(m[1]) for name in self._used if (m := _NUMBERED.fullmatch(name))), default=0)
        self._again: Counter[str] = Counter()

    def new(self, name: str = "") -> str:
        """An id for a row that its data set calls `name`; without one it is numbered on from those that there are."""
        row_id = f"i-{name}" if name else self._numbered()
        while row_id in self._used:
            self._again[name] += bool(name)
            row_id = f"i-{name}~{self._again[name] + 1}" if name else self._numbered()
        self._used.add(row_id)
        return row_id

    def _numbered(self) -> str:
        self._number += 1
        return f"i-{self._number:06d}"


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
