"""The fields of a step that nobody named: what its run has done before."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.agent.queries.answer import find
from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import Step
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import Workspace

_NEVER = frozenset({"run", "fresh", "rollback", "accept", "port", "arm", "role", "system_prompt"})


def inherited(
    ws: Workspace,
    stage: str,
    asked: Mapping[str, object],
    run_name: str = "",
    *,
    again: bool = False,
    times: Mapping[str, float] | None = None,
) -> dict[str, object]:
    """The fields of a step: what was asked for, and below it what its run has done before; with `again` all of that.

    `times` are fields as a multiple of what they were. Raises NotFound, BadInput.
    """
    times = times or {}
    run = find(ws.store, run_name) if run_name else ws.store.newest_run()
    if run is None or stage in ("base", "merge") or asked.get("rollback"):
        return dict(asked)
    known = ws.store.steps(run.id)
    planned = {spec["stage"]: as_object(spec.get("fields", {})) for spec in run.planned}
    own = _newest(known, stage, str(asked.get("arm", "")))
    declared = catalog.BY_NAME[stage].load()
    names = [name for name in declared.request.model_fields if name not in _NEVER]
    carried = names if again else [name for name in names if name in declared.lasting]
    if own is not None:  # what a rule chose for other values or other rows is chosen anew
        carried = [name for name in carried if name not in as_object(own.plan.get("reasons") or {})]
    fields: dict[str, object] = {}
    for name in carried:
        if own is not None and name in own.request:
            fields[name] = own.request[name]
        elif name in planned.get(stage, {}):
            fields[name] = planned[stage][name]
        elif other := declared.takes_from.get(name):
            newest = _newest(known, other, "")
            if newest is not None and newest.request.get(name):
                fields[name] = newest.request[name]
    if stage == "evaluate" and asked.get("arm", "adapter") != "prompted":
        fields.pop("behaviour", None)
    if stage in ("deploy", "evaluate") and (arm := _last_arm(ws, run.id)):
        fields["arm"] = arm
    fields = declared.carried_over(fields, asked)
    return {**fields, **asked, **_multiplied(stage, times, fields, own)}


def as_before(ws: Workspace, run: str, stage: str, asked: Mapping[str, object]) -> dict[str, object]:
    """What was asked of a stage, and below it what its run has done before: of the step that broke off all of it, so
    that it goes on."""
    broken = ws.store.broken_off(run) if run else None
    again = broken is not None and broken.stage == stage and asked.get("arm", broken.arm) == broken.arm
    arm = {"arm": broken.arm} if again and broken and "arm" in broken.request else {}
    return inherited(ws, stage, {**arm, **asked}, run, again=again)


def _multiplied(
    stage: str, times: Mapping[str, float], fields: Mapping[str, object], own: Step | None
) -> dict[str, object]:
    """The fields that are to be a multiple of what they were in the run's newest such step. Raises BadInput."""
    multiplied: dict[str, object] = {}
    for name, factor in times.items():
        before = fields.get(name, own.request.get(name) if own else None)
        if not isinstance(before, int | float) or not before:
            raise BadInput(
                f"{name} has no value yet that could be multiplied; say it outright, such as “{stage} with {name}=…”"
            )
        multiplied[name] = round(before * factor) if isinstance(before, int) else before * factor
    return multiplied


def _last_arm(ws: Workspace, run: str) -> str:
    """The arm that stands last in the chain of what the run has made; empty where nothing was tuned yet."""
    kinds = {artifact.kind for artifact in ws.store.artifacts(run)}
    return next((arm for arm in ("quantized", "merged", "adapter") if arm in kinds), "")


def _newest(steps: list[Step], stage: str, arm: str) -> Step | None:
    of_stage = [step for step in steps if step.stage == stage]
    of_arm = [step for step in of_stage if arm and step.arm == arm]
    matching = of_arm or of_stage
    return matching[-1] if matching else None
