"""Which stages could follow in a run, by what it has and what was measured of it; and the fields of such a step that
nobody named: what its run has done before."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import DONE, Artifact, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.progress import is_current
from tunesmith.tools.pipeline.workspace import Workspace


def next_stages(store: Store, run: Run | None) -> list[str]:
    """What could follow, the likeliest first: the first stage that has what it needs and has not made what it makes."""
    if run is None:
        return [entry.name for entry in catalog.STAGES if entry.makes and not entry.needs]
    newest = {artifact.kind: artifact for artifact in store.artifacts(run.id)}
    kinds = {kind for kind, artifact in newest.items() if _of_newest_adapter(store, artifact, newest)}
    due, following = [], []
    for entry in catalog.STAGES:
        declared = entry.load()
        if declared.measures:
            due += [entry.name] if _unmeasured(store, run, kinds, entry) else []
        elif entry.makes and entry.makes not in kinds and kinds.issuperset((*entry.needs, *declared.usually_after)):
            following += [] if _too_late(entry, kinds) else [entry.name]
    return due + following


def _unmeasured(store: Store, run: Run, kinds: Collection[str], test: catalog.Entry) -> list[str]:
    """The arms that a run's test is still due for, of the first and the last that it has: of what lies between the
    last one's is proof enough."""
    done = [step for step in store.steps(run.id, status=DONE) if step.stage == test.name]
    measured = {step.arm for step in done if is_current(store, step)}
    there = [kind for kind in test.load().measures if kind in kinds]
    return [arm for arm in dict.fromkeys((*there[:1], *there[-1:])) if arm not in measured]


def chain_ahead(store: Store, run: Run) -> list[tuple[str, str]]:
    """The usual steps that a run has ahead until it is served, each with the arm that it measures or nothing.

    Of a run without rows only what could follow at once: where rows come from is for its user to say.
    """
    first = next_stages(store, run)
    newest = {artifact.kind: artifact for artifact in store.artifacts(run.id)}
    kinds = {kind for kind, artifact in newest.items() if _of_newest_adapter(store, artifact, newest)}
    test = next(entry for entry in catalog.STAGES if entry.load().measures)
    arms = test.load().measures
    ahead = [(test.name, arm) for arm in _unmeasured(store, run, kinds, test)]
    if "rows" not in kinds:
        return [*ahead, *((stage, "") for stage in first if stage != test.name)]
    for entry in catalog.STAGES:
        lacking = bool(entry.makes) and entry != test and entry.makes not in kinds
        if lacking and kinds >= {*entry.needs, *entry.load().usually_after} and not _too_late(entry, kinds):
            ahead += [(entry.name, ""), *([(test.name, entry.makes)] if entry.makes in arms else [])]
            kinds.add(entry.makes)
    return ahead


def lacking_before(
    store: Store,
    run: Run,
    stage: str,
    fields: Mapping[str, object],
) -> tuple[list[str], list[str]]:
    """What a run lacks for a step with such fields, and the usual steps that it has ahead before that one; no steps
    where the usual way does not lead to it."""
    have = {artifact.kind for artifact in store.artifacts(run.id)}
    arm = str(fields.get("arm", ""))
    needs = [*catalog.BY_NAME[stage].needed(fields), *([arm] if arm in ARMS and arm != "prompted" else [])]
    lacking = [f"the {kind} model" if kind in _MODELS else f"the {kind}" for kind in dict.fromkeys(needs)
               if kind not in have]  # fmt: skip
    before: list[str] = []
    for ahead, tested in chain_ahead(store, run):
        if ahead == stage and tested in ("", arm or "adapter"):
            return lacking, before
        before.append(f"{ahead} of the {tested}" if tested else ahead)
    return lacking, []


_MODELS = ("base", "merged", "quantized")


def _too_late(entry: catalog.Entry, kinds: Collection[str]) -> bool:
    """Whether the run has gone on without a thing: its training has ended without a smoke test."""
    later = catalog.STAGES[catalog.STAGES.index(entry) + 1 :]
    needed = any(entry.makes in (*one.needs, *one.load().usually_after) for one in later)
    return not needed and any(one.makes in kinds for one in later if one.needs == entry.needs)


def _of_newest_adapter(store: Store, artifact: Artifact, newest: Mapping[str, Artifact]) -> bool:
    """Whether an artifact holds the run's newest adapter, or has nothing to do with any."""
    own = store.ancestor(artifact, "adapter")
    return own is None or "adapter" not in newest or own.id == newest["adapter"].id


# The fields that nobody named

_NEVER = frozenset({"run", "fresh", "rollback", "accept", "port", "arm", "role", "system_prompt"})


def inherited(
    ws: Workspace,
    stage: str,
    asked: Mapping[str, object],
    run: str = "",
    *,
    again: bool = False,
    times: Mapping[str, float] | None = None,
) -> dict[str, object]:
    """The fields of a step: what was asked for, and below it what its run has done before; with `again` all of that.

    `times` are fields as a multiple of what they were. Raises NotFound, BadInput.
    """
    times = times or {}
    of_run = ws.store.run(run) if run else ws.store.newest_run()
    if of_run is None or stage in ("base", "merge") or asked.get("rollback"):
        return dict(asked)
    known = ws.store.steps(of_run.id)
    planned = {spec["stage"]: as_object(spec.get("fields", {})) for spec in of_run.planned}
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
    if stage in ("deploy", "evaluate") and (arm := _last_arm(ws, of_run.id)):
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
