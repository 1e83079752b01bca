"""What answers now and what did before, and what is at work or waits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import (
    Answer,
    Context,
    Query,
    RunName,
    Since,
    Until,
    cite,
    clip,
    day,
    decided_by,
    span,
    within,
)
from tunesmith.agent.queries.steps import facts_of
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import what_made
from tunesmith.memory.records import APPROVED, PLANNED, RUNNING, Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration


class ServedQuery(Query):
    """Which model is served now, its address and where its key lies; or what was deployed before, when and by whose
    yes."""

    kind: Literal["served"] = "served"
    about: Literal["now", "history"] = "now"
    run: RunName = ""
    since: Since = None
    until: Until = None


class JobsQuery(Query):
    """What is running with the time left, and what waits for a yes."""

    kind: Literal["jobs"] = "jobs"
    about: Literal["all", "running", "waiting"] = "all"


@dataclass(frozen=True, slots=True)
class Served:
    """A deployed model that answers, or should."""

    model: str
    url: str
    healthy: bool
    run: str
    step: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment of the past."""

    run: str
    step: str
    arm: str
    at: float | None


def served(query: ServedQuery, context: Context) -> Answer:
    """What is deployed now, which run made it, and what was deployed before."""
    store = context.store
    past = store.newest_of_kind("deployment")
    if query.about == "history" and past:
        return _history(query, store, past)
    from tunesmith.agent.commands import served_models

    deployed = [line for line in served_models.status(store) if line["role"] == "deployed"]
    before = [
        f"  {day(store.step(one.step).finished_at)}: {one.meta.get('arm', 'a')} model {one.meta.get('serves', '')} of "
        f"{one.run} ({one.step})"
        for one in past[:4]
    ]
    if not deployed:
        if not past:
            return Answer(("Nothing is served now, and nothing was deployed before.",))
        return Answer(("Nothing is served now: no server of a deployed model runs. Deployed before:", *before))
    line = deployed[0]
    state = "it is down" if line["down"] else "it does not answer at the moment"
    health = "" if line["healthy"] else f" ({state}; `tunesmith serve status` says more)"
    lines = [
        f"{clip(line['model'], 60)} is served at {line['url']}{health}; it was made in "
        f"{line['run'] or 'an unknown run'} ({line['step'] or '–'}).",
        f"Its key lies in {line['key_file']}.",
        _made_from(store, str(line["artifact"])) if line["artifact"] else "",
    ]
    lines += [f"It was deployed {len(past)} times in all:", *before[:3]] if len(past) > 1 else []
    return Answer(tuple(one for one in lines if one), tuple(_fact(line) for line in deployed))


def _fact(line: Mapping[str, object]) -> Served:
    model, url, run, step = (str(line[name] or "") for name in ("model", "url", "run", "step"))
    return Served(model, url, bool(line["healthy"]), run, step)


def _history(query: ServedQuery, store: Store, past: Sequence[Artifact]) -> Answer:
    """Every deployment that is asked about with its time and who agreed to it, the newest first."""
    chosen = [
        (one, step) for one in past
        if query.run in ("", one.run) and (step := store.step(one.step))
        and (within(step.finished_at, query.since, query.until) or not (query.since or query.until))
    ]  # fmt: skip
    if not chosen:
        about = f"{f' of {query.run}' if query.run else ''}{span(query.since, query.until)}"
        return Answer((f"Nothing{about} was deployed; in all {count(len(past), 'deployment')} happened.",))
    lines = []
    for one, step in chosen[:5]:
        by = store.read("SELECT decided_by FROM approvals WHERE step = ? AND decision = 'yes'", step.id)
        who = f", agreed to by {decided_by(by[0]['decided_by'])}" if by else ""
        model = f"the {one.meta.get('arm', '')} model {one.meta.get('serves', '')} of {one.run}"
        lines.append(f"{day(step.finished_at)}: {model} was deployed ({step.id}){who}.")
    lines += [f"{len(chosen) - 5} more before."] if len(chosen) > 5 else []
    facts = tuple(Deployment(one.run, step.id, str(one.meta.get("arm", "")), step.finished_at) for one, step in chosen)
    return Answer(tuple(lines), facts)


def _made_from(store: Store, artifact: str) -> str:
    try:
        lineage = what_made(store, artifact)["lineage"]
    except NotFound:
        return ""
    each = [f"{up['kind']} {up['artifact']} ({up['stage']} {up['step']} of {up['run']})" for up in lineage[:4]]
    return f"Made from: {' ← '.join(each)}."


def jobs(query: JobsQuery, context: Context) -> Answer:
    """What runs now with the time left, and what waits for a yes."""
    store = context.store
    running = store.steps(status=RUNNING)
    waiting = [step for status in (APPROVED, PLANNED) for step in store.steps(status=status)]
    lines = [_running(step) for step in running]
    if not running:
        ended = [step for run in store.runs() for step in store.steps(run.id) if step.finished_at]
        last = max(ended, key=lambda step: step.finished_at or 0.0, default=None)
        newest = f"; the last step to end was {last.stage} ({cite(last)}), {last.status} {day(last.finished_at)}" \
            if last else ""  # fmt: skip
        lines = [f"Nothing is running{newest}."]
    if query.about == "waiting":
        lines = []
    if query.about == "running" and running:
        waiting = []
    if waiting:
        names = ", ".join(f"{step.stage} ({cite(step)})" for step in waiting[-4:])
        lines.append(f"{len(waiting)} wait{'s' if len(waiting) == 1 else ''} for a yes: {names}.")
    elif not running or not lines:
        lines.append("Nothing waits for a yes.")
    return Answer(tuple(lines), tuple(facts_of(step) for step in [*running, *waiting[-4:]]))


def _running(step: Step) -> str:
    elapsed = time.time() - (step.started_at or time.time())
    left = render.eta_seconds(elapsed, step.total, step.estimated_seconds)
    share = f", {step.done / step.total:.0%} done" if step.total else ""
    return f"{step.stage} ({cite(step)}) is running{share}, {duration(elapsed)} so far, about {duration(left)} left."
