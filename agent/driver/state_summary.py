"""Where things stand, in a few lines from the store: for a request, for half a line, and when a job has ended."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith.agent.commands import render
from tunesmith.agent.driver.drafts import open_interview
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.answer import ordinary
from tunesmith.agent.queries.machine import JobsQuery
from tunesmith.agent.queries.registry import ask
from tunesmith.agent.queries.runs import RunQuery
from tunesmith.agent.queries.steps import StepQuery
from tunesmith.agent.queries.table import text_of
from tunesmith.memory.records import DONE, PLANNED, RUNNING, Run
from tunesmith.memory.store import Store
from tunesmith.tools.data.description import missing
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.following import next_stages
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.serving import servers

if TYPE_CHECKING:
    from tunesmith.agent.words.head import Moment

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


def _brief(error: str | None) -> str:
    return render.plain(" ".join((error or "no reason recorded").split())[:160]).plain  # it goes with every request


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


def where_things_stand(deps: TurnDeps, *, step: str = "", run: str = "") -> list[str]:
    """The step or run that is named, else what is at work or came of the newest run: often the fact behind words that
    nobody understood. Raises NotFound for a name that is none."""
    if not (step or run) and (deps.draft is not None or not ordinary(deps.store)):
        return []
    if step:
        return [*text_of(ask(StepQuery(step=step), deps.records()))]
    running = not run and deps.store.steps(status=RUNNING)
    result = ask(JobsQuery() if running else RunQuery(run=run), deps.records())
    return [*text_of(result if running else replace(result, facts=()))]
