"""Carry out the plans of the queue one after another, within one budget that was agreed to.

Each step still has its price, its approval and its record; the budget only says yes to what fits into the rest of it.
A step at work is never stopped for the budget. Killed, a later start goes on: a step that is still at work is followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tunesmith.memory import queue
from tunesmith.memory.errors import ApprovalPending, BadInput, GateRefused, StepFailed
from tunesmith.memory.locks import lock_file, locked
from tunesmith.memory.queue import Budget, QueuedPlan
from tunesmith.memory.records import DONE, FAILED, RUNNING, WAITING
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline.executor import run_pipeline
from tunesmith.tools.pipeline.forecast import check_ahead
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Approver, Decision, Workspace

BY = "queue"
"""Who decided a step that a budget said yes to."""


def limits(budget: Budget) -> str:
    """A budget in words: `6 h of work and 40.0 GiB of disk`."""
    parts = (
        duration(budget.max_hours * 3600) + " of work" if budget.max_hours is not None else "",
        size(budget.max_disk_bytes) + " of disk" if budget.max_disk_bytes is not None else "",
    )
    return " and ".join(filter(None, parts))


def over(store: Store, budget: Budget, seconds: float, disk_bytes: int) -> str:
    """Why so much more does not fit into the rest of a budget; empty where it does."""
    spent = queue.spent(store, budget)
    if budget.max_hours is not None and spent.seconds + seconds > budget.max_hours * 3600:
        left = max(0.0, budget.max_hours * 3600 - spent.seconds)
        return f"takes about {duration(seconds)}, {duration(left)} left of {duration(budget.max_hours * 3600)}"
    if budget.max_disk_bytes is not None and spent.disk_bytes + disk_bytes > budget.max_disk_bytes:
        left = max(0.0, budget.max_disk_bytes - spent.disk_bytes)
        return f"needs {size(disk_bytes)} of disk, {size(left)} left of {size(budget.max_disk_bytes)}"
    return ""


@dataclass(frozen=True, slots=True)
class BudgetApprover:
    """Agrees to each step that fits into what is left of the agreed budget."""

    store: Store
    budget: Budget

    def __call__(self, plan: Plan, step: str) -> Decision:
        """Raises ApprovalPending where the step would go over the budget."""
        price = plan.estimate
        if why := over(self.store, self.budget, price.promised_seconds, price.disk_bytes):
            raise ApprovalPending(f"{plan.stage} ({step}) {why}; a larger budget for `tunesmith queue` goes on with it")
        return Decision(True, BY, f"within {limits(self.budget)}")


def carry_out(ws: Workspace, budget: Budget, approver: Approver) -> Iterator[QueuedPlan]:
    """Carry out what is open, in the order of the queue but for plans that began, which come first.

    Yields each plan as it was left. One that does not fit or cannot be done now waits, and the next has its turn.
    Raises BadInput where another process carries the queue out.
    """
    with locked(lock_file(ws.store.home, "queue"), holder="another `tunesmith queue`"):
        left = [entry for entry in queue.entries(ws.store) if entry.open]
        for entry in sorted(left, key=lambda entry: entry.status != RUNNING):
            status, note = _carried_out(ws, entry, budget, approver)
            queue.leave(ws.store, entry.id, status, note)
            yield queue.entry(ws.store, entry.id)
        if not any(entry.open for entry in queue.entries(ws.store)):
            queue.end_budget(ws.store, budget)


def _carried_out(ws: Workspace, entry: QueuedPlan, budget: Budget, approver: Approver) -> tuple[str, str]:
    """How a plan is left after its turn, and why."""
    try:
        plan = PipelinePlan.model_validate(entry.plan)
        if not entry.run and (why := _never_fits(ws, plan, budget)):
            return WAITING, why
        run = queue.begin(ws.store, entry, budget)
        run_pipeline(ws, plan, approver, resume_run=run)
    except GateRefused as refused:  # what was to be found out is found out
        return DONE, f"the gate refused: {refused}"
    except (ApprovalPending, BadInput) as waits:
        return WAITING, str(waits)
    except StepFailed as failed:
        return FAILED, str(failed)
    return DONE, ""


def _never_fits(ws: Workspace, plan: PipelinePlan, budget: Budget) -> str:
    """Why a plan is not begun: its price as a whole is over the rest of the budget. Raises BadInput where it cannot be
    done on this machine."""
    prices = [price.estimate for price in check_ahead(ws, plan) if price.estimate]
    seconds, disk = sum(price.promised_seconds for price in prices), sum(price.disk_bytes for price in prices)
    why = over(ws.store, budget, seconds, disk)
    return f"{plan.name} {why}; a larger budget for `tunesmith queue` begins it" if why else ""
