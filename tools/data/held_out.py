"""Rows that become test cases instead of training rows.

Their right answers are known by a person, by construction, or where two independent solutions agree; of a row whose
answer a model wrote once the message alone is asked. What a person marked comes first, then kept rows in an order that
nothing but their text decides. Whatever is like a case, by the measure of the leakage gate, leaves the training rows
with it: a cluster is held out whole. What it says is in the suite alone: no view of rows shows it.
"""

from __future__ import annotations

import hashlib
import math
import os
import pwd
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from rapidfuzz import fuzz

from tunesmith.memory.marks import Mark
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.core.record_files import PREVIEW_RECORDS
from tunesmith.tools.core.similarity import RUN, normal, runs
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.description import takes_turns
from tunesmith.tools.data.rows import EXAMPLE, ORDINARY, is_persons
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.leakage import LeakGate


@dataclass(frozen=True, slots=True)
class KnownCase:
    """A message with the answer that is right; the answer is empty where nobody knows it."""

    prompt: str
    answer: str
    source: str
    """example: the spec was made from it. own: another of the user's examples or rows. gold: one of those that a person
    marked. marked: a person's answer to a model's message. written: both by a model."""
    by: str = ""
    at: str = ""
    """When, as ISO 8601 in UTC."""
    system: str = ""
    """The system prompt that it is asked under."""
    seed_row: str = ""
    """The first of the rows that share what this one was made from."""

    @property
    def metadata(self) -> dict[str, str]:
        """What a suite's file says of it beside its texts."""
        fields = {"source": self.source, "by": self.by, "at": self.at, "seed_row": self.seed_row}
        return {name: value for name, value in fields.items() if value}


def account() -> str:
    """The account that this process acts for."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return f"user {os.getuid()}"


def now(at_s: float = 0.0) -> str:
    """A time in seconds since 1970, or the present one, as cases name it."""
    return datetime.fromtimestamp(at_s or time.time(), UTC).isoformat(timespec="seconds")


KIND = "held out"
_GOLD_SHARE, _GOLD_LEAST = 0.2, 10
"""Of the behaviour's kept rows, so many marks become cases where no number was asked for, ten at the least; the others
train; a claim needs ten of people's."""
_GROUP_MOST = 4
"""Rows that answer one value; of more, others are asked first: all of a value go with its case, and few would be
left."""
_NEAR_SHARE = 0.34
"""Of the near misses, so many at most: the others hold the model to its base in training."""
_LOST_SHARE = 0.25
"""Of a person's rows, so many at most are left out for being like a case: they are what teaches most."""
_TOO_ALIKE = (
    "your messages are so alike that some of those trained on are nearly blind cases: what the verdict says of new "
    "messages may be too good; messages of other kinds among your rows would tell"
)

_ROWS_A_CASE = 1.6
"""Rows that a case costs: itself, and what is like it."""


