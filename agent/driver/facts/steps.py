"""Steps: how long they took against their estimate, what memory they needed, why they failed, the end of their log."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts.answer import Answer, Question, cite, clip, day, find, ordinary
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import ABANDONED, DECLINED, DONE, FAILED, PLANNED, RUNNING, STOPPED, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.pipeline import catalog

_LOG_LINES = 6
_BEGUN = (DONE, RUNNING, FAILED, STOPPED)
_NEVER_RAN = {PLANNED: "waits for a yes", DECLINED: "was declined", ABANDONED: "got no answer to its price"}


def answer(question: Question) -> Answer:
    """A step, or what is asked of all steps of a run. Raises NotFound."""
    query = question.query
    if query.step:
        return _one(question, question.store.step(query.step))
    if query.text == "beside":
        return _beside(question)
    if query.text == "memory":
        return _out_of_memory(question)
    if query.aspect == "why" and not query.stage:
        return _failures(question)
    if query.stage:
        step = _newest(question)
        told = _one(question, step) if step else _never(question)
        share = _share(question, step) if step and query.aspect == "duration" and not query.arm else ""
        lines = (share, *told.lines) if query.text == "share" else (*told.lines[:1], share, *told.lines[1:])
        return replace(told, lines=tuple(line for line in lines if line)[:6])
    return _all_of_a_run(question)


def _beside(question: Question) -> Answer:
    """Two stages beside each other: which took more memory or time."""
    query = question.query
    both = [
        step
        for stage in (query.stage, query.field)
        if (step := _newest(Question(query.model_copy(update={"stage": stage}), question.ws, question.current)))
    ]
    if len(both) < 2:
        return Answer(
            (f"Not both of {query.stage} and {query.field} ran yet, so they cannot be held beside each other.",)
        )
    peak = query.aspect == "peak"
    first, second = sorted(both, key=lambda s: (s.peak_rss_bytes if peak else s.seconds) or 0, reverse=True)
    told = {s.id: size(s.peak_rss_bytes) if peak else duration(s.seconds) for s in both}
    what = "more memory" if peak else "longer"
    together = "" if peak else f", {duration(sum(s.seconds or 0.0 for s in both))} together"
    return Answer((
        f"{_name(first)} took {what} than {_name(second)}: {told[first.id]} ({cite(first)}) against {told[second.id]} "
        f"({cite(second)}){together}.",
    ))  # fmt: skip


def _share(question: Question, step: Step) -> str:
    """What all steps of a stage took of their run's work; empty for a single one, unless the share was asked for."""
    steps = question.store.steps(step.run, status=DONE)
    same = [s.seconds or 0.0 for s in steps if s.stage == step.stage]
    whole = sum(s.seconds or 0.0 for s in steps)
    if not whole or (len(same) < 2 and question.query.text != "share"):
        return ""
    return (
        f"{step.stage} took {duration(sum(same))} of {duration(whole)} of work in {step.run} ({sum(same) / whole:.0%})."
    )


def _newest(question: Question) -> Step | None:
    """The newest step of the stage in the run that is meant; one that is done before one that was only begun."""
    query, store = question.query, question.store
    runs = [find(store, query.run)] if query.run else ([question.current] if question.current else []) + ordinary(store)
    runs += [] if query.run else [run for run in store.runs() if run not in runs]
    for status in ((FAILED, STOPPED), _BEGUN, _NEVER_RAN) if query.aspect == "why" else ((DONE,), _BEGUN, _NEVER_RAN):
        for run in runs:
            matching = [
                step for step in store.priced_steps(run.id)
                if step.stage == query.stage and step.status in status and query.arm in ("", step.arm)
            ]  # fmt: skip
            if matching:
                return matching[-1]
    return None


def _never(question: Question) -> Answer:
    query = question.query
    which = f"{query.stage} of the {query.arm} arm" if query.arm and query.stage == "evaluate" else query.stage
    if query.arm and query.stage != "evaluate":
        return answer(Question(query.model_copy(update={"arm": ""}), question.ws, question.current))
    where = f" in {question.run().id}" if query.run else ""
    return Answer((f"There is no {which} step{where} yet, so there is nothing to tell of it.",))


def _one(question: Question, step: Step) -> Answer:
    aspect = question.query.aspect
    if aspect == "log":
        return _log(question.store, step)
    lines = _lead(step, aspect)
    field, result = question.query.field, step.result or {}
    if field in result:
        lines.insert(0, f"{field.replace('_', ' ')} of {_name(step)}: {_plain(field, result[field])} ({cite(step)}).")
    if step.error:
        lines.append(f"Why: {clip(step.error, 400)}")
        lines += _log_end(question.store, step, 2) if aspect == "why" else []
    elif aspect == "why" and step.status == DONE:
        lines.insert(0, f"{_name(step)} ({cite(step)}) did not fail: it is done.")
    told = (
        "" if aspect == "estimate" else _times(step),
        "" if aspect in ("peak", "ram") else _memory(step),
        _outcome(step) or _passed(question.store, step),
        _settings(step),
    )
    lines += [line for line in told if line and line not in lines]
    return Answer(tuple(lines[:6]), lambda: render.run_table(show_run(question.store, step.run)))


