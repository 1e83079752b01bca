"""What is said where a job has ended behind the prompt, and what a native driver is woken with."""

from __future__ import annotations

from tunesmith.agent.driver.turn_deps import NOT_THE_USER
from tunesmith.agent.queries.answer import cite, clip
from tunesmith.memory.records import DONE, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration
from tunesmith.tools.evaluation.findings import findings
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.following import next_stages

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
