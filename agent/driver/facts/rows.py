"""Training rows: how many of which origin and verdict, why some were dropped, and the rows themselves on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts.answer import Answer, Question, clip, counted, without_instruction
from tunesmith.agent.driver.facts.cases import matching
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run, Step, TrainingRow
from tunesmith.tools.data.held_out import masked

_SHOWN = 4


def answer(question: Question) -> Answer:
    """The rows of a run, as far as verdict, origin, reason and text were named. Raises NotFound without any."""
    query = question.query
    run = question.run(with_stage="generate")
    made = [step for step in question.store.steps(run.id, status=DONE) if step.stage == "generate"]
    if not made:
        raise NotFound(f"{run.id} has no training rows yet; “generate” makes them.")
    rows = [masked(row) for row in question.store.rows(made[-1].id)]
    if query.aspect == "longest":
        return _at_the_end(question, run, rows)
    chosen = _chosen(question, rows)
    if query.aspect == "list" or query.text:
        return _shown(question, run, chosen)

    def page() -> RenderableType:
        return _page(chosen)

    if query.aspect == "why":
        kept = _counts(question, run, rows, chosen)[:1] if query.verdict == "keep" else []
        return Answer(
            (*kept, *_reasons(run, rows), *_samples(question, chosen)),
            page,
            private=True,
            told=" ".join(_reasons(run, rows)),
        )
    return Answer(tuple(_counts(question, run, rows, chosen)), page)


def _at_the_end(question: Question, run: Run, rows: Sequence[TrainingRow]) -> Answer:
    """The longest rows, or the shortest, by the characters of message and answer."""
    wanted = [r for r in rows if question.query.verdict in ("", _verdict(r))]
    lengths = {r.row_id: len(_message(r)) + len(str(r.completion[0]["content"])) for r in wanted}
    ranked = sorted(wanted, key=lambda r: lengths[r.row_id], reverse=question.query.field == "longest")
    if not ranked:
        raise NotFound(f"{run.id} has no such rows.")
    if question.query.field not in ("longest", "shortest"):
        among = sorted(lengths.values())
        return Answer((
            f"A row of {run.id} has {sum(among) / len(among):.0f} characters on average, message and answer together; "
            f"the median is {among[len(among) // 2]}, the longest {among[-1]}, of {len(among)} rows.",
        ))  # fmt: skip
    first = f"The {question.query.field} row of {run.id} is {ranked[0].row_id}: {lengths[ranked[0].row_id]} characters."
    lines = [f"  {r.row_id} ({lengths[r.row_id]}): “{clip(_message(r), 110)}”" for r in ranked[:3]]
    return Answer((first, *lines), lambda: _page(ranked), private=True, told=first)


def _chosen(question: Question, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    query = question.query
    chosen = [r for r in rows if query.verdict in ("", _verdict(r)) and query.origin in ("", r.origin)]
    if query.field in ("train", "valid"):  # which part of the split
        chosen = [r for r in chosen if r.split == query.field and r.kept]
    if query.field not in ("", "train", "valid"):
        chosen = [r for r in chosen if r.dropped and (query.field in _kind(r) or _kind(r) in query.field)]
    return chosen


def _verdict(row: TrainingRow) -> str:
    return "keep" if row.kept else "drop" if row.dropped else "not judged yet"


def _reason(row: TrainingRow) -> str:
    """Why a row was dropped, kind first."""
    return str(row.verdict) if row.verdict else ""


def _counts(question: Question, run: Run, rows: Sequence[TrainingRow], chosen: Sequence[TrainingRow]) -> list[str]:
    query = question.query
    by = Counter((r.origin, _verdict(r)) for r in rows)
    kept = [r for r in rows if r.kept]
    first = []
    if query.verdict or query.origin or query.field:
        verdict = {"keep": "kept", "drop": "dropped", "": ""}[query.verdict]
        part = {"train": "to train on", "valid": "held out for the validation loss", "": ""}.get(
            query.field, f"as {query.field}"
        )
        verdict = verdict or {"": "made", "train": "kept", "valid": "kept"}.get(query.field, "dropped")
        became = " ".join(word for word in (verdict, part) if word)
        name = counted(len(chosen), f"{query.origin} row" if query.origin else "row")
        verb = "was" if len(chosen) == 1 else "were"
        first = [f"In {run.id} {name} {verb} {became}, of {len(rows)} candidates."]
    origins = Counter(r.origin for r in rows)
    sources = ", ".join(f"{count} {origin}" for origin, count in origins.items())
    lines = [
        *first,
        f"{run.id} has {len(rows)} candidate rows ({sources}); {len(kept)} were kept, "
        f"{sum(r.dropped for r in rows)} dropped.",
    ]
    if kept:
        parts = Counter(r.split for r in kept)
        each = ", ".join(f"{by[origin, 'keep']} {origin}" for origin in origins)
        lines.append(f"Of the kept: {each}; {parts['train']} to train on, {parts['valid']} held out for validation.")
    if any(r.dropped for r in rows):
        lines += _reasons(run, rows)[:1]
    judged = _critique(question, run)
    if judged and isinstance(judged.result, dict) and "train_rows" in judged.result:
        lines.append(
            f"critique ({judged.id}) counts {judged.result['train_rows']} rows to train on, "
            f"{judged.result.get('valid_rows')} to validate."
        )
    return lines


def _critique(question: Question, run: Run) -> Step | None:
    critiques = [step for step in question.store.steps(run.id, status=DONE) if step.stage == "critique"]
    return critiques[-1] if critiques else None


def _kind(row: TrainingRow) -> str:
    return clip(row.verdict.kind, 60) if row.verdict else "no reason recorded"


def _reasons(run: Run, rows: Sequence[TrainingRow]) -> list[str]:
    dropped = [row for row in rows if row.dropped]
    if not dropped:
        return [f"No row of {run.id} was dropped."]
    kinds = Counter(_kind(row) for row in dropped)
    return [
        f"{run.id}: {counted(len(dropped), 'row')} dropped: "
        + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(7))
        + "."
    ]


def _samples(question: Question, chosen: Sequence[TrainingRow]) -> list[str]:
    dropped = [row for row in chosen if row.dropped]
    one_of_each = list({_kind(row): row for row in reversed(dropped)}.values())[:3]
    return [f"  {row.row_id}: “{clip(_message(row), 70)}”: {clip(_reason(row), 90)}" for row in one_of_each]


def _message(row: TrainingRow) -> str:
    return without_instruction(str(row.prompt[-1]["content"]))


def _shown(question: Question, run: Run, chosen: Sequence[TrainingRow]) -> Answer:
    query = question.query
    if query.text:
        texts = {row.row_id: f"{_message(row)} {row.completion[0]['content']} {_reason(row)}" for row in chosen}
        if exact := [r for r in chosen if r.row_id == query.text]:
            return _one_row(run, exact[0])
        plain = [r for r in chosen if query.text.lower() in texts[r.row_id].lower()]
        ids = matching(query.text, texts)
        chosen = plain or [row for row in chosen if row.row_id in ids]
        if not chosen:
            return Answer((f"No such row of {run.id} speaks of “{clip(query.text, 60)}”.",))
    verdict = {"keep": "kept ", "drop": "dropped "}.get(query.verdict, "")
    origin = f"{query.origin} " if query.origin else ""
    named = f" with “{clip(query.text, 40)}”" if query.text else ""
    first = f"{len(chosen)} {verdict}{origin}rows of {run.id}{named}; {min(len(chosen), _SHOWN)} of them:"
    shown = chosen if query.verdict or query.origin or query.text else [r for r in chosen if r.origin == "generated"]
    lines = [first]
    for row in shown[:_SHOWN]:
        mark = f" (dropped: {clip(_reason(row), 60)})" if row.dropped else ""
        lines.append(f"  {row.row_id}{mark}: “{clip(_message(row), 100)}”")
        lines.append(f"    → “{clip(row.completion[0]['content'], 105)}”")
    return Answer(tuple(lines), lambda: _page(chosen), private=True, told=first)


def _one_row(run: Run, row: TrainingRow) -> Answer:
    """One row: what became of it and why, and the row."""
    became = (
        f"was dropped: {clip(_reason(row), 160)}" if row.dropped else "was kept" if row.kept else "is not judged yet"
    )
    first = f"Row {row.row_id} of {run.id} ({row.origin}) {became}."
    lines = (first, f"  “{clip(_message(row), 300)}”", f"    → “{clip(row.completion[0]['content'], 300)}”")
    return Answer(lines, private=True, told=first)


def _page(rows: Sequence[TrainingRow]) -> RenderableType:
    table = [
        [
            r.row_id,
            r.origin,
            _verdict(r),
            clip(_reason(r), 80),
            clip(_message(r), 300),
            clip(r.completion[0]["content"], 300),
        ]
        for r in rows[:60]
    ]
    return render.rows_table(["row", "origin", "verdict", "reason", "prompt", "completion"], table, exact=True)
