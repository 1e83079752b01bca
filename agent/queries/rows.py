"""Training rows: how many of which origin and verdict, why some were dropped, and the rows themselves on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import Answer, Context, clip, matching, without_instruction
from tunesmith.agent.queries.arguments import Most, Query, Recorded, RunName
from tunesmith.agent.queries.machine import at_work
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, RUNNING, Run, TrainingRow
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.data.held_out import masked

_SAMPLE_ROWS = 4
"""Each is two or three lines: a screen's worth."""
Verdict = Annotated[Literal["", "keep", "drop"], Field(description="empty: both")]
Origin = Annotated[Literal["", "generated", "rehearsal"], Field(description="empty: all")]


class RowsQuery(Query):
    """Training rows: how many were kept or dropped, why, some of them, the longest or shortest, their length; which a
    new plan would use."""

    kind: Literal["rows"] = "rows"
    about: Literal["counts", "reasons", "examples", "longest", "shortest", "length", "for_a_plan"] = "counts"
    run: RunName = ""
    verdict: Verdict = ""
    origin: Origin = ""
    split: Annotated[Literal["", "train", "valid"], Field(description="Part: trained on, or for validation")] = ""
    reason: Annotated[Recorded, Field(description="Only dropped for this, such as duplicate or leak")] = ""
    most: Most = 0
    skip: Annotated[int, Field(ge=0, description="So many of the list were shown before")] = 0


class RowQuery(Query):
    """Training rows by their id or by words that they hold: the text, and what became of it."""

    kind: Literal["row"] = "row"
    row: Annotated[str, Field(description="Its id, or words that it holds")]
    run: RunName = ""
    verdict: Verdict = ""
    origin: Origin = ""