def rows_beside(cases: int) -> int:
    """Rows that so many test cases take out of training."""
    return math.ceil(_ROWS_A_CASE * cases)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The cases, and the rows with those that became cases, or are like one, taken out."""

    rows: list[TrainingRow]
    known: tuple[KnownCase, ...] = ()
    near_misses: tuple[str, ...] = ()
    gate: LeakGate | None = None
    """Tells what is like one of the cases."""
    note: str = ""
    """What is to be known of them."""

    def like_a_case(self, spec: Spec, row: TrainingRow) -> bool:
        """Whether a row of the behaviour gives one of the cases away."""
        return self.gate is not None and self.gate.check(row.row_id, [spec.text_of(row.prompt)]) is not None

    @property
    def cases(self) -> int:
        """How many cases there are."""
        return len(self.known) + len(self.near_misses)

    def of(self, source: str) -> tuple[KnownCase, ...]:
        """The cases that come from somewhere."""
        return tuple(case for case in self.known if case.source == source)


def hold_out(
    spec: Spec, rows: Sequence[TrainingRow], marks: Sequence[Mark], count: int, threshold: float, *, known: bool = True
) -> HeldOut:
    """Take `count` cases of the target out of judged rows, marks among them, and as many near misses at most.

    Where the written answers are not `known` to be right, only what a person marked or brought becomes a case of the
    target.
    """
    own = sorted((row for row in rows if row.usable and can_be_asked(spec, row)), key=_drawn)
    near = sorted((row for row in rows if _written_near_miss(spec, row)), key=_drawn) if count else []
    near = near[: min(count, round(_NEAR_SHARE * len(near)))]
    gold = _gold(spec, marks, max(count, round(_GOLD_SHARE * len(own)), _GOLD_LEAST))
    marked = {normal(case.prompt, digits_count=True) for case in gold}
    others = [row for row in own if normal(spec.text_of(row.prompt), digits_count=True) not in marked]
    others = [row for row in others if known or row.origin != "generated"]
    wanted, visible = max(0, count - len(gold)), visible_rows(spec, others)
    candidates = _Candidates(gold, pool_of(others, visible, wanted), visible, wanted, near)
    usual, *narrower = levels(threshold)
    withheld = _case_split(spec, rows, candidates, usual)
    persons = sum(is_persons(row) and row.row_id not in visible for row in candidates.pool)
    least = min(wanted, persons, BLIND_LEAST)  # else rows that are like the shown ones leave none to decide by
    for alike in narrower:
        enough = len(withheld.known) - len(gold) >= least
        if enough and _lost(rows, withheld) <= _LOST_SHARE * sum(map(is_persons, own)):
            break
        withheld = replace(_case_split(spec, rows, candidates, alike), note=_TOO_ALIKE)
    return withheld


def _written_near_miss(spec: Spec, row: TrainingRow) -> bool:
    """Of the user's own near misses the suite has its cases already: those that are rows here all teach."""
    return row.usable and row.origin == "near_miss" and spec.text_of(row.prompt) not in spec.near_misses


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What cases are made of: marks, `count` rows of a pool but for those `shown` to somebody, and near misses."""

    gold: Sequence[KnownCase]
    pool: Sequence[TrainingRow]
    visible: Collection[str]
    count: int
    near: Sequence[TrainingRow]


def _case_split(spec: Spec, rows: Sequence[TrainingRow], candidates: _Candidates, alike: Alike) -> HeldOut:
    """The cases, and the rows without them and whatever is like one of them."""
    gold, pool, near = candidates.gold, candidates.pool, candidates.near
    groups = _groups(spec, pool, alike)
    visible_groups = {groups.get(identity, identity) for identity in candidates.visible}
    unseen = [row for row in pool if groups.get(row.row_id, row.row_id) not in visible_groups]
    chosen = _whole_groups(unseen, groups, candidates.count)
    if not (gold or chosen or near):
        return HeldOut(list(rows))
    cases = [_case(spec, f"{spec.name}-gold-{n:02d}", one.prompt) for n, one in enumerate(gold, 1)]
    cases += [_case(spec, row.row_id, spec.text_of(row.prompt)) for row in (*chosen, *near)]
    ids = {row.row_id for row in (*chosen, *near)}
    gate = LeakGate(cases, spec.slot, alike.score)
    same = {normal(str(case.vars[spec.slot]), digits_count=True) for case in cases}
    asked_values = {value: row.row_id for row in chosen for value in _answered_values(spec, row)}

    def why(row: TrainingRow) -> str:
        text = spec.text_of(row.prompt)
        if not alike.runs_count and is_persons(row):
            return "the same message as a blind case" if normal(text, digits_count=True) in same else ""
        digits_count = row.origin in ORDINARY or (alike.digits_count and is_persons(row))
        return str(gate.check(row.row_id, [text], digits_count=digits_count) or "")

    return HeldOut(
        [_without_cases(spec, row, ids, why, asked_values) for row in rows],
        known=(*gold, *_as_cases(spec, chosen, groups)),
        near_misses=tuple(spec.text_of(row.prompt) for row in near),
        gate=gate,
    )


def _lost(rows: Sequence[TrainingRow], withheld: HeldOut) -> int:
    """A person's rows that are neither trained on nor asked."""
    gone = sum(is_persons(row) and row.usable and after.dropped for row, after in zip(rows, withheld.rows, strict=True))
    return gone - len(withheld.of("own"))


