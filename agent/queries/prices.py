"""What a step would take that nobody has ordered, and what a step takes over from its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Answer, Context, Query, RunName, StageName, cite, clip, find
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DONE, Step
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import parse_fields
from tunesmith.tools.pipeline.run_step import price
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


class PriceQuery(Query):
    """What a step would take that was not ordered: time, memory, disk. Nothing is begun."""

    kind: Literal["price"] = "price"
    stage: StageName
    run: RunName = ""
    values: dict[str, bool | int | float | str] = Field({}, description="Settings that it would have: {rows: 5000}")
    times: dict[str, float] = Field({}, description="Settings as multiples of what they were: {rows: 2} is twice")


@dataclass(frozen=True, slots=True)
class Price:
    """What a step would take, in seconds and bytes."""

    stage: str
    run: str
    seconds: float
    peak_ram_bytes: int
    peak_vram_bytes: int
    disk_bytes: int
    took_before_seconds: float | None


def answer(query: PriceQuery, context: Context) -> Answer:
    """The time first, then memory and disk, and what it took before. Raises BadInput where it cannot be priced."""
    stage = query.stage
    if stage not in catalog.BY_NAME:
        raise BadInput(f"There is no stage {clip(stage, 30)}; they are {', '.join(catalog.BY_NAME)}.")
    run = context.run(query.run).id if query.run or context.current else ""
    asked: dict[str, object] = dict(query.values)
    fields = parse_fields(stage, inherited(context.ws, stage, asked, run, again=True, times=query.times))
    asked |= {name: fields[name] for name in query.times}
    plan = price(context.ws, StepRequest(stage, fields, run))
    given = " ".join(f"{name}={value}" for name, value in asked.items())
    before = _before(context, stage, run)
    cost = plan.estimate
    vram = f" and {size(cost.peak_vram_bytes)} of VRAM" if cost.peak_vram_bytes else ""
    lines = [
        f"About {duration(cost.seconds)} for {stage}{f' with {given}' if given else ''} here, peak memory "
        f"{size(cost.peak_ram_bytes)}{vram}, disk {size(cost.disk_bytes)}.",
        f"By {cost.basis}." if cost.basis else "",
        f"Before, {stage} took {duration(before.seconds)} ({cite(before)})." if before else "",
        _training_on(context, asked.get("rows"), run) if stage == "generate" else "",
        f"Nothing is begun; “{stage}{f' {given}' if given else ''}” shows the same price and asks.",
    ]
    fact = Price(
        stage, run, cost.seconds, cost.peak_ram_bytes, cost.peak_vram_bytes, cost.disk_bytes,
        before.seconds if before else None,
    )  # fmt: skip
    return Answer(tuple(line for line in lines if line), (fact,))


def _before(context: Context, stage: str, run: str) -> Step | None:
    done = [s for s in context.store.steps(run or None, status=DONE) if s.stage == stage]
    return done[-1] if done else None


def _training_on(context: Context, rows: object, run: str) -> str:
    """How long a training on so many rows would take, at the pace of the run's own; empty where there was none."""
    trained, judged = _before(context, "train", run), _before(context, "critique", run)
    before = judged.report.get("train_rows") if judged else None
    if not (trained and trained.seconds and isinstance(rows, int) and isinstance(before, int) and before):
        return ""
    seconds = trained.seconds * rows / before
    return f"Training on {rows:,} rows at the pace of {cite(trained)} ({before} rows): about {duration(seconds)}."


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
    planned = {spec["stage"]: spec.get("fields", {}) for spec in run.plan.get("steps", [])}
    own = _newest(known, stage, str(asked.get("arm", "")))
    declared = catalog.BY_NAME[stage].load()
    names = [name for name in declared.request.model_fields if name not in _NEVER]
    taken = names if again else [name for name in names if name in declared.lasting]
    if own is not None:  # what a rule chose for other values or other rows is chosen anew
        taken = [name for name in taken if name not in (own.plan.get("reasons") or {})]
    fields: dict[str, object] = {}
    for name in taken:
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
    if stage in ("deploy", "evaluate") and (arm := _last_made(ws, run.id)):
        fields["arm"] = arm
    fields = declared.taken_along(fields, asked)
    return {**fields, **asked, **_multiplied(stage, times, fields, own)}


def _multiplied(
    stage: str, times: Mapping[str, float], fields: Mapping[str, object], own: Step | None
) -> dict[str, object]:
    """The fields that are to be a multiple of what they were in the run's newest such step. Raises BadInput."""
    found: dict[str, object] = {}
    for name, factor in times.items():
        before = fields.get(name, own.request.get(name) if own else None)
        if not isinstance(before, int | float) or not before:
            raise BadInput(
                f"{name} has no value yet that could be multiplied; say it outright, such as “{stage} with {name}=…”"
            )
        found[name] = round(before * factor) if isinstance(before, int) else before * factor
    return found


def _last_made(ws: Workspace, run: str) -> str:
    """The arm that stands last in the chain of what the run has made; empty where nothing was tuned yet."""
    kinds = {artifact.kind for artifact in ws.store.artifacts(run)}
    return next((arm for arm in ("quantized", "merged", "adapter") if arm in kinds), "")


def _newest(steps: list[Step], stage: str, arm: str) -> Step | None:
    of_stage = [step for step in steps if step.stage == stage]
    of_arm = [step for step in of_stage if arm and step.arm == arm]
    matching = of_arm or of_stage
    return matching[-1] if matching else None
