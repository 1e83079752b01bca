"""Which of a person's rows may become blind cases, and which of them are so alike that they have to stay together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz import fuzz

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.import_formats import SHOWN
from tunesmith.tools.data.own_rows import is_persons
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.data.spec import Spec

_POOL_LEAST, _POOL_TIMES = 200, 5
"""Rows that cases are chosen from: so many, or so many times the cases; to compare all of 100,000 would take hours."""
_RUN, _FRAME_FROM = 8, 3
"""Words in a row that two messages share; in so many messages they are a frame, and say nothing."""


class Likeness(NamedTuple):
    """From where on two messages count as alike."""

    score: float
    """Edit similarity, of 100."""
    digits_count: bool = False
    runs_count: bool = True
    """Whether eight words in a row that both hold are enough."""


def levels(threshold: float) -> tuple[Likeness, ...]:
    """Likeness as the leakage gate sees it, then narrower for rows that are all alike, down to the same text."""
    return Likeness(threshold), Likeness(max(95.0, threshold), True), Likeness(100.0, True, False)


def unseen(spec: Spec, row: TrainingRow) -> bool:
    """Whether nobody was shown a person's row: the behaviour's examples are, and the first rows that an import takes."""
    if not is_persons(row):
        return True
    said = normal(str(row.prompt[-1].get("content") or ""), digits_count=True)
    shown = {normal(spec.render(example.prompt), digits_count=True) for example in spec.examples}
    return int(row.attributes.get("number") or SHOWN + 1) > SHOWN and said not in shown


def pool_of(rows: Sequence[TrainingRow], count: int) -> list[TrainingRow]:
    """The rows that `count` cases are chosen from: of a person's no more than can be compared."""
    most, taken, pool = max(_POOL_LEAST, _POOL_TIMES * count), 0, []
    for row in rows:
        taken += is_persons(row)
        if not is_persons(row) or taken <= most:
            pool.append(row)
    return pool


def groups_of(texts: Sequence[str], likeness: Likeness) -> list[int]:
    """For each text the place of the first one that it is like, directly or through others."""
    words = [normal(text, digits_count=likeness.digits_count) for text in texts]
    runs = [_runs(text) if likeness.runs_count else set() for text in words]
    holders = Counter(run for own in runs for run in own)
    group = list(range(len(texts)))
    for place, text in enumerate(words):
        for other in range(place):
            if group[other] == group[place]:
                continue
            shared = any(holders[run] < _FRAME_FROM for run in runs[place] & runs[other])
            if shared or fuzz.ratio(text, words[other], score_cutoff=likeness.score):
                first, last = sorted((group[other], group[place]))
                group = [first if one == last else one for one in group]
    return group


def _runs(words: str) -> set[tuple[str, ...]]:
    parts = words.split()
    return {tuple(parts[n : n + _RUN]) for n in range(len(parts) - _RUN + 1)}
