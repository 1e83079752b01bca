"""One figure of every run, ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, Context, clip, named, ordinary
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Query, Recorded, StageName
from tunesmith.agent.queries.comparisons import KEPT, forgot_more, lost_of
from tunesmith.agent.queries.settings import value_in
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, size

_MOST_RUNS = 4
"""An answer is a few lines of a terminal; a page behind it has all."""


class AcrossQuery(Query):
    """One figure of every run, ranked: which run passes most, forgot most, took longest, used most memory, had most
    rows."""

    kind: Literal["across"] = "across"
    figure: Literal["pass_rate", "forgotten", "loss", "memory", "time", "rows", "size", "setting"] = "pass_rate"
    field: Annotated[Recorded, Field(description="For setting: its name")] = ""
    order: Literal["most", "least"] = "most"
    stage: StageName = ""
    arm: AnyArm = ""
    block: Annotated[AnyBlock, Field(description="For pass_rate; empty: target")] = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a run: a number, or a text that has no order."""

    run: str
    value: float | str
    words: str
    source: str = ""
    """The step that it comes from."""

    def __str__(self) -> str:
        return f"{self.words} ({self.source})" if self.source else self.words


Measure = Callable[[AcrossQuery, Store, Run], Figure | None]


def answer(query: AcrossQuery, context: Context) -> Answer:
    """The run that has most of it, or least, and the others behind it. Raises NotFound where no run has the figure."""
    runs = {run.id: run for run in ordinary(context.store)}
    what, measure = _what(query), _MEASURES[query.figure]
    figures = [one for run in runs.values() if (one := measure(query, context.store, run)) is not None]
    if not figures:
        raise NotFound(f"No run has {what} that could be told.")
    names = {one.run: named(runs[one.run], 30) for one in figures}
    numbers = [one for one in figures if isinstance(one.value, int | float)]
    ranked = sorted(figures, key=lambda one: one.value, reverse=query.order == "most") if len(numbers) == len(figures) \
        else figures  # fmt: skip
    if len(figures) == 1:
        return Answer((f"Only {names[figures[0].run]} has {what}: {figures[0]}.",), tuple(figures))
    if len({one.words for one in figures}) == 1:
        first = f"The {len(figures)} runs are alike in {what}: {figures[0]}."
    elif ranked is figures:  # texts, which nothing ranks
        first = f"The {len(figures)} runs differ in {what}:"
    else:
        first = f"{names[ranked[0].run]} has the {query.order}, {what}: {ranked[0]}."
    lines = [first, *(f"  {names[one.run]}: {one}" for one in ranked[:_MOST_RUNS])]
    lines += [f"  {count(len(ranked) - _MOST_RUNS, 'run')} more."] if len(ranked) > _MOST_RUNS else []
    if query.figure == "forgotten" and len(ranked) == 2:
        first_run, second_run = (runs[figure.run] for figure in ranked)
        lines += forgot_more(context.store, first_run, second_run, query.block).lines[:1]
    if query.figure == "pass_rate":
        lines.append("  Runs of other behaviours have other cases, so their rates are not comparable.")
    return Answer(tuple(lines), tuple(ranked))


def _what(query: AcrossQuery) -> str:
    of_stage = f" of {query.stage}" if query.stage else ""
    return {
        "setting": query.field,
        "loss": "the validation loss",
        "memory": f"the highest memory{of_stage}",
        "time": f"the time{of_stage}",
        "rows": "rows that were kept to train on",
        "forgotten": f"cases of {query.block or ' and '.join(KEPT)} that the base passes and the newest model fails",
        "size": f"files{f' of the {query.arm} model' if query.arm else ''}",
        "pass_rate": f"what passes of the {query.block or 'target'} block{f' with {query.arm}' if query.arm else ''}",
    }[query.figure]


def _setting(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    value = value_in(store, run, query.field, query.stage)
    if value is None or value == "":
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # a number was told apart on the line above
    return Figure(run.id, value if number else str(value), clip(value, 80))  # type: ignore[arg-type]


def _loss(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    trained = [step for step in store.steps(run.id, status=DONE) if step.stage == "train"]
    after = trained[-1].report.get("validation_loss") if trained else None
    if trained and after is None and (logged := store.metrics(trained[-1].id, "validation_loss")):
        after = logged[-1][1]
    return Figure(run.id, after, f"{after:.3f}", trained[-1].id) if isinstance(after, float) else None


def _memory(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    steps = [s for s in store.steps(run.id) if s.peak_rss_bytes and query.stage in ("", s.stage)]
    if not steps:
        return None
    top = max(steps, key=lambda step: step.peak_rss_bytes or 0)
    peak = top.peak_rss_bytes or 0
    return Figure(run.id, peak, size(peak), f"{top.stage}, {top.id}")


def _time(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    steps = [s for s in store.steps(run.id, status=DONE) if query.stage in ("", s.stage)]
    seconds = sum(step.seconds or 0.0 for step in steps)
    # the newest
    return Figure(run.id, seconds, duration(seconds), ", ".join(s.id for s in steps[-3:])) if steps else None


def _rows(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    generated = [step for step in store.steps(run.id, status=DONE) if step.stage == "generate"]
    usable = [row for row in store.rows(generated[-1].id) if row.usable] if generated else []
    trained = sum(row.split == "train" for row in usable)
    return Figure(run.id, trained, f"{trained:,} to train on of {len(usable):,} kept") if generated else None


def _size(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    artifacts = store.artifacts(run.id, query.arm or None)
    total = artifacts[-1].bytes if artifacts and query.arm else sum(artifact.bytes for artifact in artifacts)
    return Figure(run.id, total, size(total)) if artifacts else None


def _rate(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    block = query.block or "target"
    measured = [s for s in scores.of_run(store, run.id) if s.block == block and s.judged]
    chosen = [s for s in measured if query.arm in ("", s.arm)]
    tuned = [s for s in chosen if s.arm in scores.TUNED] or chosen
    return Figure(run.id, tuned[-1].rate, f"{tuned[-1].arm} {tuned[-1]}") if tuned else None


def _forgotten(query: AcrossQuery, store: Store, run: Run) -> Figure | None:
    of_run, lost = lost_of(store, run, (query.block,) if query.block else KEPT)
    return Figure(run.id, of_run.lost / (of_run.passed_by_base or 1), str(of_run)) if lost else None


_MEASURES: Mapping[str, Measure] = {
    "setting": _setting, "loss": _loss, "memory": _memory, "time": _time, "rows": _rows, "size": _size,
    "pass_rate": _rate, "forgotten": _forgotten,
}  # fmt: skip
