"""What a person said of two models' answers to one message, as rows: asked once, judged once, never deleted.

A message of a pair of models is there once: a second terminal, a second paste and a step that goes on after a kill add
nothing. What was taken back stays as a row that counts for nothing, and its answers wait for another judgement.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tunesmith.memory.step_records import keep_words
from tunesmith.memory.store import Store
from tunesmith.memory.store_file import insert, new_id

Source = Literal["typed", "pasted", "file", "generated"]


class Pair(NamedTuple):
    """Two models of a run whose answers are judged side by side."""

    run: str
    first_arm: str
    first_artifact: str
    last_arm: str
    last_artifact: str
    training: str
    """The adapter that the last one is or was made from: its merged and quantized models belong to one training."""

    @property
    def arms(self) -> tuple[str, str]:
        """The arms, the earlier one first."""
        return self.first_arm, self.last_arm


@dataclass(frozen=True, slots=True)
class Rating:
    """One message with both answers, and what a person said of them; None where that is still to come."""

    id: int
    pair: Pair
    digest: str
    """Sha256 of the message: the same message is the same case, whatever run it is asked in."""
    message: str
    source: Source
    shown_first: str
    """The arm whose answer stands as 1."""
    first_answer: str | None
    last_answer: str | None
    first_cut: int
    """Tokens at which the answer was cut off; 0 where it ended by itself."""
    last_cut: int
    first_right: bool | None
    last_right: bool | None
    rated_by: str
    rated_at: float
    taken_back: bool

    @property
    def answered(self) -> bool:
        """Whether both answers are there."""
        return self.first_answer is not None and self.last_answer is not None

    @property
    def rated(self) -> bool:
        """Whether a person judged both answers."""
        return self.first_right is not None

    @property
    def answers_in_order(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Answer 1 and answer 2, each with the tokens at which it was cut off."""
        first, last = (self.first_answer or "", self.first_cut), (self.last_answer or "", self.last_cut)
        return (first, last) if self.shown_first == self.pair.first_arm else (last, first)


def digest_of(message: str) -> str:
    """The identity of a message."""
    return hashlib.sha256(message.encode()).hexdigest()


def add_messages(store: Store, pair: Pair, messages: Iterable[tuple[str, Source]]) -> int:
    """Add messages that are to be answered, each with the order in which its answers are shown; how many are new."""
    added: list[sqlite3.Row] = []
    with store.write() as conn:
        for message, source in messages:
            asked = {"digest": digest_of(message), "message": message, "source": source, "added_at": time.time()}
            row = {"id": new_id(conn, "ratings"), **pair._asdict(), **asked, "shown_first": secrets.choice(pair.arms)}
            added += insert(conn, "ratings", row, how="INSERT OR IGNORE")
    keep_words(store, "ratings", added)
    return len(added)


def keep_answer(store: Store, rating: int, arm: str, text: str, cut_at_tokens: int = 0) -> None:
    """Keep an arm's answer; the first one counts, and no later one takes its place."""
    kept: list[sqlite3.Row] = []
    with store.write() as conn:
        for side in ("first", "last"):
            kept += conn.execute(
                f"UPDATE ratings SET {side}_answer = ?, {side}_cut = ?"
                f" WHERE id = ? AND {side}_arm = ? AND {side}_answer IS NULL RETURNING *",
                (text, cut_at_tokens, rating, arm),
            )
    keep_words(store, "ratings", kept)


def rate(store: Store, rating: Rating, answers_right: tuple[bool, bool], by: str) -> bool:
    """Keep whether answer 1 and answer 2 are right; False where somebody else judged, or took it back, meanwhile."""
    right = answers_right if rating.shown_first == rating.pair.first_arm else answers_right[::-1]
    with store.write() as conn:
        changed = conn.execute(
            "UPDATE ratings SET first_right = ?, last_right = ?, rated_by = ?, rated_at = ? WHERE id = ?"
            " AND first_right IS NULL AND taken_back IS NULL AND first_answer IS NOT NULL AND last_answer IS NOT NULL"
            " RETURNING *",
            (*right, by, time.time(), rating.id),
        ).fetchall()
    keep_words(store, "ratings", changed)
    return bool(changed)


def take_back(store: Store, rating: Rating) -> bool:
    """Let a judgement count no more; its answers are there to be judged again. False where that was done already."""
    with store.write() as conn:
        changed = conn.execute(
            "UPDATE ratings SET taken_back = ? WHERE id = ? AND first_right IS NOT NULL AND taken_back IS NULL"
            " RETURNING *",
            (time.time(), rating.id),
        ).fetchall()
        for row in map(dict, changed[:1]):
            row |= dict.fromkeys(("first_right", "last_right", "rated_at", "taken_back")) | {"rated_by": ""}
            row |= {"id": new_id(conn, "ratings"), "shown_first": secrets.choice(rating.pair.arms)}
            changed += insert(conn, "ratings", row)
    keep_words(store, "ratings", changed)
    return bool(changed)


def ratings_in(store: Store, run: str) -> list[Rating]:
    """Everything that was to be judged in a run, taken back or not, in the order in which it was added."""
    return _read(store, "run = ?", run)


def ratings_of_message(store: Store, digests: Sequence[str]) -> list[Rating]:
    """Every judgement of these messages, in any run, in the order in which they were made; what was taken back too."""
    marks = ", ".join("?" * len(digests))
    return sorted(_read(store, f"digest IN ({marks}) AND first_right IS NOT NULL", *digests), key=lambda r: r.rated_at)


def _read(store: Store, where: str, *values: str) -> list[Rating]:
    return [_rating(row) for row in store.read(f"SELECT * FROM ratings WHERE {where} ORDER BY id", *values)]


def _rating(row: sqlite3.Row) -> Rating:
    values = {name: row[name] for name in Rating.__dataclass_fields__ if name != "pair"}
    for name in ("first_right", "last_right"):
        values[name] = None if row[name] is None else bool(row[name])
    values |= {"rated_at": row["rated_at"] or 0.0, "taken_back": row["taken_back"] is not None}
    return Rating(pair=Pair(*(row[name] for name in Pair._fields)), **values)
