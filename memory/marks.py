"""What a person said of training rows: gold labels, kept with the behaviour beyond any run.

Nothing is ever deleted: of several marks of one message the last one counts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Literal

from tunesmith.memory.json_values import picked
from tunesmith.memory.step_records import say
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
    origin: str = ""
    """Where the row came from, as the store knows it; empty where the row is gone."""

    @property
    def gold(self) -> bool:
        """Whether message and answer are right together."""
        return self.decision != "drop"

    @property
    def of_people(self) -> bool:
        """Whether a person brought the message too."""
        return self.origin not in ("", "generated")


_COLUMNS = tuple(field.name for field in fields(Mark) if field.name != "origin")


def add_mark(store: Store, mark: Mark) -> None:
    """Keep a mark; it is in the store when this returns."""
    say(store, "marks", picked(mark, *_COLUMNS) | {"at": mark.at or time.time()})


def marks_of(store: Store, behaviour: str) -> list[Mark]:
    """The marks of a behaviour, the last one of each message, in the order in which they were made."""
    return _marks(store, "behaviour", behaviour)


def marks_in(store: Store, step: str) -> list[Mark]:
    """The same of the rows of a step."""
    return _marks(store, "step", step)


def _marks(store: Store, column: str, value: str) -> list[Mark]:
    origin = "SELECT origin FROM rows r WHERE r.step = m.step AND r.row_id = m.row_id"
    rows = store.read(
        f"SELECT m.*, coalesce(({origin}), '') AS origin FROM marks m WHERE m.{column} = ? ORDER BY m.id", value
    )
    by_message: dict[str, Mark] = {}
    for row in rows:
        mark = Mark(**{name: row[name] for name in (*_COLUMNS, "origin")})
        words = " ".join(mark.message.lower().split())
        by_message.pop(words, None)
        by_message[words] = mark
    return list(by_message.values())
