"""A person's own rows: what keeps one out of training, what is only noted of it, and how many become blind cases.

Whoever brings rows says by them what is right. So nothing that was concluded from examples keeps one out: only what
makes it no row at all, what the person stated, and the person's own word against it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rapidfuzz import fuzz

from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.data.faults import EXAMPLE
from tunesmith.tools.data.import_formats import PREVIEW_RECORDS
from tunesmith.tools.data.similarity import normal, runs
from tunesmith.tools.data.spec import Spec

ORIGINS = ("imported", EXAMPLE)
"""Origins of rows whose answers a person gave."""
ROWS_LEAST = 10
"""Different rows from which a training without written rows is worth its price."""
BLIND_LEAST, BLIND_MOST, BLIND_SHARE = 10, 40, 0.15
"""Fewer than ten cases carry no claim; of many rows forty are enough for one, and the others teach (`blind_count`)."""
_NOTES_MOST = 6
"""Kinds of doubt that a result names, the commonest: a person reads them."""
RULE = "rule"
"""Kind of verdict on an answer that breaks a rule."""


def is_persons(row: TrainingRow) -> bool:
    """Whether a person gave the row's answer."""
    return row.origin in ORIGINS


def blind_count(rows: int) -> int:
    """How many of so many rows become blind cases where nobody says: 15 %, at least 10, at most 40, and never more than
    half: of fewer than twenty rows so few are left that their cases decide nothing."""
    return min(BLIND_MOST, max(BLIND_LEAST, round(BLIND_SHARE * rows)), rows // 2)


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows that answer what another row answers: each with the other row's id."""

    same: Mapping[str, str]
    """In the same way: one of them is enough."""
    contradicted: Mapping[str, str]
    """In another way: one of them may be wrong, and code cannot tell which."""


def repeats_in(rows: Iterable[TrainingRow]) -> Repeats:
    """The repeats among a person's rows.

    Conversations of several answers contradict nobody: many begin alike and go on otherwise.
    """
    groups: dict[str, list[TrainingRow]] = {}
    for row in rows:
        if is_persons(row):
            groups.setdefault(_asked(row), []).append(row)
    same: dict[str, str] = {}
    contradicted: dict[str, str] = {}
    for group in groups.values():
        first: dict[str, str] = {}
        for row in group:
            answer = _answered(row)
            if answer in first:
                same[row.row_id] = first[answer]
            else:
                first[answer] = row.row_id
        if len(first) > 1 and all(len(row.completion) == 1 for row in group):
            ids = list(first.values())
            contradicted |= {row.row_id: next(i for i in ids if i != first[_answered(row)]) for row in group}
    return Repeats({name: other for name, other in same.items() if name not in contradicted}, contradicted)


def _asked(row: TrainingRow) -> str:
    turns = [[turn.get("role"), " ".join(str(turn.get("content") or "").split())] for turn in row.prompt]
    return json.dumps([turns, list(row.attributes.tools)], sort_keys=True)


def _answered(row: TrainingRow) -> str:
    """What a row answers, whatever its case and marks."""
    texts = [str(turn.get("content") or "") for turn in row.completion]
    plain = [normal(text, digits_count=True) or text.strip() for text in texts]  # marks alone are an answer too
    turns = [{**turn, "content": text} for turn, text in zip(row.completion, plain, strict=True)]
    return json.dumps(turns, sort_keys=True)


@dataclass(slots=True)
class Doubts:
    """What code doubts of a person's rows that are trained on all the same."""

    _rows: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Kind and rule, or kind and nothing → the rows."""
    _reasons: dict[str, str] = field(default_factory=dict)
    """Kind → what was found in the first row."""

    def add(self, row: TrainingRow, doubt: Verdict) -> None:
        """Note a doubt; one of a broken rule is counted by the rule, others by their kind."""
        self._rows.setdefault((doubt.kind, doubt.reason if doubt.kind == RULE else ""), []).append(row.row_id)
        self._reasons.setdefault(doubt.kind, str(doubt))

    def notes(self, rows: int) -> tuple[str, ...]:
        """A sentence for each kind of doubt, the commonest first; `rows` of the person's there are in all."""
        lines = []
        for (kind, rule), ids in sorted(self._rows.items(), key=lambda pair: -len(pair[1]))[:_NOTES_MOST]:
            what = (
                f"do not keep what your examples seemed to say ({rule})"
                if rule
                else f"look odd ({self._reasons[kind]})"
            )
            lines.append(
                f"{len(ids)} of your {rows} rows {what}; they are trained on as they are, the first is {ids[0]}"
            )
        return tuple(lines)


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


def visible_rows(spec: Spec, rows: Sequence[TrainingRow]) -> set[str]:
    """The ids of a person's rows that somebody was shown: as examples, or as the first that an import takes."""
    examples = {normal(example.prompt, digits_count=True) for example in spec.examples if spec.described}
    visible = set()
    for row in filter(is_persons, rows):
        first = row.attributes.number is not None and row.attributes.number <= PREVIEW_RECORDS
        if first or normal(spec.text_of(row.prompt), digits_count=True) in examples:
            visible.add(row.row_id)
    return visible


def pool_of(rows: Sequence[TrainingRow], visible: Collection[str], count: int) -> list[TrainingRow]:
    """The rows that `count` cases are chosen from, and those shown: of a person's no more than can be compared."""
    persons = [row.row_id for row in rows if is_persons(row) and row.row_id not in visible]
    beyond = set(persons[max(_POOL_LEAST, _POOL_TIMES * count) :])
    return [row for row in rows if row.row_id not in beyond]


def groups_of(texts: Sequence[str], alike: Alike) -> list[int]:
    """For each text the place of the first one that it is like, directly or through others."""
    words = [normal(text, digits_count=alike.digits_count) for text in texts]
    run_sets = [set(runs(text, _RUN)) if alike.runs_count else set() for text in words]
    holders = Counter(run for own in run_sets for run in own)
    group = list(range(len(texts)))
    for place, text in enumerate(words):
        for other in range(place):
            if group[other] == group[place]:
                continue
            shared = any(holders[run] < _FRAME_FROM for run in run_sets[place] & run_sets[other])
            if shared or fuzz.ratio(text, words[other], score_cutoff=alike.score):
                first, last = sorted((group[other], group[place]))
                group = [first if one == last else one for one in group]
    return group
