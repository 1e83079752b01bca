"""One step: time against its estimate, memory, why it failed, its log, its recorded numbers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import Answer, Context, cite, clip, day, find, ordinary, reached
from tunesmith.agent.queries.arguments import AnyArm, Query, Recorded, RunName, StageName, StepName
from tunesmith.agent.queries.prices import how_it_goes_on, not_tested
from tunesmith.memory.errors import NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import ABANDONED, DECLINED, DONE, FAILED, PLANNED, RUNNING, STOPPED, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.progress import is_current

_LOG_LINES = 6
"""The end tells why; the file, which is named, has the rest."""
BEGUN = (DONE, RUNNING, FAILED, STOPPED)
_NOT_KNOWN_BY_WHOM = " Who or what sent that signal is not recorded; the system itself does where memory runs out."
_NEVER_RAN = {PLANNED: "waits for a yes", DECLINED: "was declined", ABANDONED: "got no answer to its price"}


class StepQuery(Query):
    """One step: what it came to, its time, memory, dates, estimate, share of the run's work, why it failed, its log."""

    kind: Literal["step"] = "step"
    about: Literal["outcome", "time", "estimate", "memory", "dates", "failure", "share", "log"] = "outcome"
    step: StepName = ""
    stage: StageName = ""
    run: RunName = ""
    arm: AnyArm = ""
    other_stage: Annotated[
        Recorded, Field(description="A stage whose time or memory is set against the first one's")
    ] = ""


def facts_of(step: Step) -> Mapping[str, object]:
    """A step in figures, as its record tells it: seconds, bytes and what was estimated."""
    own = picked(
        step, "run", "stage", "status", "seconds", "estimated_seconds", "peak_rss_bytes", "peak_vram_bytes",
        "estimated_peak_bytes", "started_at", "finished_at",
    )  # fmt: skip
    return {"step": step.id, "arm": step.arm or "", **own}


def answer(query: StepQuery, context: Context) -> Answer:
    """The step that is meant: by its id, else the newest of its stage. Raises NotFound for an unknown id."""
    store = context.store
    step = store.step(query.step) if query.step else _newest(query, context, query.stage, query.arm)
    if step is None:
        sought = f"{query.stage} of the {query.arm} arm" if query.arm else query.stage or "such"
        where = f" in {context.run(query.run).id}" if query.run else ""
        return Answer((f"There is no {sought} step{where} yet, so there is nothing to tell of it.",))
    if query.other_stage:
        other = _newest(query, context, query.other_stage, "")
        return _two(query, step, other)
    if query.about == "log":
        return _log(store, step)
    share = _share(store, step, query.about == "share") if query.about in ("time", "share") and not query.arm else ""
    lines = _lead(query, step, store.home)
    if step.error:
        sent = _NOT_KNOWN_BY_WHOM if query.about == "failure" and "(signal 9)" in step.error else ""
        lines.append(f"Why: {clip(step.error, 400).rstrip('.')}.{sent}{reached(step)}")
        lines.append(how_it_goes_on(context.ws, step))
    elif query.about == "failure" and step.status == DONE:
        lines.insert(0, f"{name_of(step)} ({cite(step)}) did not fail: it is done.")
    lines.insert(0 if query.about == "share" else 1, share)
    if query.about == "dates" and not (query.run or query.step) and (later := _later(store, step)):
        lines.insert(1, f"The newest: {_lead(query, later, store.home)[0]}")
    lines += [
        "" if query.about == "estimate" else _times(step),
        "" if query.about == "memory" else memory_of(step),
        _outcome(step) or _passed(store, step),
        untested_by(context, step) if query.about == "outcome" else "",
        _settings(step),
    ]
    if step.status == RUNNING and query.about in ("outcome", "time"):
        lines[:1] = [at_work(step)]
    lines = [line for line in dict.fromkeys(lines) if line][:6]  # a screen's worth: the first say most
    end = log_end(store, step, 2) if query.about == "failure" and step.error else []
    return Answer(
        (*lines, *(["Its log ends:", *end] if end else [])),
        (facts_of(step),),
        lambda: render.run_table(show_run(store, step.run)),
        private=bool(end),
        open_words="\n".join(lines),
    )


