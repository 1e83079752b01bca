"""What a step would take that nobody has ordered; and what was agreed to and refused, by whom, when, at which price."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from sqlite3 import Row
from typing import Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Context, decided_by, find, spanned, within
from tunesmith.agent.queries.facts import Fact, Proposed, Query, Result, RunName, Since, StageName, StepName, Until
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.records import DONE, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Estimate
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.following import inherited
from tunesmith.tools.pipeline.plan_file import parse_fields
from tunesmith.tools.pipeline.run_step import price
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


class PriceQuery(Query):
    """Time, memory and disk of a step that was not ordered."""

    kind: Literal["price"] = "price"
    stage: StageName
    run: RunName = ""
    values: dict[str, bool | int | float | str] = Field({}, description="Settings: {rows: 5000}")
    times: dict[str, float] = Field({}, description="Multiples of what they were: {rows: 2}")


def answer(query: PriceQuery, context: Context) -> Result:
    """What a step would take beside what is free, and what it took before. Raises BadInput where it has no price."""
    stage, store = query.stage, context.store
    if stage not in catalog.BY_NAME:
        raise BadInput(f"There is no stage {stage[:30]}; they are {', '.join(catalog.BY_NAME)}.")
    run = context.run(query.run).id if query.run or context.current else ""
    asked: dict[str, object] = dict(query.values)
    fields = parse_fields(stage, inherited(context.ws, stage, asked, run, again=True, times=query.times))
    asked |= {name: fields[name] for name in query.times}
    plan = price(context.ws, StepRequest(stage, fields, run))
    before = _before(store, stage, run)
    fact = {
        **cost(plan.estimate),
        "free_ram_bytes": plan.free_ram_bytes,
        "free_vram_bytes": plan.free_vram_bytes or None,
        "free_disk_bytes": plan.free_disk_bytes,
        "fits": not plan.refusals,
        "by": plan.estimate.basis,
        "before": picked_times(before) if before else {},
        **(quantized_to(store, run) if stage == "quantize" else {}),
    }
    proposed = (Proposed(run, stage, asked),) if catalog.BY_NAME[stage].asks(fields) else ()
    return Result((fact,), {"stage": stage, "run": run, **asked}, (*plan.refusals, *plan.notes), proposals=proposed)


_COST = {
    "estimated_seconds": "seconds", "peak_ram_bytes": "peak_ram_bytes", "peak_vram_bytes": "peak_vram_bytes",
    "disk_bytes": "disk_bytes",
}  # fmt: skip


def cost(of: Estimate | None) -> Fact:
    """A price: its time, its peaks, its disk; what is not known of it is None."""
    return {name: getattr(of, field, None) or None for name, field in _COST.items()}


def cost_of(ws: Workspace, stage: str, run: str, fields: Mapping[str, object]) -> Fact:
    """The price of a step as its run does it; why it cannot be done as things are."""
    try:
        request = parse_fields(stage, inherited(ws, stage, fields, run, again=True))
        return cost(price(ws, StepRequest(stage, request, run)).estimate)
    except TunesmithError as error:
        return {"cannot_be_done": str(error)}


def picked_times(step: Step) -> Fact:
    """An earlier step as a price names it."""
    return {"step": step.id, "run": step.run, "seconds": step.seconds, "finished_at": step.finished_at}


def _before(store: Store, stage: str, run: str) -> Step | None:
    return next((s for s in reversed(store.steps(run or None, status=DONE)) if s.stage == stage), None)


def quantized_to(store: Store, run: str) -> Fact:
    """How large the quantized model of a run becomes, by each of its formats, where its base's shape is recorded."""
    config = next((a.known_config for a in reversed(store.artifacts(run, "base")) if a.known_config), None)
    schemes = SCHEMES.values() if config else ()
    sizes = {one.bits: one.weight_bytes(config, one.group_of(config)) for one in schemes if config}
    return {f"at_{bits}_bits_bytes": sizes[bits] for bits in sorted(sizes)}


# Agreed to and refused


_DECIDED = (
    """SELECT a.*, s.run, s.arm, s.stage FROM approvals a JOIN steps s ON s.step = a.step ORDER BY a.rowid DESC"""
)
_ANSWERED = "SELECT run, at, data FROM events WHERE event = 'question.answered' AND ? IN ('', run) ORDER BY rowid DESC"


class ApprovalsQuery(Query):
    """What the user agreed to, refused or asked: who, when, which price; what ran without a yes."""

    kind: Literal["approvals"] = "approvals"
    decision: Literal["any", "yes", "no", "asked"] = "any"
    run: RunName = ""
    stage: StageName = ""
    step: StepName = ""
    since: Since = None
    until: Until = None


def approvals(query: ApprovalsQuery, context: Context) -> Result:
    """The decisions that are asked about, the newest first, and how many there are of each kind."""
    store, run = context.store, find(context.store, query.run).id if query.run else ""
    if query.decision == "asked":
        return _questions(store, query, run)
    of_it = {"run": run, "stage": query.stage, "step": query.step}

    def is_meant(at: float | None, *of: str) -> bool:
        named = zip(of_it.values(), of, strict=True)
        return within(at, query.since, query.until) and all(asked in ("", own) for asked, own in named)

    decided = store.read(_DECIDED)
    chosen = [row for row in decided if is_meant(row["decided_at"], row["run"], row["stage"], row["step"])]
    counts = Counter(row["decision"] for row in chosen)
    begun = [
        step
        for one in store.runs()
        for step in store.steps(one.id)
        if is_meant(step.started_at, one.id, step.stage, step.id)
    ]
    ran = [step for step in begun if catalog.ENTRIES[step.stage].asks(step.request)]
    agreed = {row["step"] for row in decided if row["decision"] == "yes"}
    of = {
        **of_it,
        **spanned(query.since, query.until),
        "approved": counts["yes"],
        "refused": counts["no"],
        "expensive_steps_that_ran": len(ran),
        "of_them_without_a_yes": sum(step.id not in agreed for step in ran),
    }
    return Result(tuple(_decision(row) for row in chosen if query.decision in ("any", row["decision"])), of)


def _questions(store: Store, query: ApprovalsQuery, run: str) -> Result:
    """What was asked before a price, such as whether to train on rows that nothing has checked, and what was said."""
    every = [(row, json.loads(row["data"])) for row in store.read(_ANSWERED, run)]
    answered = [
        {"stage": data["stage"], "run": row["run"] or "", "answer": data["answer"], "question": data["text"],
         "answered_at": row["at"]}
        for row, data in every if within(row["at"], query.since, query.until)
    ]  # fmt: skip
    # A question about a stage's work may have been put before the price of the one in front of it.
    of_stage = [one for one in answered if query.stage in ("", one["stage"])] or answered
    return Result(tuple(of_stage), {"run": run, "questions_answered": len(of_stage)})


def _decision(row: Row) -> Fact:
    return {
        "step": row["step"], "run": row["run"], "stage": row["stage"], "arm": row["arm"] or "",
        "decision": row["decision"], "by": decided_by(row["decided_by"]), "reason": row["reason"] or "",
        "decided_at": row["decided_at"], "priced_seconds": json.loads(row["price"]).get("seconds"),
    }  # fmt: skip
