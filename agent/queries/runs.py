"""Runs and their steps: which there are, how they went, what is left, and what their steps took."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Group

from tunesmith.agent.commands import render
from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import (
    Answer,
    Context,
    cite,
    clip,
    day,
    find,
    named,
    ordinary,
    reached,
    span,
    within,
)
from tunesmith.agent.queries.arguments import Query, RunName, Since, StageName, Until
from tunesmith.agent.queries.comparisons import better_run
from tunesmith.agent.queries.facts import Proposed
from tunesmith.agent.queries.following import chain_ahead, forecast_of, left_of_plan, named_with_times
from tunesmith.agent.queries.machine import at_work
from tunesmith.agent.queries.prices import how_it_goes_on, inherited
from tunesmith.agent.queries.steps import BEGUN, estimate_of, log_end, memory_of, name_of, untested_by
from tunesmith.agent.queries.steps import facts_of as step_facts
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import DONE, DRIVER_RUN, FAILED, RUNNING, STOPPED, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, listed, size
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import StepSpec

_MOST_RUNS = 5  # a line each: who wants more asks for all


class RunsQuery(Query):
    """All runs: how many, which; those that failed; the one with the best model; what ran in a span of time."""

    kind: Literal["runs"] = "runs"
    about: Literal["all", "failed", "best"] = "all"
    since: Since = None
    until: Until = None


class RunQuery(Query):
    """How one run went: its verdict and status, its steps, what of its plan is left, when it began and ended."""

    kind: Literal["run"] = "run"
    run: RunName = ""
    about: Literal["overview", "status", "steps", "remaining", "longest_left", "dates"] = "overview"
    stage: StageName = ""
    """Of which it is asked whether it is done."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run in figures."""

    run: str
    name: str
    status: str
    began: float
    ended: float | None
    seconds: float
    """Of work, by all its steps."""
    steps_done: int
    remaining: tuple[str, ...] = ()
    """Stages of its plan that were not done yet."""


def facts_of(store: Store, run: Run) -> RunFacts:
    """A run as its steps tell it."""
    steps = store.steps(run.id)
    return RunFacts(
        run.id, run.name, store.status_words(run), run.created_at,
        max((step.finished_at or 0.0 for step in steps), default=0.0) or None,
        sum(step.seconds or 0.0 for step in steps), sum(step.status == DONE for step in steps),
        tuple(spec.stage for spec in left_of_plan(store, run)),
    )  # fmt: skip


def all_runs(query: RunsQuery, context: Context) -> Answer:
    """How many runs there are, and the newest of them."""
    store = context.store
    runs = ordinary(store)
    if not runs:
        return Answer(("There is no run yet; say what a model should learn, or “demo” for a first one.",))
    if query.since or query.until:
        return _within(query, store, runs)
    if query.about == "best":
        return _best(store, runs)
    known = [facts_of(store, run) for run in runs]
    if query.about == "failed":
        bad = [one for one, run in zip(known, runs, strict=True) if run.status in (FAILED, STOPPED)]
        if bad:
            well = [one for one in known if one not in bad]
            others = ["Those that did not:", *_lines(store, well)] if well else []
            return Answer((f"{count(len(bad), 'run')} failed or stopped:", *_lines(store, bad), *others), tuple(bad))
        each = listed([f"{named(run, 30)} is {run.status}" for run in runs], 8)  # a line or two
        return Answer((f"None of the {count(len(runs), 'run')} failed: {each}.",), tuple(known))
    driver = [run for run in store.runs() if run.name == DRIVER_RUN]
    total = len(runs) + len(driver)
    first = f"There {'is 1 run' if total == 1 else f'are {total} runs'}, the newest is {named(runs[0])}"
    first += f"; {driver[0].id} only fetched the driver" if driver else ""
    lines = [f"{first}.", *_lines(store, known)]
    lines += [f"{len(runs) - _MOST_RUNS} older ones: `/runs` lists them all."] if len(runs) > _MOST_RUNS else []
    return Answer(tuple(lines), tuple(known), lambda: render.runs_table(store, day))