def _name(step: Step) -> str:
    return f"{step.stage} of the {step.arm} arm" if step.stage == "evaluate" else step.stage


def _lead(step: Step, aspect: str) -> list[str]:
    """The line that holds what was asked."""
    where = f"({cite(step)})"
    if step.status == RUNNING:
        share = f", {step.done / step.total:.0%} done" if step.total else ""
        return [f"{_name(step)} {where} is running{share}; it was begun {day(step.started_at)}."]
    if step.status in _NEVER_RAN:
        state = _NEVER_RAN[step.status]
        return [f"{_name(step)} {where} {state} and never ran; estimated {duration(step.estimated_seconds)}."]
    if aspect in ("peak", "ram"):
        return [_memory(step)[:-1] + f" in {_name(step)} {where}."]
    if aspect == "when":
        return [f"{_name(step)} {where} began {day(step.started_at)} and ended {day(step.finished_at)}, {step.status}."]
    if aspect == "estimate":
        return [_estimate(step)]
    return [_times(step)]


def _times(step: Step) -> str:
    if step.seconds is None or step.status == RUNNING:
        return ""
    verb = "took" if step.status == DONE else f"{step.status} after"
    return (
        f"{_name(step)} {verb} {duration(step.seconds)} ({cite(step)}, {day(step.finished_at)}), "
        f"estimated {duration(step.estimated_seconds)}."
    )


def _estimate(step: Step) -> str:
    took, priced = step.seconds or 0.0, step.estimated_seconds
    off = (
        f", {abs(took - priced) / priced:.0%} {'longer' if took > priced else 'shorter'} than estimated"
        if priced
        else ""
    )
    return f"{_name(step)} was estimated at {duration(priced)} and took {duration(took)}{off} ({cite(step)})."


def _memory(step: Step) -> str:
    if not step.peak_rss_bytes:
        return ""
    vram = f", {size(step.peak_vram_bytes)} VRAM" if step.peak_vram_bytes else ""
    return f"Peak memory {size(step.peak_rss_bytes)}{vram}, estimated {size(step.estimated_peak_bytes)}."


def _outcome(step: Step) -> str:
    result = step.report
    parts = []
    for name in catalog.ENTRIES[step.stage].load().headline if step.stage in catalog.ENTRIES else ():
        if result.get(name) not in (None, ""):
            parts.append(f"{name.replace('_', ' ').removesuffix(' bytes')} {_plain(name, result[name])}")
    if isinstance(checks := result.get("checks"), list):
        passed = sum(bool(check.get("passed")) for check in checks)
        parts.append(f"{passed} of {len(checks)} checks passed")
    if isinstance(blocks := result.get("blocks"), dict):
        parts += [f"{block} {counts['passed']} of {counts['cases']}" for block, counts in blocks.items()]
    return f"Result: {', '.join(parts)}." if parts else ""


def _passed(store: Store, step: Step) -> str:
    """What passed of each block, of a step that asked cases."""
    blocks: dict[str, list[bool]] = {}
    for one in store.results(step.id, step.arm) if step.stage in ("evaluate", "baseline") else ():
        blocks.setdefault(one.block, []).extend([] if one.passed is None else [one.passed])
    told = ", ".join(f"{block} {sum(passed)} of {len(passed)}" for block, passed in blocks.items())
    return f"Result: {told}." if told else ""