def _newest(query: StepQuery, context: Context, stage: str, arm: str) -> Step | None:
    """The newest step of a stage in the run that is meant; one that is done before one that was only begun."""
    store = context.store
    if query.run:
        runs = [find(store, query.run)]
    else:
        runs = context.runs()
        runs += [run for run in store.runs() if run not in runs]
    statuses = ((FAILED, STOPPED), BEGUN) if query.about == "failure" else ((DONE,), BEGUN)
    arm = arm if stage in ("", "evaluate") else ""
    for status in (*statuses, _NEVER_RAN) if stage else (BEGUN,):
        for run in runs:
            of_run = [s for s in store.priced_steps(run.id) if s.status in status]
            matching = [s for s in of_run if stage in ("", s.stage) and arm in ("", s.arm)]
            if matching:
                return matching[-1]
    return None


def _later(store: Store, step: Step) -> Step | None:
    """The newest finished step of the same kind, where another run did it after the one that is talked about."""
    same = [
        s for s in store.steps(status=DONE) if s.stage == step.stage and (s.stage != "evaluate" or s.arm == step.arm)
    ]
    newest = max(same, key=lambda s: s.finished_at or 0.0, default=step)
    return newest if newest.run != step.run and (newest.finished_at or 0.0) > (step.finished_at or 0.0) else None


def _two(query: StepQuery, one: Step, other: Step | None) -> Answer:
    """Two steps against each other: which took more memory or time."""
    if other is None:
        return Answer((f"Not both of {query.stage} and {query.other_stage} ran yet, so they cannot be compared.",))
    peak = query.about == "memory"
    both = sorted((one, other), key=lambda s: (s.peak_rss_bytes if peak else s.seconds) or 0, reverse=True)
    took = [size(s.peak_rss_bytes) if peak else duration(s.seconds) for s in both]
    together = "" if peak else f", {duration(sum(s.seconds or 0.0 for s in both))} together"
    first = f"{name_of(both[0])} took {'more memory' if peak else 'longer'} than {name_of(both[1])}: {took[0]} "
    first += f"({cite(both[0])}) against {took[1]} ({cite(both[1])}){together}."
    return Answer((first,), tuple(facts_of(step) for step in both))


def _share(store: Store, step: Step, asked: bool) -> str:
    """What all steps of a stage took of their run's work; empty for a single one, unless the share was asked for."""
    steps = store.steps(step.run, status=DONE)
    same = [s.seconds or 0.0 for s in steps if s.stage == step.stage]
    whole = sum(s.seconds or 0.0 for s in steps)
    if not whole or (len(same) < 2 and not asked):
        return ""
    part = f"{duration(sum(same))} of {duration(whole)} of work in {step.run} ({sum(same) / whole:.0%})"
    return f"{step.stage} took {part}."


def name_of(step: Step) -> str:
    """A step by its stage, an evaluation with its arm."""
    return f"{step.stage} of the {step.arm} arm" if step.stage == "evaluate" else step.stage


def free_memory(machine: Machine) -> str:
    """How much RAM and swap is free."""
    swap = f", {size(machine.swap_free_bytes)} of swap free" if machine.swap_free_bytes else ", no swap"
    return f"RAM: {size(machine.ram_free_bytes)} free of {size(machine.ram_total_bytes)}{swap}."


def _lead(query: StepQuery, step: Step, home: Path) -> list[str]:
    """The line that holds what was asked."""
    where = f"{name_of(step)} ({cite(step)})"
    if step.status == RUNNING:
        share = f", {step.done / step.total:.0%} done" if step.total else ""
        running = f"{where} is running{share}; it was begun {day(step.started_at)}."
        return [running] if query.about != "memory" else [running, memory_of(step), free_memory(measure_machine(home))]
    if step.status in _NEVER_RAN:
        return [f"{where} {_NEVER_RAN[step.status]} and never ran; estimated {duration(step.estimated_seconds)}."]
    if query.about == "memory":
        measured = memory_of(step)[:-1] or "No peak memory was measured"
        return [f"{measured} in {where}."]
    if query.about == "dates":
        return [f"{where} began {day(step.started_at)} and ended {day(step.finished_at)}, {step.status}."]
    return [estimate_of(step) if query.about == "estimate" else _times(step)]


