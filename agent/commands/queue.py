"""`tunesmith queue`: plans that wait for the machine, carried out one after another within one agreed budget."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from rich.console import RenderableType

from tunesmith.agent.commands import render, run_steps
from tunesmith.agent.commands.first_look import FirstLook
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.price import forecast_table
from tunesmith.agent.commands.settings import Settings
from tunesmith.memory import queue as plans
from tunesmith.memory.errors import ApprovalPending, BadInput
from tunesmith.memory.json_values import as_int
from tunesmith.memory.queue import Budget, QueuedPlan
from tunesmith.memory.records import FAILED
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, size
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.pipeline import queue as carrying
from tunesmith.tools.pipeline.forecast import check_ahead, facts_now, forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan, settled
from tunesmith.tools.pipeline.workspace import Workspace

_COLUMNS = ("plan", "name", "status", "run", "hours", "disk", "note")


def queue(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """`queue [list]` shows the plans, `add PLAN` and `remove N` change them; with a budget they are carried out.

    0; 1 where a plan failed, 3 where one waits for a yes or a larger budget. Raises as the approver does.
    """
    if args.action == "add":
        ws = run_steps.workspace_of(args, settings, store, out)
        return add(ws, run_steps.written_plan(args.plan, store, out.say), out)
    if args.action == "remove":
        removed = plans.remove(store, args.number)
        out.document({"plan": removed.id, "status": removed.status}, f"{removed.name} is off the queue")
        return 0
    if args.action == "list" or not (_asked_for(args) or _wants_to_go_on(args, store)):
        out.document(*_listed(store))
        return 0
    return _carry_out(args, run_steps.workspace_of(args, settings, store, out), out)


def add(ws: Workspace, plan: PipelinePlan, out: Output) -> int:
    """Append a plan that this machine can carry out, with its price. Raises BadInput."""
    plan = settled(plan, out.say)
    prices = check_ahead(ws, plan)
    number = plans.add(ws.store, plan.model_dump(mode="json"))
    seconds = sum(price.estimate.seconds for price in prices if price.estimate)
    out.document(
        {"plan": number, "name": plan.name, "status": "waiting", "estimated_seconds": seconds},
        forecast_table(plan.name, prices, plan.reasons),
    )
    out.say(f"{plan.name} is plan {number} of the queue; `tunesmith queue --max-hours 6` carries out what waits")
    return 0


def _asked_for(args: argparse.Namespace) -> bool:
    return any(limit is not None for limit in (args.budget_hours, args.max_disk))


def _wants_to_go_on(args: argparse.Namespace, store: Store) -> bool:
    """Whether `--yes` is given where an agreed budget has plans left."""
    return bool(getattr(args, "yes", False) and plans.agreed_budget(store))


def _carry_out(args: argparse.Namespace, ws: Workspace, out: Output) -> int:
    store = ws.store
    left = [entry for entry in plans.entries(store) if entry.open]
    if not left:
        raise BadInput("no plan waits in the queue; `tunesmith queue add PLAN.yaml` adds one")
    budget = _budget(args, ws, left, out)
    approver = FirstLook(carrying.BudgetApprover(store, budget), store, out)
    ended: list[QueuedPlan] = []
    try:
        for entry in carrying.carry_out(ws, budget, approver):
            ended.append(entry)
            out.let_go()
            out.say(f"plan {entry.id} ({entry.name}) {entry.status}{f': {entry.note}' if entry.note else ''}")
    except KeyboardInterrupt:  # only the watching ends
        out.let_go()
        out.say("let go of the queue; a step at work goes on, and `tunesmith queue --yes` does the rest")
        return run_steps.LET_GO
    out.document(*_listed(store))
    if any(entry.status == FAILED for entry in ended):
        return 1
    return ApprovalPending.exit_code if any(entry.open for entry in ended) else 0


def _budget(args: argparse.Namespace, ws: Workspace, left: Sequence[QueuedPlan], out: Output) -> Budget:
    """The budget that these plans are carried out under: the agreed one where it is still open and no other is named,
    else the named one after a yes. Raises ApprovalPending where nobody says it, BadInput after a no."""
    named = Budget(args.budget_hours, None if args.max_disk is None else round(args.max_disk * 1e9))
    agreed = plans.agreed_budget(ws.store)
    if agreed and (not _asked_for(args) or replace(agreed, id=0) == named):
        spent = plans.spent(ws.store, agreed)
        out.say(
            f"goes on within {carrying.limits(agreed)}, as agreed to; {duration(spent.seconds)} and "
            f"{size(spent.disk_bytes)} are spent"
        )
        return agreed
    plan = _plan(ws, left, named)
    out.emit("plan.shown", run="", step="", stage=plan.stage, plan_hash=plan.hash, plan=plan)
    decision = run_steps.approver_of(args, out)(plan, "")
    if not decision.yes:
        raise BadInput(f"the queue was not begun: {decision.reason or 'the answer was no'}")
    return plans.agree(ws.store, named, decision.by)


def _plan(ws: Workspace, left: Sequence[QueuedPlan], budget: Budget) -> Plan:
    """What is agreed to once for all: the plans, their prices together, and the limits."""
    facts = facts_now(ws)
    machine, priced = facts.machine, []
    for entry in left:
        prices = forecast(ws, PipelinePlan.model_validate(entry.plan), facts=facts)
        priced.append((entry, [price.estimate for price in prices if price.estimate]))
    estimates = [price for _, of_plan in priced for price in of_plan]
    lines = [
        f"plan {entry.id}, {entry.name}: about {duration(sum(price.seconds for price in of_plan))}, "
        f"{size(sum(price.disk_bytes for price in of_plan))} of disk"
        for entry, of_plan in priced
    ]
    return Plan(
        stage="queue",
        run="",
        summary=f"carry out {count(len(left), 'plan')} within {carrying.limits(budget)}",
        steps=tuple(lines),
        request={"max_hours": budget.max_hours, "max_disk_bytes": budget.max_disk_bytes, "plans": [e.id for e in left]},
        estimate=Estimate(
            seconds=sum(price.seconds for price in estimates),
            basis="the prices of the plans",
            peak_ram_bytes=max((price.peak_ram_bytes for price in estimates), default=0),
            peak_vram_bytes=max((price.peak_vram_bytes for price in estimates), default=0),
            disk_bytes=sum(price.disk_bytes for price in estimates),
        ),
        notes=(*lines, "a step that does not fit into the rest of the budget waits, and the next plan has its turn"),
        free_ram_bytes=machine.ram_free_bytes + machine.swap_free_bytes,
        free_vram_bytes=machine.vram_free_on(1),
        free_disk_bytes=machine.disk_free_bytes,
    )


def _listed(store: Store) -> tuple[dict[str, object], RenderableType | str]:
    lines = [_line(store, entry) for entry in plans.entries(store) if entry.status != plans.REMOVED]
    budget = plans.agreed_budget(store)
    document: dict[str, object] = {"plans": lines, "budget": None}
    if budget:
        spent = plans.spent(store, budget)
        document["budget"] = {
            "max_hours": budget.max_hours, "max_disk_bytes": budget.max_disk_bytes,
            "spent_seconds": spent.seconds, "spent_disk_bytes": spent.disk_bytes,
        }  # fmt: skip
    if not lines:
        return document, "no plan is in the queue; `tunesmith queue add PLAN.yaml` adds one"
    rows = [[line[name] if name != "disk" else size(as_int(line["disk_bytes"])) for name in _COLUMNS] for line in lines]
    return document, render.rows_table(_COLUMNS, rows, optional=("disk", "note"))


def _line(store: Store, entry: QueuedPlan) -> dict[str, object]:
    """A plan as it stands: its hours and bytes are those of its run."""
    steps = store.steps(entry.run) if entry.run else []
    made = sum(artifact.bytes for artifact in store.artifacts(entry.run)) if entry.run else 0
    return {
        "plan": entry.id, "name": entry.name, "status": entry.status, "run": entry.run or None,
        "hours": round(sum(step.seconds or 0 for step in steps) / 3600, 2), "disk_bytes": made, "note": entry.note,
    }  # fmt: skip
