"""Which of a person's rows may become blind cases, and which of them are so alike that they have to stay together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from rapidfuzz import fuzz

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.import_formats import SHOWN
from tunesmith.tools.data.own_rows import is_persons
from tunesmith.tools.data.similarity import normal, runs
from tunesmith.tools.data.spec import Spec

_POOL_LEAST, _POOL_TIMES = 200, 5
"""Rows that cases are chosen from: so many, or so many times the cases; to compare all of 100,000 would take hours."""
_RUN, _FRAME_FROM = 8, 3
"""Words in a row that two messages share; in so many messages they are a frame, and say nothing."""


class Alike(NamedTuple):
    """From where on two messages count as alike."""

    score: float
    """Edit similarity, of 100."""
    digits_count: bool = False
    runs_count: bool = True
    """Whether eight words in a row that both hold are enough."""


def levels(threshold: float) -> tuple[Alike, ...]:
    """As the leakage gate sees it, then narrower for rows that are all alike, down to the same text."""
    return Alike(threshold), Alike(max(95.0, threshold), True), Alike(100.0, True, False)


def shown_rows(spec: Spec, rows: Sequence[TrainingRow]) -> set[str]:
    """The ids of a person's rows that somebody was shown: as examples, or as the first that an import takes."""
    examples = {normal(example.prompt, digits_count=True) for example in spec.examples if spec.told}
    return {row.row_id for row in rows if is_persons(row) and (_is_first(row) or _message(spec, row) in examples)}


def _is_first(row: TrainingRow) -> bool:
    return row.attributes.number is not None and row.attributes.number <= SHOWN


def _message(spec: Spec, row: TrainingRow) -> str:
    return normal(spec.text_of(row.prompt), digits_count=True)


def pool_of(rows: Sequence[TrainingRow], shown: Collection[str], count: int) -> list[TrainingRow]:
    """The rows that `count` cases are chosen from, and those shown: of a person's no more than can be compared."""
    persons = [row.row_id for row in rows if is_persons(row) and row.row_id not in shown]
    beyond = set(persons[max(_POOL_LEAST, _POOL_TIMES * count) :])
    return [row for row in rows if row.row_id not in beyond]


def groups_of(texts: Sequence[str], alike: Alike) -> list[int]:
    """For each text the place of the first one that it is like, directly or through others."""
    words = [normal(text, digits_count=alike.digits_count) for text in texts]
    held = [set(runs(text, _RUN)) if alike.runs_count else set() for text in words]
    holders = Counter(run for own in held for run in own)
    group = list(range(len(texts)))
    for place, text in enumerate(words):
        for other in range(place):
            if group[other] == group[place]:
                continue
            shared = any(holders[run] < _FRAME_FROM for run in held[place] & held[other])
            if shared or fuzz.ratio(text, words[other], score_cutoff=alike.score):
                first, last = sorted((group[other], group[place]))
                group = [first if one == last else one for one in group]
    return group
