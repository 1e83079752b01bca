"""What a person said of training rows: gold labels, kept with the behaviour beyond any run.

Nothing is ever deleted: of several marks of one message the last one counts.
"""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass, fields
from typing import Literal

from tunesmith.memory.store import Store

Decision = Literal["keep", "drop", "relabel", "edit"]
DECISIONS: tuple[Decision, ...] = ("keep", "drop", "relabel", "edit")


@dataclass(frozen=True, slots=True)
class Mark:
    """One decision about one row."""

    behaviour: str
    run: str
    step: str
    row_id: str
    decision: Decision
    message: str
    """The row's own text, without the prompt around it."""
    answer: str
    """The answer that is right; of a dropped row, the one that it had."""
    was: str
    """The answer that the row had."""
    at: float = 0.0

    @property
    def gold(self) -> bool:
        """Whether message and answer are right together."""
        return self.decision != "drop"


_COLUMNS = tuple(field.name for field in fields(Mark))


def add_mark(store: Store, mark: Mark) -> None:
    """Keep a mark; it is in the store when this returns."""
    values = (*astuple(mark)[:-1], mark.at or time.time())
    with store.write() as conn:
        conn.execute(
            f"INSERT INTO marks ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})",
            values,
        )


def marks_of(store: Store, behaviour: str) -> list[Mark]:
    """The marks of a behaviour, the last one of each message, in the order in which they were made."""
    rows = store.read("SELECT * FROM marks WHERE behaviour = ? ORDER BY id", behaviour)
    found: dict[str, Mark] = {}
    for row in rows:
        mark = Mark(**{name: row[name] for name in _COLUMNS})
        words = " ".join(mark.message.lower().split())
        found.pop(words, None)
        found[words] = mark
    return list(found.values())
