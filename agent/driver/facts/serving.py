"""What answers now and what did before, and what is at work or waits."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts.answer import Answer, Question, clip, counted, day, said_of
from tunesmith.agent.driver.understanding.times import window
from tunesmith.memory.errors import NotFound
from tunesmith.memory.questions import what_made
from tunesmith.memory.records import APPROVED, PLANNED, RUNNING, Artifact, Step
from tunesmith.tools.core.format import duration


def served(question: Question) -> Answer:
    """What is deployed now, which run made it, and what was deployed before."""
    from tunesmith.agent.commands import served_models

    store = question.store
    deployed = [line for line in served_models.status(store) if line["role"] == "deployed"]
    past = store.newest_of_kind("deployment")
    if question.query.aspect == "when" and past:
        return _when(question, past)
    history = [
        f"  {day(store.step(one.step).finished_at)}: {one.meta.get('arm', 'a')} model "
        f"{one.meta.get('serves', '')} of {one.run} ({one.step})"
        for one in past[:4]
    ]
    if not deployed:
        if not past:
            return Answer(("Nothing is served now, and nothing was deployed before.",))
        return Answer(("Nothing is served now: no server of a deployed model runs. Deployed before:", *history))
    line = deployed[0]
    state = "it is down" if line["down"] else "it does not answer at the moment"
    health = "" if line["healthy"] else f" ({state}; `tunesmith serve status` says more)"
    lines = [
        f"{clip(line['model'], 60)} is served at {line['url']}{health}; it was made in "
        f"{line['run'] or 'an unknown run'} ({line['step'] or '–'})."
    ]
    lines.append(f"Its key lies in {line['key_file']}.")
    if line["artifact"]:
        lines.append(_from(question, str(line["artifact"])))
    if len(past) > 1:
        lines += [f"It was deployed {len(past)} times in all:", *history[:3]]
    return Answer(tuple(one for one in lines if one))


def _when(question: Question, past: Sequence[Artifact]) -> Answer:
    """Every deployment that is asked about with its time and who agreed to it, the newest first."""
    store, query = question.store, question.query
    span = window(query.when)
    chosen = [
        (one, step)
        for one in past
        if query.run in ("", one.run) and (step := store.step(one.step))
        and (span is None or span[0] <= (step.finished_at or 0.0) < span[1])
    ]  # fmt: skip
    if not chosen:
        about = f"{f' of {query.run}' if query.run else ''}{f' {query.when}' if query.when else ''}"
        return Answer((f"Nothing{about} was deployed; in all {counted(len(past), 'deployment')} happened.",))
    lines = []
    for one, step in chosen[:5]:
        by = store.read("SELECT decided_by FROM approvals WHERE step = ? AND decision = 'yes'", step.id)
        who = f", agreed to by {said_of(by[0]['decided_by'])}" if by else ""
        lines.append(
            f"{day(step.finished_at)}: the {one.meta.get('arm', '')} model {one.meta.get('serves', '')} of {one.run} "
            f"was deployed ({step.id}){who}."
        )
    return Answer((*lines, *([f"{len(chosen) - 5} more before."] if len(chosen) > 5 else [])))


def _from(question: Question, artifact: str) -> str:
    try:
        lineage = what_made(question.store, artifact)["lineage"]
    except NotFound:
        return ""
    return (
        "Made from: "
        + " ← ".join(f"{up['kind']} {up['artifact']} ({up['stage']} {up['step']} of {up['run']})" for up in lineage[:4])
        + "."
    )


def jobs(question: Question) -> Answer:
    """What runs now with the time left, and what waits for a yes."""
    store = question.store
    running = store.steps(status=RUNNING)
    waiting = [step for status in (APPROVED, PLANNED) for step in store.steps(status=status)]
    lines = [_running(step) for step in running]
    if not running:
        newest = [step for run in store.runs() for step in store.steps(run.id) if step.finished_at]
        last = max(newest, key=lambda step: step.finished_at or 0.0, default=None)
        ended = (
            f"; the last step to end was {last.stage} ({last.id} of {last.run}), {last.status} {day(last.finished_at)}"
            if last
            else ""
        )
        lines = [f"Nothing is running{ended}."]
    if waiting:
        names = ", ".join(f"{step.stage} ({step.id} of {step.run})" for step in waiting[-4:])
        lines.append(f"{len(waiting)} wait{'s' if len(waiting) == 1 else ''} for a yes: {names}.")
    elif not running:
        lines.append("Nothing waits for a yes.")
    return Answer(tuple(lines))


def _running(step: Step) -> str:
    import time

    elapsed = time.time() - (step.started_at or time.time())
    left = render.eta_seconds(elapsed, step.total, step.estimated_seconds)
    share = f", {step.done / step.total:.0%} done" if step.total else ""
    return (
        f"{step.stage} ({step.id} of {step.run}) is running{share}, {duration(elapsed)} so far, "
        f"about {duration(left)} left."
    )