def _times(step: Step) -> str:
    if step.seconds is None or step.status == RUNNING:
        return ""
    verb = "took" if step.status == DONE else f"{step.status} after"
    took = f"{duration(step.seconds)} ({cite(step)}, {day(step.finished_at)})"
    return f"{name_of(step)} {verb} {took}, estimated {duration(step.estimated_seconds)}."


def estimate_of(step: Step) -> str:
    """What a step took against what it was priced at."""
    took, priced = step.seconds or 0.0, step.estimated_seconds
    more = "longer" if took > priced else "shorter"
    off = f", {abs(took - priced) / priced:.0%} {more} than estimated" if priced else ""
    return f"{name_of(step)} was estimated at {duration(priced)} and took {duration(took)}{off} ({cite(step)})."


def memory_of(step: Step) -> str:
    """The peak of a step's memory; before it is measured what the price says of a step that runs, else empty."""
    if not step.peak_rss_bytes:
        priced = step.status == RUNNING and step.estimated_peak_bytes
        most = f"Its price has {size(step.estimated_peak_bytes)} of memory at most"
        return f"{most}; the peak is recorded when it ends." if priced else ""
    vram = f", {size(step.peak_vram_bytes)} VRAM" if step.peak_vram_bytes else ""
    return f"Peak memory {size(step.peak_rss_bytes)}{vram}, estimated {size(step.estimated_peak_bytes)}."


def _outcome(step: Step) -> str:
    result, clauses = step.report, []
    for name in catalog.ENTRIES[step.stage].load().headline if step.stage in catalog.ENTRIES else ():
        if result.get(name) not in (None, ""):
            clauses.append(f"{name.replace('_', ' ').removesuffix(' bytes')} {plain(name, result[name])}")
    if isinstance(checks := result.get("checks"), list):
        passed = sum(bool(check.get("passed")) for check in checks)
        clauses.append(f"{passed} of {len(checks)} checks passed")
    if isinstance(blocks := result.get("blocks"), dict):
        clauses += [f"{block} {counts['passed']} of {counts['cases']}" for block, counts in blocks.items()]
    return f"Result: {', '.join(clauses)}." if clauses else ""


def _passed(store: Store, step: Step) -> str:
    """What passed of each block, of a step that asked cases."""
    blocks: dict[str, list[bool]] = {}
    for one in store.results(step.id, step.arm) if step.stage in ("evaluate", "baseline") else ():
        blocks.setdefault(one.block, []).extend([] if one.passed is None else [one.passed])
    each = ", ".join(f"{block} {sum(passed)} of {len(passed)}" for block, passed in blocks.items())
    return f"Result: {each}." if each else ""


