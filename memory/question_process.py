"""One question in a process of its own, which can be killed.

SQLite looks at a deadline only between two of its steps, and one LIKE or replace can take minutes and gigabytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from tunesmith.memory.confined import Limits, OverLimits, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_record
from tunesmith.memory.questions import DEADLINE_S, MAX_ROWS, Answer, ask_sql

_MEMORY_BYTES = 192 << 20
"""Of address space: Python with SQLite fits into it, a value or an answer that grows without end does not."""
_SORTED_BYTES = 1 << 30
"""What a large sort may put into SQLite's own temporary file."""


def ask_in_process(
    path: Path,
    sql: str,
    *,
    max_rows: int = MAX_ROWS,
    deadline_s: float = DEADLINE_S,
    only: Collection[str] | None = None,
    home: Path | None = None,
) -> Answer:
    """As `ask_sql`, bounded within every step of SQLite as well. Raises BadInput."""
    places = {"path": str(path.absolute()), "home": str(home or path.parent)}
    bounds: dict[str, object] = {"max_rows": max_rows, "deadline_s": deadline_s, "only": only and [*only]}
    limits = Limits(deadline_s, _MEMORY_BYTES, _SORTED_BYTES)
    try:
        columns, rows, truncated = confined_answer(answered, {**places, **bounds, "sql": sql}, "the question", limits)
    except OverLimits as error:
        raise BadInput(f"{error}; narrow it, or add LIMIT") from None
    return Answer(tuple(columns), tuple(tuple(row) for row in rows), truncated)


def answered(request: dict[str, object]) -> Iterator[object]:
    """The one request's answer: columns, rows, and whether there are more."""
    places = {name: Path(str(request[name])) for name in ("path", "home")}
    answer = as_record(ask_sql, {**request, **places})
    yield answer.columns, answer.rows, answer.truncated