def _lines(store: Store, runs: list[RunFacts]) -> list[str]:
    return [
        f"  {one.run} {clip(one.name, 40)}: {one.status}, begun {day(one.began)}, took {duration(one.seconds)}"
        f"{_target(store, one.run)}"
        for one in runs[:_MOST_RUNS]
    ]


def _target(store: Store, run: str) -> str:
    best = [score for score in scores.of_run(store, run) if score.block == "target" and score.arm != "base"]
    return f"; target {best[-1].arm} {best[-1]}" if best else ""


def _within(query: RunsQuery, store: Store, runs: list[Run]) -> Answer:
    """What ran in a span of time: its steps, the newest first, run by run."""
    when = span(query.since, query.until)
    begun: list[tuple[Run, list[Step]]] = []
    for run in runs:
        steps = [step for step in store.steps(run.id) if within(step.started_at, query.since, query.until)]
        begun += [(run, steps)] if steps else []
    if not begun:
        return Answer((f"Nothing ran{when}; the newest run, {runs[0].id}, was begun {day(runs[0].created_at)}.",))
    lines = [f"{count(sum(len(steps) for _, steps in begun), 'step')} ran{when}, in {count(len(begun), 'run')}:"]
    for run, steps in begun[:_MOST_RUNS]:
        each = listed([f"{step.stage} {step.status}" for step in reversed(steps)], 6)  # a line each
        lines.append(f"  {named(run, 30)}: {each}, {duration(sum(step.seconds or 0.0 for step in steps))}")
    return Answer(tuple(lines), tuple(facts_of(store, run) for run, _ in begun))


def _best(store: Store, runs: list[Run]) -> Answer:
    ranked = [
        (score, run) for run in runs for score in scores.of_run(store, run.id)
        if score.block == "target" and score.arm != "base" and score.judged
    ]  # fmt: skip
    if not ranked:
        return Answer(("No run has an evaluated model yet, so none can be called the best.",))
    ranked.sort(key=lambda one: one[0].rate, reverse=True)
    score, run = ranked[0]
    of_each = list({one.id: (best, one) for best, one in reversed(ranked)}.values())[::-1]
    lines = [f"{named(run)}: its {score.arm} model passes {score} target cases."]
    if len(of_each) > 1:
        (best, one), (second, two) = of_each[:2]
        if best.rate == second.rate:
            lines = [f"{one.id} and {two.id} do equally well: the {best.arm} model of {one.id} passes {best} target "
                     f"cases, the {second.arm} model of {two.id} {second}."]  # fmt: skip
        lines.append(f"  {one.id} against {two.id}: {better_run(store, one, two, best.block)[1]}")
    lines += [f"  {other.id}, {one.arm}: {one}" for one, other in ranked[1:4]]  # the best few
    note = "Runs of different behaviours have different suites, so their rates are not comparable."
    return Answer((*lines, note), tuple(one for one, _ in ranked), run=run.id)


