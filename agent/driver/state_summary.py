"""Where things stand, in a few lines from the store: for a request, for half a line, and when a job has ended."""

from __future__ import annotations

import time
from dataclasses import replace

from tunesmith.agent.commands import render
from tunesmith.agent.driver.describing import open_interview
from tunesmith.agent.driver.turn_deps import NOT_THE_USER, TurnDeps
from tunesmith.agent.queries.answer import cite, clip, ordinary
from tunesmith.agent.queries.following import next_stages
from tunesmith.agent.queries.machine import JobsQuery
from tunesmith.agent.queries.registry import ask
from tunesmith.agent.queries.runs import RunQuery
from tunesmith.agent.queries.table import text_of
from tunesmith.agent.words.head import Moment
from tunesmith.memory.records import DONE, PLANNED, RUNNING, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration
from tunesmith.tools.data.description import missing
from tunesmith.tools.evaluation.findings import findings
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.serving import servers

STATE_HEADING = "Where things stand"
"""How the model is told; a reply that says it again repeats what only the model was to read."""


def state_summary(store: Store, run: Run | None, draft: PipelinePlan | None) -> str:
    """At most eleven lines: the time, the run, what is done, what runs, what comes next, what is served."""
    lines = [time.strftime("now: %A %Y-%m-%d %H:%M")]
    if interview := open_interview(store.home):
        lacking = ", ".join(missing(interview.draft)) or "nothing: plan_fine_tune plans it"
        lines.append(f"a new behaviour is being described; missing: {lacking}")
    if draft:
        lines.append(f"proposed plan, not started: {', '.join(spec.stage for spec in draft.steps)}")
    if run is None:
        lines.append("no run yet")
    else:
        steps = store.steps(run.id)
        lines.append(f"current run: {run.id} ({run.name}), {store.status_words(run)}; {len(store.runs())} runs in all")
        measures = {entry.name for entry in catalog.STAGES if entry.load().measures}
        done = [f"{s.stage} {s.arm}" if s.stage in measures else s.stage for s in steps if s.status == DONE]
        lines.append(f"done: {', '.join(done) or 'nothing'}")
        failed = [step for step in steps[-1:] if step.status in ("failed", "stopped")]
        lines += [f"{step.stage} ({step.id}) {step.status}: {_brief(step.error)}" for step in failed]
        lines.append(f"next stage: {' or '.join(next_stages(store, run)) or 'none, every stage is done'}")
    for step in store.steps(status=RUNNING)[:2]:
        share = f", {step.done / step.total:.0%} done" if step.total else ""
        lines.append(f"running now: {step.stage} ({step.id} of {step.run}){share}")
    waiting = store.steps(status=PLANNED)
    if waiting:
        lines.append(f"waiting for the user's yes: {', '.join(f'{s.stage} ({s.id})' for s in waiting[-3:])}")
    return "\n".join(lines[:11])  # eleven: this page goes with every request


def in_silence(deps: TurnDeps) -> str:
    """What is said where a driver found no words: what is at hand, or the newest run."""
    state = state_summary(deps.store, deps.current_run(), deps.draft).splitlines()[1]
    return f"The driver found no words ({state}); say it in other words, or “help” for what I can do."


def in_half_a_line(deps: TurnDeps) -> str:
    """Where things stand, in a few words, for a request that has room for few."""
    run = deps.current_run()
    following = next_stages(deps.store, run)
    if interview := open_interview(deps.store.home):
        state = f"describing a behaviour, asked for {interview.asked}"
    elif deps.draft:
        state = f"a plan is proposed: {', '.join(spec.stage for spec in deps.draft.steps)}"
    elif run is None:
        state = "no run yet"
    else:
        state = f"newest run {run.id}, " + (f"next is {following[0]}" if following else "all done")
    return f"{state}; before: {deps.before}" if deps.before else state


def _brief(error: str | None) -> str:
    return render.plain(" ".join((error or "no reason recorded").split())[:160]).plain  # it goes with every request


_FINDINGS = 2


def words(store: Store, step: Step) -> list[str]:
    """What is said about a step that ended: what it means, where that is known, and the next step."""
    if step.status != DONE:
        why = "its reason is above" if step.error else "no reason is recorded"
        return [f"{step.stage} ({cite(step)}) {step.status}; {why}. “what failed?” tells more, “go on” tries again."]
    lines = []
    if catalog.ENTRIES[step.stage].load().measures:
        lines = [clip(one.says, 240) for one in findings(store, step.run)[:_FINDINGS]]
    following = next_stages(store, store.run(step.run))
    lines.append(
        f"Next in {step.run} is {following[0]}; say “go on” and its price is shown."
        if following
        else f"Every step of {step.run} is done; ask “what should I try next?”."
    )
    return lines


def prompt(store: Store, step: Step) -> str:
    """What a native driver is woken with: names, numbers and a status, none of the job's own text."""
    following = next_stages(store, store.run(step.run))
    took = duration(step.seconds or 0.0)
    return (
        f"{NOT_THE_USER} a job has ended. {step.stage} {step.id} of {step.run}: {step.status} after {took}. "
        f"Next stage: {following[0] if following else 'none'}. Say what it means, from the records, and what is next.)"
    )


def moment_of(deps: TurnDeps) -> Moment:
    """Where the user stands: what is said most differs by it."""
    run = deps.focused_run()
    moments: tuple[tuple[Moment, object], ...] = (
        ("planned", deps.draft), ("running", deps.store.steps(status=RUNNING)), ("empty", run is None),
        ("broken_off", run and deps.store.broken_off(run.id)),
        ("served", servers.list_servers(deps.store.home, role=servers.DEPLOYED)),
        ("midway", next_stages(deps.store, run)),
    )  # fmt: skip
    return next((moment for moment, there in moments if there), "finished")


def where_things_stand(deps: TurnDeps) -> list[str]:
    """What is at work, else what came of the newest run: often the fact behind words that nobody understood."""
    if deps.draft is not None or not ordinary(deps.store):
        return []
    running = deps.store.steps(status=RUNNING)
    result = ask(JobsQuery() if running else RunQuery(), deps.records())
    return [*text_of(result if running else replace(result, facts=()))]
