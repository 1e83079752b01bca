"""What a step would take that nobody has ordered: priced as every step is, by its own plan, and never begun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Answer, Context, cite, clip
from tunesmith.agent.queries.base import Query, RunName, StageName
from tunesmith.agent.queries.inherit import inherited
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DONE, Step
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.stage import Plan
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
    plan = priced(context.ws, StepRequest(stage, fields, run))
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


def priced(ws: Workspace, request: StepRequest) -> Plan:
    """The plan of a step that is not to be begun. Raises BadInput where it cannot be made now."""
    try:
        return price(ws, request)
    except (KeyError, TypeError, ValueError) as error:  # an older home lacks what today's prices are made of
        raise BadInput(
            f"{request.stage} cannot be priced from these records ({clip(error, 60)} is missing); “{request.stage}” "
            f"tries it and says why"
        ) from None


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