@dataclass(frozen=True, slots=True)
class RowCounts:
    """The rows of a run in figures."""

    run: str
    candidates: int
    kept: int
    dropped: int
    to_train: int
    to_validate: int
    chosen: int
    """Those that were asked about."""
    dropped_for: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters of message and answer together, and at most how many words."""

    run: str
    rows: int
    mean: float
    median: int
    shortest: int
    longest: int
    most_words: int


def answer(query: RowsQuery, context: Context) -> Answer:
    """The rows of a run, as far as verdict, origin, split and reason were named. Raises NotFound without any."""
    run, rows = _rows_of(context, query.run)
    if query.about == "for_a_plan":
        return _for_a_plan(context, run, _counted(run, rows, rows))
    chosen = [r for r in rows if query.verdict in ("", _verdict(r)) and query.origin in ("", r.origin)]
    if query.split:
        chosen = [r for r in chosen if r.split == query.split and r.usable]
    if query.reason:
        chosen = [r for r in chosen if r.dropped and (query.reason in _kind(r) or _kind(r) in query.reason)]
    if query.about in ("longest", "shortest", "length"):
        return _by_length(query, run, chosen)
    known = _counted(run, rows, chosen)
    if query.about == "examples":
        return _sample(query, run, chosen, known, "")
    lines = _count_lines(query, known, rows)
    if query.about == "reasons":
        # one of each kind is enough to see what it means
        of_each = list({_kind(row): row for row in reversed(chosen) if row.dropped}.values())[:3]
        samples = [f"  {r.row_id}: “{clip(_message(r), 70)}”: {clip(str(r.verdict), 90)}" for r in of_each]
        lines = [*(lines[:1] if query.verdict == "keep" else []), _reasons(known)]
        return Answer((*lines, *samples), (known,), lambda: _page(chosen), private=True, open_words=_reasons(known))
    judged = [step for step in context.store.steps(run.id, status=DONE) if "train_rows" in step.report]
    for step in judged[-1:]:
        to_train, to_validate = step.report["train_rows"], step.report.get("valid_rows")
        lines.append(f"{step.stage} ({step.id}) counts {to_train} rows to train on, {to_validate} to validate.")
    return Answer(tuple(lines), (known,), lambda: _page(chosen))


def find_rows(query: RowQuery, context: Context) -> Answer:
    """The row of an id, else those that hold some words. Raises NotFound where the run has none."""
    run, rows = _rows_of(context, query.run)
    if exact := [row for row in rows if row.row_id == query.row]:
        return _one_row(run, exact[0])
    chosen = [r for r in rows if query.verdict in ("", _verdict(r)) and query.origin in ("", r.origin)]
    texts = {row.row_id: f"{_message(row)} {_answer(row)} {row.verdict or ''}" for row in chosen}
    plain = [row for row in chosen if query.row.lower() in texts[row.row_id].lower()]
    alike = [] if plain else matching(query.row, texts)
    matches = plain or [row for row in chosen if row.row_id in alike]
    if not matches:
        return Answer((f"No such row of {run.id} speaks of “{clip(query.row, 60)}”.",))
    return _sample(query, run, matches, _counted(run, rows, matches), f" with “{clip(query.row, 40)}”")


def _rows_of(context: Context, name: str) -> tuple[Run, list[TrainingRow]]:
    run = context.run(name, with_stage="generate")
    generated = [step for step in context.store.steps(run.id, status=DONE) if step.stage == "generate"]
    if not generated and (writing := [s for s in context.store.steps(run.id, status=RUNNING) if s.stage == "generate"]):
        raise NotFound(f"{at_work(writing[0])} Its rows can be read when it has ended.")
    if not generated:
        raise NotFound(f"{run.id} has no training rows yet; “generate” makes them.")
    return run, [masked(row) for row in context.store.rows(generated[-1].id)]


def _counted(run: Run, rows: Sequence[TrainingRow], chosen: Sequence[TrainingRow]) -> RowCounts:
    usable = Counter(row.split for row in rows if row.usable)
    dropped = Counter(_kind(row) for row in rows if row.dropped)
    return RowCounts(
        run.id, len(rows), usable.total(), dropped.total(), usable["train"], usable["valid"], len(chosen), dict(dropped)
    )


def _count_lines(query: RowsQuery, known: RowCounts, rows: Sequence[TrainingRow]) -> list[str]:
    origins = Counter(row.origin for row in rows)
    lines = []
    if query.verdict or query.origin or query.split or query.reason:
        part = {"train": "to train on", "valid": "held out for the validation loss", "": ""}[query.split]
        part = f"as {query.reason}" if query.reason else part
        usual = "dropped" if query.reason else "kept" if query.split else "made"
        became = {"keep": "kept", "drop": "dropped", "": usual}[query.verdict]
        name = count(known.chosen, f"{query.origin} row" if query.origin else "row")
        verb = "was" if known.chosen == 1 else "were"
        lines.append(f"In {known.run} {name} {verb} {f'{became} {part}'.strip()}, of {known.candidates} candidates.")
    sources = ", ".join(f"{number} {origin}" for origin, number in origins.items())
    lines.append(
        f"{known.run} has {known.candidates} candidate rows ({sources}); {known.kept} were kept, {known.dropped} "
        f"dropped."
    )
    if known.kept:
        usable = Counter(row.origin for row in rows if row.usable)
        each = ", ".join(f"{usable[origin]} {origin}" for origin in origins)
        splits = f"{known.to_train} to train on, {known.to_validate} held out for validation"
        lines.append(f"Of the kept: {each}; {splits}.")
    return [*lines, *([_reasons(known)] if known.dropped else [])]


def _for_a_plan(context: Context, run: Run, known: RowCounts) -> Answer:
    """Which rows of a run another plan would train on: none but those that it imports; and what the open plan has."""
    steps = context.draft.steps if context.draft else ()
    own = [f"{step.fields.get('rows', 'its usual number of')} rows that it writes" if step.stage == "generate" else
           f"the rows of {clip(step.fields.get('source', 'its file'), 120)}"
           for step in steps if step.stage in ("generate", "import")]  # fmt: skip
    of_run = (
        f"none of the {known.kept} that {run.id} kept ({known.to_train} to train on, {known.to_validate} to validate)"
    )
    trains = f"The plan that is proposed now trains on {listed(own)}" if own else "A new plan trains on rows of its own"
    use = f"`tunesmith rows export rows.jsonl --run {run.id}` and `/import rows.jsonl` bring them into another run."
    return Answer((f"{trains}, and on {of_run} unless it imports them.", use), (known,))


def _reasons(known: RowCounts) -> str:
    if not known.dropped:
        return f"No row of {known.run} was dropped."
    # the commonest, in a line
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(known.dropped_for).most_common(7))
    return f"{known.run}: {count(known.dropped, 'row')} dropped: {kinds}."


def _by_length(query: RowsQuery, run: Run, wanted: Sequence[TrainingRow]) -> Answer:
    """The longest rows, the shortest, or how long they are, by the characters of message and answer."""
    if not wanted:
        raise NotFound(f"{run.id} has no such rows.")
    long = {row.row_id: len(_message(row)) + len(_answer(row)) for row in wanted}
    among = sorted(long.values())
    middle = among[len(among) // 2]
    words = max(len(f"{_message(row)} {_answer(row)}".split()) for row in wanted)
    facts = Lengths(run.id, len(among), sum(among) / len(among), middle, among[0], among[-1], words)
    if query.about == "length":
        return Answer((
            f"A row of {run.id} has {facts.mean:.0f} characters on average, message and answer together; the median is "
            f"{facts.median}, the longest {facts.longest}, of {facts.rows} rows; none has more than {words} words.",
        ), (facts,))  # fmt: skip
    ranked = sorted(wanted, key=lambda row: long[row.row_id], reverse=query.about == "longest")
    first = f"The {query.about} row of {run.id} is {ranked[0].row_id}: {long[ranked[0].row_id]} characters."
    # three, where none says how many
    lines = [f"  {row.row_id} ({long[row.row_id]}): “{clip(_message(row), 110)}”" for row in ranked[: query.most or 3]]
    return Answer((first, *lines), (facts,), lambda: _page(ranked), private=True, open_words=first)


def _sample(
    query: RowsQuery | RowQuery, run: Run, chosen: Sequence[TrainingRow], known: RowCounts, holding: str
) -> Answer:
    verdict = {"keep": "kept ", "drop": "dropped ", "": ""}[query.verdict]
    origin = f"{query.origin} " if query.origin else ""
    plain = not (query.verdict or query.origin or holding)
    generated = [row for row in chosen if row.origin == "generated"] if plain else []
    most, skip = (query.most, query.skip) if isinstance(query, RowsQuery) else (0, 0)
    sample = (generated or chosen)[skip : skip + (most or _SAMPLE_ROWS)]
    many = count(len(chosen), f"{verdict}{origin}row")
    more = " more" if skip else ""
    first = f"{many} of {run.id}{holding}; {len(sample)}{more} of them:" if sample else f"{many}; all were shown."
    lines = [first]
    for row in sample:
        mark = f" (dropped: {clip(str(row.verdict), 60)})" if row.dropped else ""
        # Message and answer in a line each.
        lines.append(f"  {row.row_id}{mark}: “{clip(_message(row), 100)}”")
        lines.append(f"    → “{clip(_answer(row), 105)}”")
    until = skip + len(sample)
    return Answer(tuple(lines), (known,), lambda: _page(chosen), private=True, open_words=first, until=until)


def _one_row(run: Run, row: TrainingRow) -> Answer:
    """One row: what became of it and why, and the row."""
    dropped = f"was dropped: {clip(str(row.verdict), 160)}"
    became = dropped if row.dropped else "was kept" if row.usable else "is not judged yet"
    first = f"Row {row.row_id} of {run.id} ({row.origin}) {became}."
    # Alone, a row has room.
    lines = (first, f"  “{clip(_message(row), 300)}”", f"    → “{clip(_answer(row), 300)}”")
    return Answer(lines, private=True, open_words=first)


def _verdict(row: TrainingRow) -> str:
    return "keep" if row.usable else "drop" if row.dropped else "not judged yet"


def _kind(row: TrainingRow) -> str:
    return clip(row.verdict.kind, 60) if row.verdict else "no reason recorded"


def _message(row: TrainingRow) -> str:
    return without_instruction(str(row.prompt[-1]["content"]))


def _answer(row: TrainingRow) -> str:
    return str(row.completion[0]["content"])


def _page(rows: Sequence[TrainingRow]) -> RenderableType:
    table = [
        # A page to look through; `rows review` shows each whole.
        [r.row_id, r.origin, _verdict(r), clip(str(r.verdict or ""), 80), clip(_message(r), 300), clip(_answer(r), 300)]
        for r in rows[:60]
    ]
    return render.rows_table(["row", "origin", "verdict", "reason", "prompt", "completion"], table, exact=True)
