"""What of a run is done already, and which step of it is half done: read from the store alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_list, as_object, as_record
from tunesmith.memory.records import DONE, Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import StepSpec


def done_positions(store: Store, run: str) -> dict[int, Step]:
    """What the run's plan holds already: position in the plan → the newest step carried out for it.

    Steps were made in the order of the plan, each attempt after the last; a stage that failed and was planned
    again stands at the same position, and so does one whose price waits for a yes. A step that was done on what has
    been made anew since is no longer done.
    """
    wanted = [StepSpec.model_validate(spec) for spec in store.run(run).planned]
    positions: dict[int, Step] = {}
    position = 0
    for step in store.priced_steps(run):
        if position == len(wanted):
            break
        if not _is_task(step, wanted[position]) or (step.status == DONE and not is_current(store, step)):
            continue
        positions[position] = step
        position += step.status == DONE
    return positions


def _is_task(step: Step, spec: StepSpec) -> bool:
    if step.stage != spec.stage:
        return False
    declared = catalog.ENTRIES[step.stage].load()
    fields = declared.request.model_fields
    return all(
        step.request.get(name, fields[name].default) == spec.fields.get(name, fields[name].default)
        for name in declared.identified_by
    )


def is_complete(store: Store, run: str) -> bool:
    """Whether every step of the written plan that a run follows is done."""
    done = done_positions(store, run)
    return all(
        position in done and done[position].status == DONE
        for position in range(len(as_list(store.run(run).plan["steps"])))
    )


def half_done(store: Store, run: str) -> Step:
    """The newest step that was begun and is neither done nor followed by one that did its work."""
    finished: set[tuple[str, str]] = set()
    for step in reversed(store.steps(run)):
        if step.status == DONE:
            finished.add((step.stage, step.arm))
        elif step.started_at and (step.stage, step.arm) not in finished:
            return step
    raise BadInput(f"no step of {run} is half done: name the stage to go on with, such as train, and --run {run}")


def same_inputs(store: Store, step: Step) -> bool:
    """Whether a failed step would still be planned on the artifacts it was approved for."""
    return all(pinned.id == newest.id for pinned, newest in _beside_newest(store, step))


def is_current(store: Store, step: Step) -> bool:
    """Whether nothing that a step worked on has been made anew in its run since, to other content."""
    return all(pinned.sha256 == newest.sha256 for pinned, newest in _beside_newest(store, step))


def _beside_newest(store: Store, step: Step) -> list[tuple[Artifact, Artifact]]:
    """Each artifact that a step works on, and the newest of its kind in the run; none where it goes back to an old one.

    The artifact as it was pinned, by id and digest: the plan was made on that. What its stage made of it, as rows that
    are added to rows, is no later one.
    """
    if not _works_on_newest(step.stage, step.request):
        return []
    artifacts, stages = store.artifacts(step.run), {other.id: other.stage for other in store.steps(step.run)}
    pins = [as_object(pin) for pin in as_object(step.plan.get("inputs", {})).values()]
    pinned = [replace(store.artifact(str(pin["artifact"])), sha256=str(pin["sha256"])) for pin in pins]
    pairs = []
    for artifact in pinned:
        own = {artifact.id}  # and what the step's stage made of it
        newest = None
        for other in artifacts:
            if own & set(other.parents) and stages.get(other.step) == step.stage:
                own.add(other.id)
            elif other.kind == artifact.kind:
                newest = other
        pairs += [(artifact, newest)] if newest else []
    return pairs


def _works_on_newest(stage: str, request: Mapping[str, object]) -> bool:
    declared = catalog.ENTRIES[stage].load()
    known = {name: value for name, value in request.items() if name in declared.request.model_fields}
    typed_request = as_record(declared.request.model_construct, known)  # of any version: it was valid then
    return declared.works_on_newest(typed_request)


def older_line(store: Store, plan: Plan) -> tuple[str, ...]:
    """A note where what a plan works on was made from another adapter than the run's newest."""
    newest = store.artifacts(plan.run, "adapter")
    if not newest or not _works_on_newest(plan.stage, plan.request):
        return ()
    own = {pin.artifact: store.ancestor(store.artifact(pin.artifact), "adapter") for pin in plan.inputs.values()}
    return tuple(
        f"{name} was made from adapter {adapter.id}; the newest, {newest[-1].id}, is not in it: merge it first"
        for name, adapter in own.items()
        if adapter and adapter.id != newest[-1].id
    )
