"""The steps of a run together: the longest, the one with most memory, how good the estimates were, what failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import Answer, Context, cite, clip, find, named, ordinary
from tunesmith.agent.queries.base import Query, RunName, StageName
from tunesmith.agent.queries.steps import estimate_of, facts_of, log_end, memory_of, name_of
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import FAILED, STOPPED, Run, Step
from tunesmith.tools.core.format import duration, size

_NO_MEMORY = re.compile(r"out of memory|\boom\b|memory|signal 9", re.IGNORECASE)
"""In the errors that our workers and the libraries below them write."""


class StepsQuery(Query):
    """The steps of a run together: what all took, which took longest or most memory, how good the estimates were, which
    took longer than estimated; what failed, or ran out of memory, in a run or in all."""

    kind: Literal["steps"] = "steps"
    about: Literal["time", "longest", "memory", "estimates", "late", "failures", "out_of_memory"] = "time"
    run: RunName = ""
    stage: StageName = ""


def answer(query: StepsQuery, context: Context) -> Answer:
    """What is asked of all steps of a run; failures of every run where none is named. Raises NotFound."""
    if query.about == "failures":
        return _failures(query, context)
    if query.about == "out_of_memory":
        return _out_of_memory(query, context)
    store, run = context.store, context.run(query.run)
    steps = [s for s in store.steps(run.id) if s.seconds is not None and query.stage in ("", s.stage)]
    if not steps:
        raise NotFound(f"{run.id} has no finished {query.stage or 'step'} yet.")
    lines = {"memory": _memory, "estimates": _estimates, "late": _late, "longest": _longest}.get(query.about, _time)

    def page() -> RenderableType:
        return render.run_table(show_run(store, run.id))

    return Answer(tuple(lines(run, steps)), tuple(facts_of(step) for step in steps), page)


def _time(run: Run, steps: Sequence[Step]) -> list[str]:
    total = sum(s.seconds or 0.0 for s in steps)
    first = f"{named(run)} took {duration(total)} of work in all, {len(steps)} steps; the longest:"
    return [first, *(f"  {name_of(s)} ({s.id}): {duration(s.seconds)}" for s in _by_time(steps)[:4])]


def _by_time(steps: Sequence[Step]) -> list[Step]:
    return sorted(steps, key=lambda s: s.seconds or 0, reverse=True)


def _longest(run: Run, steps: Sequence[Step]) -> list[str]:
    first, *rest = _by_time(steps)
    return [f"{name_of(first)} took longest in {run.id}: {duration(first.seconds)} ({first.id}).",
            *(f"  then {name_of(s)} ({s.id}): {duration(s.seconds)}" for s in rest[:4])]  # fmt: skip


def _memory(run: Run, steps: Sequence[Step]) -> list[str]:
    first, *rest = sorted(steps, key=lambda s: s.peak_rss_bytes or 0, reverse=True)
    return [f"{name_of(first)} took the most memory of {run.id}: {size(first.peak_rss_bytes)} ({first.id}).",
            *(f"  {name_of(s)} ({s.id}): {size(s.peak_rss_bytes)}" for s in rest[:4])]  # fmt: skip


def _estimates(run: Run, steps: Sequence[Step]) -> list[str]:
    total, priced = sum(s.seconds or 0 for s in steps), sum(s.estimated_seconds for s in steps)
    worst = sorted(steps, key=lambda s: abs((s.seconds or 0) - s.estimated_seconds), reverse=True)[:4]
    first = f"{run.id} was estimated at {duration(priced)} in all and took {duration(total)}; furthest off:"
    return [first, *(f"  {estimate_of(s)}" for s in worst)]


def _late(run: Run, steps: Sequence[Step]) -> list[str]:
    over = [s for s in steps if (s.seconds or 0) > s.estimated_seconds]
    if not over:
        return [f"None of the {len(steps)} steps of {run.id} took longer than estimated."]
    over.sort(key=lambda s: (s.seconds or 0) - s.estimated_seconds, reverse=True)
    first = f"{len(over)} of the {len(steps)} steps of {run.id} took longer than estimated:"
    return [first, *(f"  {estimate_of(s)}" for s in over[:5])]


def _failures(query: StepsQuery, context: Context) -> Answer:
    """What failed or stopped, the newest first."""
    store = context.store
    runs = [find(store, query.run)] if query.run else store.runs()
    ended = [
        step for run in runs for step in reversed(store.steps(run.id))
        if step.status in (FAILED, STOPPED) and query.stage in ("", step.stage)
    ]  # fmt: skip
    if not ended:
        where, of = f"In {named(runs[0])}" if query.run else "In all runs", f"{query.stage} " if query.stage else ""
        lines = [f"{where} no {of}step failed or was stopped."]
        for run in runs[:1] if query.run else ():
            took = duration(sum(step.seconds or 0.0 for step in store.steps(run.id)))
            lines.append(
                f"{run.id} is {store.status_words(run)}; {store.step_counts(run.id)} steps done, {took} in all."
            )
        return Answer(tuple(lines))
    lines = [
        f"{name_of(s)} ({cite(s)}) {s.status} after {duration(s.seconds)}: {clip(s.error or 'no reason', 300)}"
        for s in ended[:4]
    ]
    lines += [f"{len(ended) - 4} more failed before."] if len(ended) > 4 else []
    end = log_end(store, ended[0], 2)
    facts = tuple(facts_of(step) for step in ended[:8])
    if not end:
        return Answer(tuple(lines), facts)
    return Answer((*lines, "Its log ends:", *end), facts, private=True, open_words="\n".join(lines))


def _out_of_memory(query: StepsQuery, context: Context) -> Answer:
    """Whether a step ended for want of memory, and what the steps took of it."""
    store = context.store
    runs = [find(store, query.run)] if query.run else ordinary(store)
    steps = [s for run in runs for s in reversed(store.steps(run.id)) if query.stage in ("", s.stage)]
    ended = [s for s in steps if s.status in (FAILED, STOPPED) and _NO_MEMORY.search(s.error or "")]
    if ended:
        first = f"{name_of(ended[0])} ({cite(ended[0])}) may have: {ended[0].status}, {clip(ended[0].error, 200)}."
        return Answer(tuple(line for line in (first, memory_of(ended[0])) if line), (facts_of(ended[0]),))
    of, where = f" {query.stage}" if query.stage else "", ", ".join(run.id for run in runs[:4]) or "any run"
    lines = [f"No: no{of} step of {where} ended for want of memory."]
    measured = [s for s in steps if s.peak_rss_bytes]
    if measured:
        largest = max(measured, key=lambda s: s.peak_rss_bytes or 0)
        lines.append(f"{memory_of(largest)[:-1]} in {name_of(largest)} ({cite(largest)}).")
    return Answer(tuple(lines), tuple(facts_of(step) for step in measured[:8]))