def _plain(name: str, value: object) -> str:
    if name.startswith("bytes") and isinstance(value, int):
        return size(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return clip("; ".join(f"{key} {_plain('', held)}" for key, held in value.items()), 300)
    return f"{value:,}" if isinstance(value, int) else clip(value, 80)


def _settings(step: Step) -> str:
    asks = catalog.ENTRIES[step.stage].load().settable
    given = [f"{name} {step.request[name]}" for name in asks if step.request.get(name) not in (None, "", False, "auto")]
    return f"Asked for: {', '.join(given)}." if given else ""


def _log_file(store: Store, step: Step) -> Path:
    return store.home / "runs" / step.run / step.id / "worker.log"


def _log_end(store: Store, step: Step, lines: int) -> list[str]:
    try:
        with _log_file(store, step).open(errors="replace") as file:
            last = deque((line for line in file if line.strip()), maxlen=lines)
    except OSError:
        return []
    return [f"  {clip(line, 140)}" for line in last]


def _log(store: Store, step: Step) -> Answer:
    file = _log_file(store, step)
    end = _log_end(store, step, _LOG_LINES)
    if not end:
        return Answer((f"{_name(step)} ({cite(step)}) left no log in {file}.",))
    return Answer(
        (f"The end of the log of {_name(step)} ({cite(step)}), {file}:", *end), private=True, told=f"log of {step.id}"
    )


def _failures(question: Question) -> Answer:
    """What failed or stopped, the newest first: in the run that is named, else in all."""
    store, query = question.store, question.query
    runs = [find(store, query.run)] if query.run else store.runs()
    ended = [step for run in runs for step in reversed(store.steps(run.id)) if step.status in (FAILED, STOPPED)]
    if not ended:
        where = f"In {runs[0].id} ({clip(runs[0].name, 40)})" if query.run else "In all runs"
        lines = [f"{where} no step failed or was stopped."]
        if query.run:
            lines.append(_status_line(store, runs[0]))
        return Answer(tuple(lines))
    lines = [f"{_name(s)} ({cite(s)}) {s.status} after {duration(s.seconds)}: "
f"{clip(s.error or 'no reason', 300)}"
             for s in ended[:4]]  # fmt: skip
    lines += [f"{len(ended) - 4} more failed before."] if len(ended) > 4 else []
    if end := _log_end(store, ended[0], 2):
        lines += ["Its log ends:", *end]
    return Answer(tuple(lines[:7]))


_NO_MEMORY = re.compile(r"out of memory|\boom\b|memory|signal 9", re.IGNORECASE)


def _out_of_memory(question: Question) -> Answer:
    """Whether a step ended for want of memory, and what the steps took of it."""
    store, query = question.store, question.query
    runs = [find(store, query.run)] if query.run else ordinary(store)
    steps = [s for run in runs for s in reversed(store.steps(run.id)) if query.stage in ("", s.stage)]
    ended = [s for s in steps if s.status in (FAILED, STOPPED) and _NO_MEMORY.search(s.error or "")]
    if ended:
        first = f"{_name(ended[0])} ({cite(ended[0])}) may have: {ended[0].status}, {clip(ended[0].error, 200)}."
        return Answer((first, *([line] if (line := _memory(ended[0])) else [])))
    largest = max((s for s in steps if s.peak_rss_bytes), key=lambda s: s.peak_rss_bytes or 0, default=None)
    of = f" {query.stage}" if query.stage else ""
    first = f"No: no{of} step of {', '.join(run.id for run in runs[:4]) or 'any run'} ended for want of memory."
    return Answer((first, *([f"{_memory(largest)[:-1]} in {_name(largest)} ({cite(largest)})."] if largest else [])))


def _status_line(store: Store, run: Run) -> str:
    took = duration(sum(step.seconds or 0.0 for step in store.steps(run.id)))
    return f"{run.id} is {store.status_words(run)}; {store.step_counts(run.id)} steps done, {took} of work in all."


def _slower(run: Run, steps: Sequence[Step]) -> list[str]:
    """The steps that took longer than they were priced at, by how much."""
    over = sorted(
        (s for s in steps if (s.seconds or 0) > s.estimated_seconds),
        key=lambda s: (s.seconds or 0) - s.estimated_seconds,
        reverse=True,
    )
    if not over:
        return [f"None of the {len(steps)} steps of {run.id} took longer than estimated."]
    return [f"{len(over)} of the {len(steps)} steps of {run.id} took longer than estimated:",
            *(f"  {_estimate(s)}" for s in over[:5])]  # fmt: skip


def _all_of_a_run(question: Question) -> Answer:
    """Which step took longest or most memory, how good the estimates were, the sum."""
    store, aspect = question.store, question.query.aspect
    run = question.run()
    steps = [step for step in store.steps(run.id) if step.seconds is not None]
    if not steps:
        raise NotFound(f"{run.id} has no finished step yet.")

    def page() -> RenderableType:
        return render.run_table(show_run(store, run.id))

    if aspect in ("peak", "ram"):
        largest = sorted(steps, key=lambda s: s.peak_rss_bytes or 0, reverse=True)
        first = (
            f"{_name(largest[0])} took the most memory of {run.id}: "
            f"{size(largest[0].peak_rss_bytes)} ({largest[0].id})."
        )
        return Answer((first, *(f"  {_name(s)} ({s.id}): {size(s.peak_rss_bytes)}" for s in largest[1:5])), page)
    if aspect == "estimate":
        if question.query.text == "slower":
            return Answer(tuple(_slower(run, steps)), page)
        total, priced = sum(s.seconds or 0 for s in steps), sum(s.estimated_seconds for s in steps)
        worst = sorted(steps, key=lambda s: abs((s.seconds or 0) - s.estimated_seconds), reverse=True)[:4]
        first = f"{run.id} was estimated at {duration(priced)} in all and took {duration(total)}; furthest off:"
        return Answer((first, *(f"  {_estimate(s)}" for s in worst)), page)
    by_time = sorted(steps, key=lambda s: s.seconds or 0, reverse=True)
    if aspect == "longest":
        first = f"{_name(by_time[0])} took longest in {run.id}: {duration(by_time[0].seconds)} ({by_time[0].id})."
        return Answer((first, *(f"  then {_name(s)} ({s.id}): {duration(s.seconds)}" for s in by_time[1:5])), page)
    total = sum(s.seconds or 0.0 for s in steps)
    first = f"{run.id} ({clip(run.name, 40)}) took {duration(total)} of work in all, {len(steps)} steps; the longest:"
    return Answer((first, *(f"  {_name(s)} ({s.id}): {duration(s.seconds)}" for s in by_time[:4])), page)
