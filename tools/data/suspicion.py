"""Which rows a person should look at first: what a reader or judge doubted, late attempts, answers that stand out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.faults import ORDINARY
from tunesmith.tools.data.held_out import text_of
from tunesmith.tools.data.spec import Spec

SHOWN_FIRST = 20
"""Before the first training of a behaviour."""
_ODDS_MOST = 1_000
_DOUBTED = ("reading", "kind", "value", "label", "judge")
"""Kinds of verdict that another eye may overrule; the others are facts."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row to look at, with why."""

    row: TrainingRow
    message: str
    answer: str
    score: float
    why: str


def suspects(spec: Spec | None, rows: Sequence[TrainingRow], *, by_chance: bool = False) -> list[Suspect]:
    """The rows that are no ordinary ones, those that would be trained on first, and of them the most suspicious.

    `by_chance` they come as their ids' hash has it, so that the first ones stand for all. Those that are blind cases,
    or give one away, are not looked at.
    """
    own = [row for row in rows if row.origin not in ORDINARY and not row.attributes.hidden]
    lengths = sorted(len(row.answer) for row in own)
    usual = lengths[len(lengths) // 2] if lengths else 0
    found = []
    for row in own:
        message = text_of(spec, row) if spec else str(row.prompt[-1].get("content") or "")
        score, why = _suspicion(spec, row, usual)
        found.append(Suspect(row, message, row.answer, score, why))

    def place(suspect: Suspect) -> tuple[bool, float, str]:
        identity = suspect.row.row_id
        if by_chance:
            return left_out(suspect.row), 0.0, hashlib.sha256(f"look/{identity}".encode()).hexdigest()
        return left_out(suspect.row), -suspect.score, identity

    return sorted(found, key=place)


def left_out(row: TrainingRow) -> bool:
    """Whether a row will not be trained on, as far as is known."""
    return row.dropped or (row.verdict is None and bool(row.attributes.problem))


def _suspicion(spec: Spec | None, row: TrainingRow, usual: int) -> tuple[float, str]:
    doubts: list[tuple[float, str]] = []
    answer = row.answer
    problem = str(row.verdict) if row.dropped else row.attributes.problem
    if problem:
        doubts.append((0.9 if problem.split(":")[0] in _DOUBTED else 0.4, f"dropped: {problem}"))
    attempt = row.attributes.attempt
    for share, told in ((row.attributes.of_kind, "of the kind"), (row.attributes.judged, "right")):
        if share is not None and share < 1:
            doubts.append((1 - share, f"{told} with {share:.0%}"))
    if (margin := row.attributes.margin) is not None:
        doubts.append((1 / (1 + math.exp(margin)), f"read {_odds(margin)} against the next value"))
    for name, drawn in row.attributes.relabelled:
        doubts.append((0.3, f"kept as what it says: {name} was drawn as {drawn!r}"))
    if attempt > 1:
        doubts.append((0.15 * (attempt - 1), f"written at attempt {attempt}"))
    if usual and len(answer) > 2 * usual + 20:
        doubts.append((0.3, "its answer is long"))
    if spec and form_of(spec).parse(answer) == []:
        doubts.append((0.25, "its answer says that there is nothing"))
    total = 1.0
    for score, _ in doubts:
        total *= 1 - min(score, 0.99)
    return 1 - total, "; ".join(text for _, text in sorted(doubts, reverse=True)) or "nothing in particular"


def _odds(margin: float) -> str:
    """Log-odds in nats, as people say them."""
    odds = math.exp(min(abs(margin), math.log(_ODDS_MOST)))
    told = f"{'over ' if odds >= _ODDS_MOST else ''}{odds:.0f} to 1"
    return told if margin >= 0 else f"1 to {told.removesuffix(' to 1')}"
