"""Runs: which there are, and how one went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.queries import results, scores
from tunesmith.agent.queries.answer import Answer, Context, clip, day, named, ordinary, span, within
from tunesmith.agent.queries.base import Query, RunName, Since, Until
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import DONE, DRIVER_RUN, FAILED, STOPPED, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, listed

_SHOWN = 5


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
    about: Literal["overview", "status", "steps", "remaining", "dates"] = "overview"


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
    done = [step.stage for step in steps if step.status == DONE]
    planned = [str(spec.get("stage", "")) for spec in run.plan.get("steps", [])]
    left = [stage for number, stage in enumerate(planned) if planned[: number + 1].count(stage) > done.count(stage)]
    return RunFacts(
        run.id, run.name, store.status_words(run), run.created_at,
        max((step.finished_at or 0.0 for step in steps), default=0.0) or None,
        sum(step.seconds or 0.0 for step in steps), len(done), tuple(left),
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
            return Answer((f"{count(len(bad), 'run')} failed or stopped:", *_lines(store, bad)), tuple(bad))
        each = listed([f"{named(run, 30)} is {run.status}" for run in runs], 8)
        return Answer((f"None of the {count(len(runs), 'run')} failed: {each}.",), tuple(known))
    driver = [run for run in store.runs() if run.name == DRIVER_RUN]
    total = len(runs) + len(driver)
    first = f"There {'is 1 run' if total == 1 else f'are {total} runs'}, the newest is {named(runs[0])}"
    first += f"; {driver[0].id} only fetched the driver" if driver else ""
    lines = [f"{first}.", *_lines(store, known)]
    lines += [f"{len(runs) - _SHOWN} older ones: `/runs` lists them all."] if len(runs) > _SHOWN else []
    return Answer(tuple(lines), tuple(known), lambda: render.runs_table(store, day))


def _lines(store: Store, runs: list[RunFacts]) -> list[str]:
    return [
        f"  {one.run} {clip(one.name, 40)}: {one.status}, begun {day(one.began)}, took {duration(one.seconds)}"
        f"{_target(store, one.run)}"
        for one in runs[:_SHOWN]
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
    for run, steps in begun[:_SHOWN]:
        each = listed([f"{step.stage} {step.status}" for step in reversed(steps)], 6)
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
    lines = [f"{named(run)}: its {score.arm} model passes {score} target cases."]
    lines += [f"  {other.id}, {one.arm}: {one}" for one, other in ranked[1:5]]
    note = "Runs of different behaviours have different suites, so their rates are not comparable."
    return Answer((*lines, note), tuple(one for one, _ in ranked))


def one_run(query: RunQuery, context: Context) -> Answer:
    """How a run went: its verdict, its status, what passed."""
    from tunesmith.agent.commands.summary import summarise, summary_view

    store, run = context.store, context.run(query.run)
    known, steps = facts_of(store, run), store.steps(run.id)
    lines = [
        f"{named(run)} is {known.status}; {store.step_counts(run.id)} steps done, {duration(known.seconds)} of work, "
        f"begun {day(known.began)}."
    ]
    if query.about == "remaining":
        left = f"Of the plan of {run.id} is left: {listed(known.remaining, 12)}."
        return Answer((left if known.remaining else f"Nothing is left of {run.id}.", *lines), (known,))
    if query.about == "steps":
        return _steps(store, run, known, steps)
    if query.about == "dates":
        lines.insert(0, f"{named(run)} was begun {day(known.began)}, its newest step ended {day(known.ended)}.")
    else:
        lines += [f"Its goal: {clip(run.goal, 160)}"] if run.goal and query.about == "overview" else []
        lines += [
            f"{step.stage} ({step.id}) {step.status}: {clip(step.error or 'no reason recorded', 160)}"
            for step in [step for step in steps if step.status in (FAILED, STOPPED)][-2:]
        ]
        lines = [*results.verdict_lines(store, run), *lines]

    def page() -> RenderableType:
        return Group(render.run_table(show_run(store, run.id)), summary_view(summarise(store, run.id)))

    return Answer(tuple(lines[:6]), (known, *scores.of_run(store, run.id)), page)


def _steps(store: Store, run: Run, known: RunFacts, steps: list[Step]) -> Answer:
    each = [f"{s.stage}{f' {s.arm}' if s.stage == 'evaluate' else ''} ({s.id}) {duration(s.seconds)}" for s in steps]
    lines = [f"{run.id} has {count(len(steps), 'step')}, {known.steps_done} done: {listed(each, 20)}."]
    lines += [f"Of its plan is left: {listed(known.remaining, 12)}."] if known.remaining else []
    return Answer(tuple(lines), (known,), lambda: render.run_table(show_run(store, run.id)))
