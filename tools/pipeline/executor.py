"""Carry out a written plan: the same step in a loop. What is known to fail opens no run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from tunesmith.memory.errors import Declined, GateRefused, TunesmithError
from tunesmith.memory.locks import carrying_out
from tunesmith.memory.records import DONE, FAILED, RUNNING, WAITING
from tunesmith.tools.pipeline import there
from tunesmith.tools.pipeline.forecast import Forecast, check_ahead
from tunesmith.tools.pipeline.plan_file import PipelinePlan, check_place, place_of, placed, settled
from tunesmith.tools.pipeline.progress import done_positions, half_done
from tunesmith.tools.pipeline.run_step import Outcome, continue_step
from tunesmith.tools.pipeline.workspace import Approver, StepRequest, Workspace

ShowPrices = Callable[[PipelinePlan, Sequence[Forecast]], None]


def run_pipeline(
    ws: Workspace,
    plan: PipelinePlan,
    approver: Approver,
    *,
    resume_run: str | None = None,
    show_prices: ShowPrices = lambda plan, prices: None,
    on: str = "",
) -> str:
    """Carry out a written plan step by step and return the run's id; a resumed run skips what is done.

    A fresh run's forecast, by which it was checked, goes to `show_prices` before the first step. `on` says where the
    steps that are not done are carried out, as far as they can be, whatever the plan says. Raises BadInput before
    a run is opened where a step is known to fail or another process carries the run out, and where none that is left
    can go `on` there; else what the first failing step raises, after marking the run.
    """
    plan = placed(plan, on)
    if not resume_run:
        plan = settled(plan, lambda sentence: ws.emit("message", stage=plan.steps[0].stage, text=sentence))
    prices = None if resume_run else check_ahead(ws, plan)
    run = resume_run or ws.store.new_run(plan.name, goal=plan.goal, plan=plan.model_dump(mode="json"))
    with carrying_out(ws.store.home, run):
        show = partial(show_prices, plan, prices or [])
        _carry_out(ws, run, plan, approver, resumed=prices is None, show=show, on=on)
    return run


def _carry_out(
    ws: Workspace, run: str, plan: PipelinePlan, approver: Approver, *, resumed: bool, show: Callable[[], None],
    on: str,
) -> None:  # fmt: skip
    """The steps of a plan that are not done yet, one by one; the run is marked by how they end."""
    store = ws.store
    begun = done_positions(store, run) if resumed else {}
    done = {position for position, step in begun.items() if step.status == DONE}
    check_place([spec.stage for position, spec in enumerate(plan.steps) if position not in done], on)
    store.set_run_status(run, RUNNING)
    stages = [spec.stage for spec in plan.steps]
    stage = ""
    try:
        ws.emit("run.started", run=run, name=plan.name, steps=stages, resumed=resumed)
        if not resumed:
            show()
        for position, spec in enumerate(plan.steps_to_run):
            before, stage = begun.get(position), spec.stage
            if position not in done:
                if before and on and there.leaves(ws, before, spec.fields):
                    before = None
                continue_step(ws, before, StepRequest(spec.stage, spec.fields, run), approver).done()
    except GateRefused as error:  # what was to be found out is found out: there is nothing to go on with
        store.event("gate.refused", run=run, stage=stage, reason=str(error))
        store.set_run_status(run, DONE)
        raise
    except TunesmithError as error:
        if not store.steps(run, status=RUNNING):  # else somebody else carries it out at the same time
            failed = error.exit_code == 1 and not isinstance(error, Declined)
            store.set_run_status(run, FAILED if failed else WAITING)
        raise
    except Exception:  # a defect of ours: its step may not have said that it failed
        store.set_run_status(run, FAILED)
        raise
    store.set_run_status(run, DONE)


def go_on(ws: Workspace, run: str, approver: Approver, *, on: str = "") -> Outcome:
    """Go on with the newest step of a run that was begun and did not reach its end; `on` as for `run_pipeline`.

    Raises BadInput where no step is half done, or it cannot go there.
    """
    step = half_done(ws.store, run)
    check_place([step.stage], on)
    request = StepRequest.of(step)
    request = replace(request, fields={**request.fields, **(place_of(step.stage, on) if on else {})})
    return continue_step(ws, None if there.leaves(ws, step, request.fields) else step, request, approver)