def _groups(spec: Spec, rows: Sequence[TrainingRow], alike: Alike) -> dict[str, str]:
    """Row → what it has in common with others: the value that it answers, or of a person's row that it is like them."""
    persons = [row for row in rows if is_persons(row)]
    first = groups_of([spec.text_of(row.prompt) for row in persons], alike)
    groups = {row.row_id: persons[place].row_id for row, place in zip(persons, first, strict=True)}
    for row in rows:
        if values := sorted(_answered_values(spec, row)):
            groups[row.row_id] = values[0]
    return groups


def _whole_groups(rows: Sequence[TrainingRow], groups: Mapping[str, str], count: int) -> list[TrainingRow]:
    """`count` rows, where they can be had as whole groups: none of a group is trained on then.

    Large groups come last, for they would leave too little to train on.
    """
    together: dict[str, list[TrainingRow]] = {}
    for row in rows:
        together.setdefault(groups.get(row.row_id, row.row_id), []).append(row)
    small = [group for group in together.values() if len(group) <= _GROUP_MOST]
    large = [group for group in together.values() if len(group) > _GROUP_MOST]
    return [row for group in (*small, *large) for row in group][:count]


def _answered_values(spec: Spec, row: TrainingRow) -> set[str]:
    """What a row's answer copies from its message or says of it: whoever saw it in training knows it by heart."""
    return {normal(value) for attribute, value in _open_values(spec, row) if attribute.shown}


def _open_values(spec: Spec, row: TrainingRow) -> list[tuple[Attribute, str]]:
    """What was drawn for a row from words that a model thought up."""
    records = row.attributes.draw.records if row.attributes.draw else ()
    leaves = [(a, record.get(path)) for record in records for path, a in spec.leaves(record)]
    return [(attribute, value) for attribute, value in leaves if attribute.kind in ("copied", "text") and value]


def _as_cases(spec: Spec, rows: Sequence[TrainingRow], groups: Mapping[str, str]) -> list[KnownCase]:
    """Rows as cases; those that share what they were made from, or are alike, are one cluster."""
    seeds = _seed_rows(spec, rows, groups)
    cases = []
    for row in rows:
        own = row.origin != "generated"
        known = own or form_of(spec).composed or row.attributes.agreed is True
        source, by, at = ("own", account(), now()) if own else ("written", "", "")
        answer = row.answer if known else ""
        cases.append(KnownCase(spec.text_of(row.prompt), answer, source, by, at, _system_of(row), seeds[row.row_id]))
    return cases


def _seed_rows(spec: Spec, rows: Sequence[TrainingRow], groups: Mapping[str, str]) -> dict[str, str]:
    """Row → the first row that it shares a request or a drawn open value with, directly or through others."""
    seeds: dict[str, str] = {}
    owner: dict[str, str] = {}
    for row in rows:
        seeds[row.row_id] = row.row_id
        for source in _sources(spec, row) or {f"group {groups.get(row.row_id, row.row_id)}"}:
            other, own = seeds[owner.setdefault(source, row.row_id)], seeds[row.row_id]
            if other != own:
                seeds |= {name: other for name, seed in seeds.items() if seed == own}
    return seeds


def _sources(spec: Spec, row: TrainingRow) -> set[str]:
    values = {f"value {normal(value, digits_count=True)}" for _, value in _open_values(spec, row)}
    request = row.attributes.draw.told.get("request") if row.attributes.draw else ""
    return values | ({f"request {request}"} if request else set())


