"""Training rows: how many of which origin and verdict, why some were dropped, and their texts on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Context, cite, clip, without_instruction
from tunesmith.agent.queries.facts import MOST_SHOWN, Fact, Most, Query, Recorded, Result, RunName
from tunesmith.memory.errors import NotFound
from tunesmith.memory.marks import marks_in
from tunesmith.memory.records import DONE, RUNNING, Run, Step, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed
from tunesmith.tools.data.held_out import masked
from tunesmith.tools.data.rows import ORDINARY
from tunesmith.tools.pipeline import catalog

_SAMPLE = 4
Verdict = Annotated[Literal["", "keep", "drop"], Field(description="empty: both")]
Origin = Annotated[
    Literal["", "generated", "rehearsal", "near_miss", "imported", "example"], Field(description="empty: all")
]


class RowsQuery(Query):
    """Training rows by origin: kept, dropped and why, train, validate; how long they are."""

    kind: Literal["rows"] = "rows"
    examples: Literal["", "sample", "longest", "shortest"] = ""
    run: RunName = ""
    verdict: Verdict = ""
    origin: Origin = ""
    split: Annotated[Literal["", "train", "valid"], Field(description="Of the kept")] = ""
    reason: Annotated[Recorded, Field(description="Of the dropped, such as leak")] = ""
    most: Most = 0
    skip: Annotated[int, Field(ge=0, description="Shown before")] = 0


class RowQuery(Query):
    """Training rows by id or words: what became of each."""

    kind: Literal["row"] = "row"
    row: Annotated[str, Field(description="Its id, or words")]
    run: RunName = ""
    verdict: Verdict = ""
    origin: Origin = ""


def answer(query: RowsQuery, context: Context) -> Result:
    """The rows of a run, as far as verdict, origin, split and reason were named. Raises NotFound without any."""
    run, step, rows = _rows_of(context, query.run)
    chosen = _chosen(query, rows)
    if query.split:
        chosen = [row for row in chosen if row.split == query.split and row.usable]
    if query.reason:
        chosen = [row for row in chosen if row.dropped and query.reason in _kind(row)]
    if not chosen:
        there = (Counter(row.origin for row in rows), Counter(_kind(row) for row in rows if row.dropped))
        each = listed([f"{number} {name}" for one in there for name, number in one.items()])
        raise NotFound(f"{run.id} has no such rows; of its {len(rows)} are: {each}.")
    origins = [*dict.fromkeys(row.origin for row in chosen)]
    facts = [_counted(origin, [row for row in chosen if row.origin == origin]) for origin in origins]
    facts += [_counted("all", chosen)] if len(origins) > 1 else []
    named = {name: getattr(query, name) for name in ("verdict", "origin", "split", "reason")}
    subset = {"subset": f"{len(chosen)} of {len(rows)} rows", **named} if any(named.values()) else {}
    critique: Mapping[str, Any] = next(
        (s.report for s in reversed(context.store.steps(run.id, status=DONE)) if s.stage == "critique"), {}
    )
    marked = {"rows_marked_by_a_person": len(marks_in(context.store, step.id))}
    most = query.most or (_SAMPLE if query.examples or query.skip else 0)
    return Result(
        tuple(facts),
        {"run": run.id, "step": step.id, **marked, "kept_by_value": critique.get("balance"), **subset},
        says=tuple(said for name in ("alarms", "notes") for said in critique.get(name, ())),
        texts=_texts(_in_order(query.examples, chosen)[query.skip :]) if most else (),
        most=most,
        left_out=_hidden(chosen) if most else {},
    )


def find_rows(query: RowQuery, context: Context) -> Result:
    """The row of an id, else those that hold all of some words. Raises NotFound where the run has none."""
    run, step, rows = _rows_of(context, query.run)
    words, chosen = query.row.lower().split(), _chosen(query, rows)
    found = [row for row in chosen if row.row_id == query.row] or [
        row for row in chosen if all(word in f"{_message(row)} {row.answer}".lower() for word in words)
    ]
    if not found:
        ids = listed([row.row_id for row in rows], 3)
        raise NotFound(f"None of {len(chosen)} rows of {run.id} is {clip(query.row, 60)} or holds it; rows are {ids}.")
    of = {"run": run.id, "step": step.id, "subset": f"{len(found)} of {len(rows)} rows"}
    more = {"rows": len(found) - MOST_SHOWN} if len(found) > MOST_SHOWN else {}
    facts = tuple(map(_known, found[:MOST_SHOWN]))
    return Result(facts, of, texts=_texts(found), left_out={**more, **_hidden(found)})


def _rows_of(context: Context, name: str) -> tuple[Run, Step, list[TrainingRow]]:
    """The run with the step that wrote its rows last: a blind case that was one of them has no text here."""
    run, store = context.run(name), context.store
    having = [one for one in ([run] if name else context.runs()) if _writers(store, one, DONE)]
    if not having and (writing := _writers(store, run, RUNNING)):
        raise NotFound(f"{run.id} is writing its rows; ask when {cite(writing[0])} has ended.")
    if not having:
        raise NotFound(f"{run.id} has no training rows yet; “generate” or “import” makes them.")
    step = _writers(store, having[0], DONE)[-1]
    return having[0], step, [masked(row) for row in store.rows(step.id)]


def _writers(store: Store, run: Run, status: str) -> list[Step]:
    return [step for step in store.steps(run.id, status=status) if catalog.ENTRIES[step.stage].makes == "rows"]


def _chosen(query: RowsQuery | RowQuery, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows of an origin and a verdict; those of the behaviour come before the ordinary ones."""
    chosen = [row for row in rows if query.origin in ("", row.origin)]
    if query.verdict:
        chosen = [row for row in chosen if (row.usable if query.verdict == "keep" else row.dropped)]
    return sorted(chosen, key=lambda row: row.origin in ORDINARY)