def plain(name: str, value: object) -> str:
    """A recorded number in words, by its name."""
    if name.startswith("bytes") and isinstance(value, int):
        return size(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return clip("; ".join(f"{key} {plain('', one)}" for key, one in value.items()), 300)
    return f"{value:,}" if isinstance(value, int) else clip(value, 80)  # a line


def untested_by(context: Context, step: Step) -> str:
    """What is not known of a merged or quantized model that a step made and no test was asked of; else empty."""
    arm = catalog.ENTRIES[step.stage].makes
    if step.status != DONE or arm not in ("merged", "quantized"):
        return ""
    tests = [s for s in context.store.steps(step.run, status=DONE) if s.stage == "evaluate" and s.arm == arm]
    return "" if any(is_current(context.store, test) for test in tests) else not_tested(context.ws, step.run, arm)


def _settings(step: Step) -> str:
    asks = catalog.ENTRIES[step.stage].load().settable
    given = [f"{name} {step.request[name]}" for name in asks if step.request.get(name) not in (None, "", False, "auto")]
    return f"Asked for: {', '.join(given)}." if given else ""


def log_end(store: Store, step: Step, lines: int) -> list[str]:
    """The last lines that a step's worker wrote; none where its log is gone."""
    try:
        with _log_file(store, step).open(errors="replace") as file:  # a log may hold any program's bytes
            last = deque((line for line in file if line.strip()), maxlen=lines)
    except OSError:  # none was written, or the folder is gone
        return []
    return [f"  {clip(line, 140)}" for line in last]  # a line of a terminal


def _log_file(store: Store, step: Step) -> Path:
    return store.home / "runs" / step.run / step.id / "worker.log"


def _log(store: Store, step: Step) -> Answer:
    file, end = _log_file(store, step), log_end(store, step, _LOG_LINES)
    if not end:
        why = f" It ended so: {clip(step.error, 300)}" if step.error else ""
        return Answer((f"{name_of(step)} ({cite(step)}) left no log in {file}.{why}",))
    first = f"The end of the log of {name_of(step)} ({cite(step)}), {file}:"
    return Answer((first, *end), (facts_of(step),), private=True, open_words=f"the log of {step.id} is on the screen")


def at_work(step: Step) -> str:
    """How far a step is that runs."""
    elapsed = time.time() - (step.started_at or time.time())
    left = render.eta_seconds(elapsed, step.total, step.estimated_seconds)
    at = f" ({clip(step.note, 80)})" if step.note else ""  # what is counted as done are seconds
    share = f", {step.done / step.total:.0%} done{at}" if step.total else at
    return f"{name_of(step)} ({cite(step)}) is running{share}, {duration(elapsed)} so far, about {duration(left)} left."


# Numbers by their name


class FigureQuery(Query):
    """One number that a step recorded by its name, such as trained_tokens, trainable_parameters, quantized_layers,
    argmax_agreement, generated_tokens, balance (rows by label)."""

    kind: Literal["figure"] = "figure"
    figure: Annotated[Recorded, Field(description="Name of the number")]
    run: RunName = ""


def figure(query: FigureQuery, context: Context) -> Answer:
    """The number of the newest step that recorded it, or how far the step is that may. Raises NotFound for none."""
    store = context.store
    for run in [find(store, query.run)] if query.run else context.runs():
        for step in reversed(store.steps(run.id, status=DONE)):
            if query.figure in step.report and isinstance(step.report[query.figure], bool | int | float | dict):
                words = f"{query.figure.replace('_', ' ')} of {name_of(step)}"
                value = step.report[query.figure]
                lines = (f"{words}: {plain(query.figure, value)} ({cite(step)}).", _times(step), _outcome(step))
                fact = {"figure": query.figure, "value": value, "step": step.id, "run": run.id}
                return Answer(tuple(line for line in lines if line), (fact, facts_of(step)))
        for step in store.steps(run.id, status=RUNNING):
            return Answer((f"{at_work(step)} Its other numbers are recorded when it ends.",), (facts_of(step),))
    if computed := _by_arithmetic(query, context):
        return computed
    where = find(store, query.run).id if query.run else "any run"
    known = {name for run in ordinary(store) for s in store.steps(run.id, status=DONE) for name, value in
             s.report.items() if isinstance(value, int | float)}  # fmt: skip
    raise NotFound(f"No step of {where} recorded {clip(query.figure, 40)}; recorded are: {', '.join(sorted(known))}.")


def _by_arithmetic(query: FigureQuery, context: Context) -> Answer | None:
    """How many parameters a training moves, by its base's shape and its rank, where nothing recorded it."""
    store = context.store
    if query.figure != "trainable_parameters":
        return None
    for run in [find(store, query.run)] if query.run else context.runs():
        base = [one for one in store.artifacts(run.id, "base") if one.known_config]
        trained = [s for s in store.priced_steps(run.id) if s.stage == "train"]
        rank = trained[-1].request.get("lora_rank") if trained else None
        if base and isinstance(rank, int) and rank > 0:  # `auto` is no number
            try:
                shape = ModelShape.of(base[-1].config)
            except (KeyError, TypeError, ValueError):  # a config may leave anything out
                continue
            moved = shape.lora_parameters(rank, experts=not trained[-1].request.get("load_in_4bit"))
            line = f"trainable parameters of train ({cite(trained[-1])}): {moved:,} at rank {rank}, by arithmetic; no "
            return Answer((f"{line}step of {run.id} recorded the number.",))
    return None