def can_be_asked(spec: Spec, row: TrainingRow) -> bool:
    """Whether a row of the behaviour is what a case of it is: its message, or conversation, and one answer."""
    turns = row.prompt[bool(_system_of(row)) :]
    fits = takes_turns(turns) and (spec.conversation or len(turns) == 1) and len(row.completion) == 1
    same_tools = list(row.attributes.tools) == list(spec.tools)
    known = not _system_of(row) or _system_of(row) in spec.system_prompts
    return fits and same_tools and known and row.origin not in (*ORDINARY, EXAMPLE)


def _system_of(row: TrainingRow) -> str:
    """The system prompt that a row is seen under; empty: none."""
    first = row.prompt[0] if row.prompt else {}
    return str(first.get("content") or "") if first.get("role") == "system" else ""


def _gold(spec: Spec, marks: Sequence[Mark], most: int) -> list[KnownCase]:
    """What a person found right or put right: their own messages first, then corrections and new marks.

    None that breaks a rule of today.
    """
    right = [m for m in marks if m.gold and m.answer.strip() and not broken_rule(spec.rules, m.answer)]
    right.sort(key=lambda mark: (not mark.of_people, mark.decision == "keep", -mark.at))
    return [
        KnownCase(m.message, m.answer, "gold" if m.of_people else "marked", account(), now(m.at)) for m in right[:most]
    ]


def _drawn(row: TrainingRow) -> str:
    return hashlib.sha256(str(row.prompt[-1].get("content")).encode()).hexdigest()


def _case(spec: Spec, identity: str, text: str) -> Case:
    return Case(case_id=identity, suite=KIND, messages=({"role": "user", "content": text},), vars={spec.slot: text})


def _without_cases(
    spec: Spec, row: TrainingRow, ids: set[str], why: Callable[[TrainingRow], str], asked_values: Mapping[str, str]
) -> TrainingRow:
    """The row, hidden where it is a case, answers a case's value, or is like one."""
    if not row.usable:
        return row
    if row.row_id in ids:
        return hidden(row, Verdict(KIND, "a case of its own"))
    if same := next((value for value in sorted(_answered_values(spec, row)) if value in asked_values), ""):
        return hidden(row, Verdict(KIND, f"answers the same value as case {asked_values[same]}"))
    like = why(row)
    return hidden(row, Verdict(KIND, like)) if like else row


def hidden(row: TrainingRow, verdict: Verdict) -> TrainingRow:
    """A dropped row that no view shows."""
    return replace(row, verdict=verdict, attributes=replace(row.attributes, hidden=True))


def masked(row: TrainingRow) -> TrainingRow:
    """The row without its texts where they are a blind case's."""
    if not row.attributes.hidden:
        return row
    turns = [[{**turn, "content": "(a blind case)"} for turn in turns] for turns in (row.prompt, row.completion)]
    return replace(row, prompt=turns[0], completion=turns[1])


BLIND_LEAST, BLIND_MOST, BLIND_SHARE = 10, 40, 0.15
"""Fewer than ten cases carry no claim; of many rows forty are enough for one, and the others teach (`blind_count`)."""


def blind_count(rows: int) -> int:
    """How many of so many rows become blind cases where nobody says: 15 %, at least 10, at most 40, and never more than
    half: of fewer than twenty rows so few are left that their cases decide nothing."""
    return min(BLIND_MOST, max(BLIND_LEAST, round(BLIND_SHARE * rows)), rows // 2)


_POOL_LEAST, _POOL_TIMES = 200, 5
"""Rows that cases are chosen from: so many, or so many times the cases; to compare all of 100,000 would take hours."""
_FRAME_FROM = 3
"""Words in a row that so many messages share are a frame, and say nothing."""


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
    run_sets = [set(runs(text, RUN)) if alike.runs_count else set() for text in words]
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