def one_run(query: RunQuery, context: Context) -> Answer:
    """How a run went: its verdict, its status, what passed."""
    from tunesmith.agent.commands.summary import summarise, summary_view

    store, run = context.store, context.run(query.run)
    known, steps = facts_of(store, run), store.steps(run.id)
    lines = [
        f"{named(run)} is {known.status}; {store.step_counts(run.id)} steps done, {duration(known.seconds)} of work, "
        f"begun {day(known.began)}."
    ]
    again = [how_it_goes_on(context.ws, step) for step in steps[-1:]]
    if query.about in ("remaining", "longest_left"):
        return _remaining(context, run, known, [*lines, *again], longest=query.about == "longest_left")
    if query.about == "steps" and not query.stage:
        return _steps(context, run, known, steps)
    if query.about == "dates":
        lines.insert(0, f"{named(run)} was begun {day(known.began)}, its newest step ended {day(known.ended)}.")
    else:
        lines += [f"Its goal: {clip(run.goal, 160)}"] if run.goal and query.about == "overview" else []
        lines += [
            f"{step.stage} ({step.id}) {step.status}: {clip(step.error or 'no reason recorded', 160)}{reached(step)}"
            for step in [step for step in steps if step.status in (FAILED, STOPPED)][-2:]  # the newest tell
        ]
        lines += again
        lines = [line for line in lines if line]
        lines = [*scores.verdict_lines(store, run), *lines]
    begun = [step for step in steps if step.stage == query.stage and step.status in BEGUN]
    lacks = bool(query.stage) and not begun
    untested = untested_by(context, begun[-1]) if begun else ""
    if query.stage:
        stands = f"({begun[-1].id}) of {run.id}: {begun[-1].status}" if begun else f"was not done in {run.id} yet"
        yes = {DONE: "Yes", RUNNING: "Not yet"}.get(begun[-1].status if begun else "", "No")
        lines.insert(0, f"{yes}: {query.stage} {stands}{'; “do that” prices it' if lacks else ''}.")
        lines[1:1] = [untested] if untested else []
    test = {"evaluate": {"arm": catalog.ENTRIES[query.stage].makes}} if untested else {}
    proposed = {query.stage: {}} if lacks else test
    return Answer(
        tuple(lines[:6]),
        (known, *scores.of_run(store, run.id)),  # an answer stays on a screen
        lambda: Group(render.run_table(show_run(store, run.id)), summary_view(summarise(store, run.id))),
        proposals=tuple(Proposed(run.id, stage, fields) for stage, fields in proposed.items()),
    )


def _remaining(context: Context, run: Run, known: RunFacts, lines: Sequence[str], *, longest: bool = False) -> Answer:
    """How far a run that was measured is from learned, and what it has ahead with the times: of its plan, else what
    could follow, behind the step that runs now; or that of it which takes longest."""
    running = context.store.steps(run.id, status=RUNNING)
    planned = left_of_plan(context.store, run, RUNNING)  # of what runs its own line tells what is left
    at_it = {(step.stage, step.arm if step.stage == "evaluate" else "") for step in running}
    following = [] if planned else [one for one in chain_ahead(context.store, run) if one not in at_it]
    ahead = forecast_of(context, run, planned or [
        StepSpec(stage=stage, fields=inherited(context.ws, stage, {"arm": arm} if arm else {}, run.id))
        for stage, arm in following
    ])  # fmt: skip
    timed = [one for one in ahead if one.seconds is not None]
    if longest and timed:
        most = max(timed, key=lambda one: one.seconds or 0.0)
        unknown = "; the times of others show when they are due" if len(timed) < len(ahead) else ""
        return Answer((f"Of what is left of {run.id} takes longest: {most}{unknown}.",), (known, *ahead))
    if planned:
        left = f"Of the plan of {run.id} is left: {named_with_times(ahead)}"
    elif following:
        left = f"No plan of {run.id} has steps left; what could follow: {named_with_times(ahead)} “go on” prices the "
        left += "first."
    else:
        left = f"Nothing is left of {run.id}{' behind the step that runs now' if running else ''}."
    asks = "Each expensive one of them shows its price and waits for your yes before it starts." if ahead else ""
    short = scores.how_far(context.store, run, learned=False)
    return Answer(tuple(line for line in (*map(at_work, running), *short, left, asks, *lines) if line), (known, *ahead))


def _steps(context: Context, run: Run, known: RunFacts, steps: list[Step]) -> Answer:
    ahead = forecast_of(context, run, left_of_plan(context.store, run))
    each = [f"{s.stage}{f' {s.arm}' if s.stage == 'evaluate' else ''} ({s.id}) {duration(s.seconds)}" for s in steps]
    lines = [f"{run.id} has {count(len(steps), 'step')}, {known.steps_done} done: {listed(each, 20)}."]
    lines += [f"Of its plan is left: {named_with_times(ahead)}"] if ahead else []
    return Answer(tuple(lines), (known, *ahead), lambda: render.run_table(show_run(context.store, run.id)))


