"""What of a run is done already, and which step of it is half done: read from the store alone."""

from __future__ import annotations

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DECLINED, DONE, Step
from tunesmith.memory.store import Store


def done_positions(store: Store, run: str) -> dict[int, Step]:
    """What the run's plan holds already: position in the plan → the newest step carried out for it.

    Steps were made in the order of the plan, each attempt after the last; a stage that failed and was planned
    again stands at the same position.
    """
    wanted = [spec["stage"] for spec in store.run(run).plan.get("steps", [])]
    found: dict[int, Step] = {}
    position = 0
    for step in store.steps(run):
        if position < len(wanted) and step.stage == wanted[position]:
            found[position] = step
            position += step.status == DONE
    return found


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
    pins = step.plan.get("inputs", {})
    newest = {artifact.kind: artifact.id for artifact in store.artifacts(step.run)}
    return all(newest.get(name, pin["artifact"]) == pin["artifact"] for name, pin in pins.items())
