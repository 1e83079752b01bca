"""Runs: which there are, and how one went."""

from __future__ import annotations

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts import results, scores
from tunesmith.agent.driver.facts.answer import Answer, Question, clip, counted, day, listed, ordinary
from tunesmith.agent.driver.understanding.times import window
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import show_run
from tunesmith.memory.records import DONE, DRIVER_RUN, FAILED, STOPPED, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration

_SHOWN = 5


def all_runs(question: Question) -> Answer:
    """How many runs there are, and the newest of them."""
    store, aspect = question.store, question.query.aspect
    runs = ordinary(store)
    if not runs:
        return Answer(("There is no run yet; say what a model should learn, or “demo” for a first one.",))
    if question.query.when:
        return _within(question, runs)
    if aspect == "best":
        return _best(store, runs)
    if question.query.outcome == "failed":
        bad = [run for run in runs if run.status in (FAILED, STOPPED)]
        if not bad:
            return Answer(
                (f"None of the {counted(len(runs), 'run')} failed: {listed([_brief(run) for run in runs])}.",)
            )
        return Answer((f"{counted(len(bad), 'run')} failed or stopped:", *(_line(store, run) for run in bad[:_SHOWN])))
    driver = [run for run in store.runs() if run.name == DRIVER_RUN]
    count = len(runs) + len(driver)
    first = (
        f"There {'is 1 run' if count == 1 else f'are {count} runs'}, the newest is {runs[0].id} "
        f"({clip(runs[0].name, 40)})"
    )
    first += f"; {driver[0].id} only fetched the driver" if driver else ""
    lines = [f"{first}.", *(_line(store, run) for run in runs[:_SHOWN])]
    lines += [f"{len(runs) - _SHOWN} older ones: `/runs` lists them all."] if len(runs) > _SHOWN else []

    def page() -> RenderableType:
        return render.runs_table(store, day)

    return Answer(tuple(lines), page)


def _within(question: Question, runs: list[Run]) -> Answer:
    """What ran in a span of time: its steps, the newest first, run by run."""
    when = question.query.when
    span = window(when)
    if span is None:
        raise NotFound(f"{clip(when, 40)} is no span of time that I know; say a day, such as yesterday or 2026-11-20.")
    begun = [
        (run, [s for s in question.store.steps(run.id) if s.started_at and span[0] <= s.started_at < span[1]])
        for run in runs
    ]
    begun = [(run, steps) for run, steps in begun if steps]
    if not begun:
        return Answer((f"Nothing ran {when}; the newest run, {runs[0].id}, was begun {day(runs[0].created_at)}.",))
    first = f"{counted(sum(len(steps) for _, steps in begun), 'step')} ran {when}, in {counted(len(begun), 'run')}:"
    lines = [
        f"  {run.id} ({clip(run.name, 30)}): " + listed([f"{s.stage} {s.status}" for s in reversed(steps)], 6)
        + f", {duration(sum(s.seconds or 0.0 for s in steps))}"
        for run, steps in begun[:_SHOWN]
    ]  # fmt: skip
    return Answer((first, *lines))


def _brief(run: Run) -> str:
    return f"{run.id} ({clip(run.name, 30)}) is {run.status}"


def _line(store: Store, run: Run) -> str:
    steps = store.steps(run.id)
    took, status = duration(sum(step.seconds or 0.0 for step in steps)), store.status_words(run)
    return f"  {run.id} {clip(run.name, 40)}: {status}, begun {day(run.created_at)}, took {took}{_target(store, run)}"


def _target(store: Store, run: Run) -> str:
    measured = scores.of_run(store, run.id)
    best = [score for score in measured if score.block == "target" and score.arm != "base"]
    return f"; target {best[-1].arm} {best[-1].told}" if best else ""


def _best(store: Store, runs: list[Run]) -> Answer:
    ranked = []
    for run in runs:
        targets = [s for s in scores.of_run(store, run.id) if s.block == "target" and s.arm != "base" and s.judged]
        ranked += [(s.passed / s.judged, run, s) for s in targets]
    if not ranked:
        return Answer(("No run has an evaluated model yet, so none can be called the best.",))
    ranked.sort(key=lambda one: one[0], reverse=True)
    _, run, score = ranked[0]
    lines = [f"{run.id} ({clip(run.name, 40)}): its {score.arm} model passes {score.told} target cases."]
    lines += [f"  {other.id}, {s.arm}: {s.told}" for _, other, s in ranked[1:5]]
    return Answer((*lines, "Runs of different behaviours have different suites, so their rates are not comparable."))


def _steps_of(question: Question, run: Run, steps: list[Step], status: str) -> Answer:
    """The steps of a run, or what of its plan is left."""
    planned = [str(spec.get("stage", "")) for spec in run.plan.get("steps", [])]
    done = [step.stage for step in steps if step.status == DONE]
    left = [stage for number, stage in enumerate(planned) if planned[: number + 1].count(stage) > done.count(stage)]
    if question.query.aspect == "remaining":
        told = f"Of the plan of {run.id} is left: {listed(left, 12)}." if left else f"Nothing is left of {run.id}."
        return Answer((told, status))
    each = [f"{s.stage}{f' {s.arm}' if s.stage == 'evaluate' else ''} ({s.id}) {duration(s.seconds)}" for s in steps]
    first = f"{run.id} has {counted(len(steps), 'step')}, {len(done)} done: {listed(each, 20)}."
    rest = [f"Of its plan is left: {listed(left, 12)}."] if left else []
    return Answer((first, *rest), lambda: render.run_table(show_run(question.store, run.id)))


def one_run(question: Question) -> Answer:
    """How a run went: its verdict, its status, what passed."""
    from tunesmith.agent.commands.summary import summarise, summary_view

    store, run = question.store, question.run()
    steps = store.steps(run.id)
    took = duration(sum(step.seconds or 0.0 for step in steps))
    status = (
        f"{run.id} ({clip(run.name, 40)}) is {store.status_words(run)}; {store.step_counts(run.id)} steps done, "
        f"{took} of work, begun {day(run.created_at)}"
    )
    lines = [f"{status}."]
    if question.query.aspect in ("list", "remaining"):
        return _steps_of(question, run, steps, f"{status}.")
    if question.query.aspect == "when":
        ended = max((step.finished_at or 0.0 for step in steps), default=0.0)
        lines = [
            f"{run.id} ({clip(run.name, 40)}) was begun {day(run.created_at)}, its newest step ended "
            f"{day(ended or None)}.",
            *lines,
        ]
    if run.goal and question.query.aspect in ("", "list"):
        lines.append(f"Its goal: {clip(run.goal, 160)}")
    bad = [step for step in steps if step.status in (FAILED, STOPPED)]
    if bad and question.query.aspect in ("status", "why", ""):
        lines += [
            f"{step.stage} ({step.id}) {step.status}: {clip(step.error or 'no reason recorded', 160)}"
            for step in bad[-2:]
        ]
    if question.query.aspect in ("", "status") and scores.of_run(store, run.id):
        lines = [*results.verdict_lines(store, run), *lines]

    def page() -> RenderableType:
        return Group(render.run_table(show_run(store, run.id)), summary_view(summarise(store, run.id)))

    return Answer(tuple(lines[:6]), page)