_NO_MEMORY = re.compile(r"out of memory|\boom\b|memory|signal 9", re.IGNORECASE)
"""In the errors that our workers and the libraries below them write."""


class StepsQuery(Query):
    """The steps of a run together: what all took, which took longest or most memory, how good the estimates were, which
    took longer than estimated; what failed, or ran out of memory, in a run or in all."""

    kind: Literal["steps"] = "steps"
    about: Literal["time", "longest", "memory", "estimates", "late", "failures", "out_of_memory"] = "time"
    run: RunName = ""
    stage: StageName = ""
    since: Since = None
    """Of failures alone, as until."""
    until: Until = None


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
    steps.sort(key=_MOST_FIRST[query.about], reverse=True)
    by_estimate = {"estimates": _estimates, "late": _late}.get(query.about)
    lines = by_estimate(run, steps) if by_estimate else _most(query.about, run, steps)
    facts = tuple(step_facts(step) for step in steps)
    return Answer(tuple(lines), facts, lambda: render.run_table(show_run(store, run.id)))


_MOST_FIRST: Mapping[str, Callable[[Step], float]] = {
    "time": lambda s: s.seconds or 0.0, "longest": lambda s: s.seconds or 0.0,
    "memory": lambda s: s.peak_rss_bytes or 0, "late": lambda s: (s.seconds or 0.0) - s.estimated_seconds,
    "estimates": lambda s: abs((s.seconds or 0.0) - s.estimated_seconds),
}  # fmt: skip
"""What is asked of all steps → by what they are ordered, the most first."""


def _most(about: str, run: Run, steps: Sequence[Step]) -> list[str]:
    """The steps that took the most of time or memory, behind what all of them took where that is asked for."""
    memory = about == "memory"
    each = {s.id: size(s.peak_rss_bytes or 0) if memory else duration(s.seconds or 0.0) for s in steps}
    first, *rest = steps
    head = f"{name_of(first)} took {'the most memory of' if memory else 'longest in'} {run.id}: {each[first.id]} "
    head += f"({first.id})."
    if about == "time":
        rest, total = [first, *rest], duration(sum(s.seconds or 0.0 for s in steps))
        head = f"{named(run)} took {total} of work in all, {len(steps)} steps; the longest:"
    return [head, *(f"  {name_of(s)} ({s.id}): {each[s.id]}" for s in rest[:4])]  # an answer stays on a screen


def _estimates(run: Run, steps: Sequence[Step]) -> list[str]:
    total, priced = sum(s.seconds or 0 for s in steps), sum(s.estimated_seconds for s in steps)
    first = f"{run.id} was estimated at {duration(priced)} in all and took {duration(total)}; furthest off:"
    return [first, *(f"  {estimate_of(s)}" for s in steps[:4])]  # an answer stays on a screen


def _late(run: Run, steps: Sequence[Step]) -> list[str]:
    over = [s for s in steps if (s.seconds or 0) > s.estimated_seconds]
    if not over:
        return [f"None of the {len(steps)} steps of {run.id} took longer than estimated."]
    first = f"{len(over)} of the {len(steps)} steps of {run.id} took longer than estimated:"
    return [first, *(f"  {estimate_of(s)}" for s in over[:5])]  # an answer stays on a screen


