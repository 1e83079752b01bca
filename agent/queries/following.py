"""Which stages could follow in a run, by what it has and what was measured of it, and what they will probably take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.facts import Fact
from tunesmith.agent.queries.inheriting import as_before
from tunesmith.agent.queries.prices import cost
from tunesmith.memory.arms import ARMS
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import DONE, RUNNING, Artifact, Run
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.progress import is_current

if TYPE_CHECKING:
    from tunesmith.tools.pipeline.forecast import Forecast


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


def ahead_of(context: Context, run: Run) -> tuple[Fact, list[Fact]]:
    """What a run has ahead, in all and step by step: its plan's steps, else the usual ones until it is served.

    Each is forecast as a plan is: on what is there and on what those before leave.
    """
    from tunesmith.tools.pipeline import forecast, planning_facts
    from tunesmith.tools.serving.eviction import machine_for_a_step

    ws, store = context.ws, context.store
    running = {(step.stage, step.arm) for step in store.steps(run.id, status=RUNNING)}
    planned = left_of_plan(store, run, RUNNING)
    specs = planned or [
        StepSpec(stage=stage, fields=as_before(ws, run.id, stage, {"arm": arm} if arm else {}))
        for stage, arm in chain_ahead(store, run) if (stage, arm) not in running and (stage, "") not in running
    ]  # fmt: skip
    if not specs:
        return {"steps_ahead": 0}, []
    machine = machine_for_a_step(store.home)
    facts = planning_facts.gather(store, run.id, vllm=ws.vllm, vllm_from=ws.vllm_from, machine=machine)
    prices = forecast.forecast(ws, PipelinePlan(name=run.id, steps=tuple(specs)), facts=facts)
    status, known = "planned" if planned else "could follow", [price.estimate for price in prices if price.estimate]
    each = [{"stage": spec.stage, "arm": _arm_of(spec), "status": status, **_priced(price)}
            for spec, price in zip(specs, prices, strict=True)]  # fmt: skip
    return {
        "steps_ahead": len(specs),
        "without_a_time_yet": len(specs) - len(known) or None,
        "all_ahead_seconds": sum(one.seconds for one in known) or None,
        "disk_ahead_bytes": sum(one.disk_bytes for one in known) or None,
        "free_ram_bytes": machine.ram_free_bytes,
        "free_vram_bytes": machine.vram_free_bytes or None,
        "free_disk_bytes": machine.disk_free_bytes,
    }, [*each]


def _priced(price: Forecast) -> Fact:
    lacks = [*price.lacks, *[price.refused] * bool(price.refused)]
    return {**cost(price.estimate), "fits": not lacks if lacks or price.estimate else None, "lacks": lacks}


def left_of_plan(store: Store, run: Run, *begun: str) -> list[StepSpec]:
    """The steps of a run's plan that were not done yet, nor have one of the statuses `begun`."""
    done = [step.stage for step in store.steps(run.id) if step.status in (DONE, *begun)]
    stages = [str(spec.get("stage", "")) for spec in run.planned]
    return [
        StepSpec(stage=stage, fields=as_object(run.planned[at].get("fields", {})))
        for at, stage in enumerate(stages)
        if stage in catalog.BY_NAME and stages[: at + 1].count(stage) > done.count(stage)
    ]  # fmt: skip


def _arm_of(spec: StepSpec) -> str:
    return str(spec.fields.get("arm", "adapter")) if spec.stage == "evaluate" else ""
