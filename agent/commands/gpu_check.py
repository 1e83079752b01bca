"""`tunesmith doctor --gpu`: the check of a card, from its price to its findings."""

from __future__ import annotations

import argparse

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.commands.approvals import HashApprover
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.run_steps import approver_of, interrupted, waiting_step
from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.pipeline.gpu_check.stage import GpuCheckResult
from tunesmith.tools.pipeline.run_step import current_plan, run_pending, run_step
from tunesmith.tools.pipeline.workspace import StepRequest

STAGE = "doctor"


def gpu_check(args: argparse.Namespace, settings: Settings, store: Store, out: Output) -> int:
    """Price it, ask, follow it, and tell every item: 0, or 1 where an item failed.

    Raises BadInput where there is no card to measure on, StepFailed where it was declined or its worker died,
    ApprovalPending where nobody is there to say yes.
    """
    if out.page is not None:
        raise BadInput("the GPU is measured from a shell, where nothing else waits: `tunesmith doctor --gpu`")
    if args.driver:
        raise BadInput("--driver and --gpu want the same card; give one of them")
    ws = settings.workspace(store, out.emit)
    try:
        if args.approve is not None:
            waiting = waiting_step(store, STAGE, args.approve)
            ended = run_pending(ws, waiting, HashApprover(current_plan(waiting).hash)).done()
        else:
            ended = run_step(ws, StepRequest(STAGE, {}, ""), approver_of(args, out)).done()
    except KeyboardInterrupt:  # only the watching ends: the step goes on
        return interrupted(store, out)
    return tell(ended, out)


def tell(ended: Step, out: Output) -> int:
    """Show an ended check: 0, or 1 where an item failed."""
    result = GpuCheckResult.of(ended)
    assert result is not None, "it has just been recorded"
    document = {"run": ended.run, "step": ended.id, **result.model_dump(mode="json")}
    out.document(document, view(result))
    return 1 if result.failed else 0


def view(result: GpuCheckResult) -> RenderableType:
    """The items for a terminal, those that failed once more below with the reason."""
    head = (
        f"{result.device}: {result.ok} as predicted, {result.failed} not, {result.skipped} left out; took "
        f"{duration(result.took_seconds)}"
    )
    rows = [
        [i.name, i.state, _quantity(i.expected, i.unit), _quantity(i.measured, i.unit), i.ratio, f"{i.seconds:.1f} s"]
        for i in result.items
    ]
    table = render.rows_table(["item", "state", "expected", "measured", "ratio", "took"], rows, exact=True)
    reasons = [render.plain(f"! {item.name}: {item.why}") for item in result.items if item.state == "failed"]
    return Group(render.plain(head), table, *reasons)


def _quantity(value: float | str | None, unit: str) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    if unit == "bytes":
        return size(int(value))
    return f"{value:.3g} {unit}"