def _failures(query: StepsQuery, context: Context) -> Answer:
    """What failed or stopped, the newest first."""
    store = context.store
    runs = [find(store, query.run)] if query.run else store.runs()
    ever = [
        step for run in runs for step in reversed(store.steps(run.id))
        if step.status in (FAILED, STOPPED) and query.stage in ("", step.stage)
    ]  # fmt: skip
    ended = [step for step in ever if within(step.finished_at or step.created_at, query.since, query.until)]
    if not ended:
        where, of = f"of {named(runs[0])}" if query.run else "of any run", f"{query.stage} " if query.stage else ""
        lines = [f"No {of}step {where} failed or was stopped{span(query.since, query.until)}."]
        lines += [f"The newest that did: {name_of(s)} ({cite(s)}), {day(s.finished_at)}." for s in ever[:1]]
        for run in runs[:1] if query.run else ():
            took = duration(sum(step.seconds or 0.0 for step in store.steps(run.id)))
            lines.append(
                f"{run.id} is {store.status_words(run)}; {store.step_counts(run.id)} steps done, {took} in all."
            )
        return Answer(tuple(lines))
    lines = [
        f"{name_of(s)} ({cite(s)}) {s.status} {day(s.finished_at)} after {duration(s.seconds)}: "
        f"{clip(s.error or 'no reason', 300)}"
        f"{f' ({did} did it since)' if (did := done_since(store.steps(s.run), s)) else ''}"
        for s in ended[:4]  # an answer stays on a screen
    ]
    lines += [f"{len(ended) - 4} more failed before."] if len(ended) > 4 else []
    lines += [_errors_alike(ended)] if len(ended) > 1 else []
    lines += [again] if (again := how_it_goes_on(context.ws, ended[0])) else []
    end = log_end(store, ended[0], 2)
    facts = tuple(step_facts(step) for step in ended[:8])
    if not end:
        return Answer(tuple(lines), facts)
    return Answer((*lines, "Its log ends:", *end), facts, private=True, open_words="\n".join(lines))


def _errors_alike(ended: Sequence[Step]) -> str:
    """Whether several steps that ended badly have the same error on record, but for its numbers."""
    most = max(Counter(re.sub(r"\d[\d.,]*", "#", step.error or "no reason") for step in ended).values())
    alike = f"{most} of these {len(ended)} have the same error on record"
    return f"{alike}." if most > 1 else "Their errors all differ: the records show no cause that two of them share."


def done_since(steps: Sequence[Step], one: Step) -> str:
    """Which later step of a run did after all what one did not; empty: none."""
    later = steps[[step.id for step in steps].index(one.id) + 1 :] if one in steps else steps
    done = (step.id for step in later if (step.stage, step.arm, step.status) == (one.stage, one.arm, DONE))
    return next(done, "")


def _out_of_memory(query: StepsQuery, context: Context) -> Answer:
    """Whether a step ended for want of memory, and what the steps took of it."""
    store = context.store
    runs = [find(store, query.run)] if query.run else ordinary(store)
    steps = [s for run in runs for s in reversed(store.steps(run.id)) if query.stage in ("", s.stage)]
    ended = [s for s in steps if s.status in (FAILED, STOPPED) and _NO_MEMORY.search(s.error or "")]
    if ended:
        first = (
            f"{name_of(ended[0])} ({cite(ended[0])}) {ended[0].status}, perhaps for want of memory: "
            f"{clip(ended[0].error, 200)}."
        )
        lines = [first, memory_of(ended[0]), how_it_goes_on(context.ws, ended[0])]
        return Answer(tuple(line for line in lines if line), (step_facts(ended[0]),))
    of, where = f" {query.stage}" if query.stage else "", ", ".join(run.id for run in runs[:4]) or "any run"
    lines = [f"No: no{of} step of {where} ended for want of memory."]
    measured = [s for s in steps if s.peak_rss_bytes]
    if measured:
        largest = max(measured, key=lambda s: s.peak_rss_bytes or 0)
        lines.append(f"{memory_of(largest)[:-1]} in {name_of(largest)} ({cite(largest)}).")
    return Answer(tuple(lines), tuple(step_facts(step) for step in measured[:8]))  # a driver reads them