def _in_order(examples: str, rows: list[TrainingRow]) -> list[TrainingRow]:
    by_length = examples in ("longest", "shortest")
    return sorted(rows, key=_characters, reverse=examples == "longest") if by_length else rows


def _counted(origin: str, rows: Sequence[TrainingRow]) -> Fact:
    """So many rows in figures; a length is of message and answer together."""
    usable = Counter(row.split for row in rows if row.usable)
    dropped = Counter(_kind(row) for row in rows if row.dropped)
    lengths = sorted(map(_characters, rows))
    return {
        "origin": origin, "candidates": len(rows), "kept": usable.total(), "train": usable["train"],
        "validation": usable["valid"], "dropped": dropped.total(), "dropped_for": dict(dropped.most_common()),
        "not_judged": len(rows) - usable.total() - dropped.total() or None,
        "median_characters": lengths[len(lengths) // 2], "longest_characters": lengths[-1],
        "most_words": max(len(f"{_message(row)} {row.answer}".split()) for row in rows),
    }  # fmt: skip


def _hidden(rows: Sequence[TrainingRow]) -> dict[str, int]:
    hidden = sum(row.attributes.hidden for row in rows)
    return {"blind cases": hidden} if hidden else {}


def _texts(rows: Sequence[TrainingRow]) -> tuple[Fact, ...]:
    """What the screen shows of rows: none is a blind case."""
    return tuple(
        {**_known(row), "because": row.verdict.reason if row.verdict else "", "message": _message(row),
         "answer": row.answer}
        for row in rows if not row.attributes.hidden
    )  # fmt: skip


def _known(row: TrainingRow) -> Fact:
    return {"row": row.row_id, "origin": row.origin, "became": _became(row)}


def _kind(row: TrainingRow) -> str:
    return clip(row.verdict.kind, 60) if row.verdict else ""


def _became(row: TrainingRow) -> str:
    kept = {"train": "kept, to train on", "valid": "kept, for validation"}.get(row.split, "kept")
    return kept if row.usable else f"dropped: {_kind(row)}" if row.dropped else "not judged yet"


def _message(row: TrainingRow) -> str:
    return without_instruction(str(row.prompt[-1]["content"]))


def _characters(row: TrainingRow) -> int:
    return len(_message(row)) + len(row.answer)
