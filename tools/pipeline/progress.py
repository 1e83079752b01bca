"""What of a run is done already, and which step of it is half done: read from the store alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DECLINED, DONE, Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog

_CHOICES = ("arm", "role", "rollback")
"""Fields that say which of a stage's several tasks a step is."""


def done_positions(store: Store, run: str) -> dict[int, Step]:
    """What the run's plan holds already: position in the plan → the newest step carried out for it.

    Steps were made in the order of the plan, each attempt after the last; a stage that failed and was planned
    again stands at the same position. A step that was done on what has been made anew since is no longer done.
    """
    wanted = store.run(run).plan.get("steps", [])
    found: dict[int, Step] = {}
    position = 0
    for step in store.steps(run):
        if position == len(wanted):
            break
        if not _is_task(step, wanted[position]) or (step.status == DONE and not is_current(store, step)):
            continue
        found[position] = step
        position += step.status == DONE
    return found


def _is_task(step: Step, spec: Mapping[str, Any]) -> bool:
    if step.stage != spec["stage"]:
        return False
    fields = catalog.BY_NAME[step.stage].load().request.model_fields
    return all(
        step.request.get(name, fields[name].default) == spec["fields"].get(name, fields[name].default)
        for name in _CHOICES
        if name in fields
    )


def is_complete(store: Store, run: str) -> bool:
    """Whether every step of the written plan that a run follows is done."""
    done = done_positions(store, run)
    return all(
        position in done and done[position].status == DONE for position in range(len(store.run(run).plan["steps"]))
    )


def half_done(store: Store, run: str) -> Step:
    """The newest step that was begun and is neither done, nor declined, nor followed by one that did its work."""
    finished: set[tuple[str, str]] = set()
    for step in reversed(store.steps(run)):
        if step.status == DONE:
            finished.add((step.stage, step.arm))
        elif step.status != DECLINED and step.started_at and (step.stage, step.arm) not in finished:
            return step
    raise BadInput(f"no step of {run} is half done; start the next stage with --run {run}")


def same_inputs(store: Store, step: Step) -> bool:
    """Whether a failed step would still be planned on the artifacts it was approved for."""
    newest = _newest(store, step)
    return all(pin["artifact"] == newest[kind].id for kind, pin in _pins(step).items() if kind in newest)


def is_current(store: Store, step: Step) -> bool:
    """Whether nothing that a step worked on has been made anew in its run since, to other content."""
    newest = _newest(store, step)
    return all(pin["sha256"] == newest[kind].sha256 for kind, pin in _pins(step).items() if kind in newest)


def _newest(store: Store, step: Step) -> dict[str, Artifact]:
    return {artifact.kind: artifact for artifact in store.artifacts(step.run)}


def _pins(step: Step) -> dict[str, Mapping[str, str]]:
    """What a step works on by the kind of artifact; what a rollback serves was never the newest."""
    if step.request.get("rollback"):
        return {}
    pins = step.plan.get("inputs", {})
    return {step.arm if name == "model" else name: pin for name, pin in pins.items()}


def older_line(store: Store, plan: Plan) -> tuple[str, ...]:
    """A note where what a plan works on was made from another adapter than the run's newest."""
    newest = store.artifacts(plan.run, "adapter")
    if not newest or plan.request.get("rollback"):
        return ()
    own = {pin.artifact: store.ancestor(store.artifact(pin.artifact), "adapter") for pin in plan.inputs.values()}
    return tuple(
        f"{name} was made from adapter {adapter.id}; the newest, {newest[-1].id}, is not in it: merge it first"
        for name, adapter in own.items()
        if adapter and adapter.id != newest[-1].id
    )
