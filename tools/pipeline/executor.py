"""Carry out one step or a whole written plan: plan → price → approval → worker → record. There is no other way.

What asks (a terminal, `--yes`, a test) and what shows (a bar, JSON lines) is handed in; the order is decided here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tunesmith.memory.errors import BadInput, StepFailed, TunesmithError
from tunesmith.memory.records import DECLINED, DONE, FAILED, RUNNING, WAITING, Step
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.evaluation.advice import before_spending
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.machine.vllm_program import no_vllm
from tunesmith.tools.pipeline import catalog, driver_eviction, launcher, planning_facts
from tunesmith.tools.pipeline.plan_file import ArcPlan, parse_request
from tunesmith.tools.pipeline.progress import done_positions, half_done, older_line, same_inputs
from tunesmith.tools.pipeline.workspace import Approver, Decision, Edited, Workspace
from tunesmith.tools.serving.eviction import machine_for_a_step


def price(ws: Workspace, run: str, stage: str, fields: Mapping[str, Any]) -> Plan:
    """The priced plan of one step as things stand now. Raises BadInput where it cannot be done."""
    plan = quote(ws, run, stage, fields)
    if plan.refusals:
        raise BadInput(f"{stage}: {'; '.join(plan.refusals)}")
    return plan


def quote(ws: Workspace, run: str, stage: str, fields: Mapping[str, Any]) -> Plan:
    """Like `price`, but a plan that cannot be done is returned with its refusals."""
    request = parse_request(stage, {**fields, "run": run})
    declared = catalog.BY_NAME[stage].load()
    seen = declared.look(request, ws.store, run) if declared.look else {}
    machine = machine_for_a_step(ws.store.home)
    known = planning_facts.gather(ws.store, run, vllm=ws.vllm, vllm_from=ws.vllm_from, machine=machine, seen=seen)
    plan = declared.plan(request, known)
    guests = driver_eviction.in_the_way(ws.store.home, plan.estimate)
    return plan.model_copy(
        update={
            "notes": (
                *before_spending(stage, ws.store.steps(run, status=DONE)),
                *older_line(ws.store, plan),
                *((driver_eviction.GIVES_WAY,) if guests else ()),
            ),
            "free_ram_bytes": machine.ram_free_bytes + machine.swap_free_bytes,
            "free_vram_bytes": machine.vram_free_bytes,
            "free_disk_bytes": machine.disk_free_bytes,
        }
    )


def propose(ws: Workspace, run: str, plan: Plan) -> str:
    """Record a priced plan as a step that waits for a decision, show it, and return the step's id."""
    price_ = plan.estimate
    step = ws.store.propose(
        run,
        plan.stage,
        arm=plan.arm,
        request=plan.request,
        plan=plan.model_dump(mode="json"),
        plan_hash=plan.hash,
        inputs={name: pin.artifact for name, pin in plan.inputs.items()},
        estimated_seconds=price_.seconds,
        estimated_peak_bytes=max(price_.peak_ram_bytes, price_.peak_vram_bytes),
    )
    ws.emit("plan.shown", run=run, step=step, stage=plan.stage, plan_hash=plan.hash, plan=plan)
    return step


def decide(ws: Workspace, step: str, plan: Plan, approver: Approver) -> bool:
    """Ask, and record the answer; True for yes. Raises ApprovalPending where nobody can answer."""
    seconds = plan.estimate.seconds
    ws.emit(
        "approval.required", run=plan.run, step=step, stage=plan.stage, plan_hash=plan.hash, estimated_seconds=seconds
    )
    decision = approver(plan, step)
    word = "yes" if decision.yes else "no"
    ws.store.decide(step, word, by=decision.by, reason=decision.reason, price=plan.estimate.model_dump(mode="json"))
    ws.store.event("approval.decided", run=plan.run, step=step, decision=word, reason=decision.reason)
    ws.emit("approval.decided", step=step, stage=plan.stage, decision=word, by=decision.by, reason=decision.reason)
    return decision.yes


def agree(ws: Workspace, step: str, plan: Plan, approver: Approver) -> tuple[str, Plan] | None:
    """Ask until there is a yes or a no; the agreed step with its plan, or None for a no.

    An edit is checked and priced before anything changes: the old plan is then declined with the edit as its reason,
    and the new one is a step of its own, shown and asked about again. Raises ApprovalPending where nobody answers.
    """
    while True:
        try:
            return (step, plan) if decide(ws, step, plan, approver) else None
        except Edited as edit:
            fields = {name: value for name, value in plan.request.items() if name != "run"} | edit.fields
            try:
                priced = price(ws, plan.run, plan.stage, fields)
            except TunesmithError as error:
                ws.emit("message", text=f"that cannot be: {error}")
                continue
            decide(ws, step, plan, lambda *_, edit=edit: Decision(False, "edit", f"edited: {edit}"))
            step, plan = propose(ws, plan.run, priced), priced


def start(ws: Workspace, step: str) -> Step:
    """Launch the worker of an approved step and return at once; a driver that it does not fit beside gives way."""
    price_ = Plan.model_validate(ws.store.step(step).plan).estimate
    if driver_eviction.give_way(ws.store.home, price_):
        ws.emit("driver.gave_way", step=step, text=driver_eviction.GIVES_WAY)
    started = launcher.launch(ws.store, step, vllm=ws.vllm)
    ws.emit("step.started", run=started.run, step=step, stage=started.stage)
    return started


def watch(ws: Workspace, step: str) -> Step:
    """Follow a worker to its end and return the ended step. Raises StepFailed where it failed."""
    current = ws.store.step(step)
    for current in launcher.follow(ws.store, step):
        if not current.ended:
            ws.emit(
                "step.progress",
                step=step,
                stage=current.stage,
                done=current.done,
                total=current.total,
                note=current.note,
            )
    ws.store.announce([step])
    ws.emit(
        "step.finished",
        run=current.run,
        step=step,
        stage=current.stage,
        status=current.status,
        seconds=current.seconds,
        estimated_seconds=current.estimated_seconds,
        peak_rss_bytes=current.peak_rss_bytes,
        result=current.result,
        error=current.error,
    )
    if current.status != DONE:
        raise StepFailed(f"{current.stage} ({step}) {current.status}: {current.error}")
    return current


def perform(ws: Workspace, run: str, stage: str, fields: Mapping[str, Any], approver: Approver) -> Step:
    """Carry out one step from its plan to its record, and return the ended step.

    Raises StepFailed where it failed or was declined, BadInput before anything started.
    """
    plan = price(ws, run, stage, fields)
    step = propose(ws, run, plan)
    return _approve_and_run(ws, step, plan, approver)


def resume(ws: Workspace, step: str, approver: Approver) -> Step:
    """Go on with a step that failed or was stopped: same plan, same folder, a new yes.

    Raises BadInput where it serves and there is no vllm program any more, GateRefused where it may not be deployed now.
    """
    record = ws.store.step(step)
    if catalog.BY_NAME[record.stage].serves and not ws.vllm:
        raise BadInput(no_vllm(ws.vllm_from))
    if record.stage == "deploy":  # what was measured since may have closed the gate
        quote(ws, record.run, record.stage, {k: v for k, v in record.request.items() if k != "run"})
    ws.store.reopen(step)
    plan = Plan.model_validate(ws.store.step(step).plan)
    ws.emit("plan.shown", run=plan.run, step=step, stage=plan.stage, plan_hash=plan.hash, plan=plan, resumed=True)
    return _approve_and_run(ws, step, plan, approver)


def _approve_and_run(ws: Workspace, step: str, plan: Plan, approver: Approver) -> Step:
    if not catalog.BY_NAME[plan.stage].expensive:
        return _inline(ws, step)
    agreed = agree(ws, step, plan, approver)
    if agreed is None:
        record = ws.store.read("SELECT reason FROM approvals WHERE step = ? ORDER BY rowid DESC", step)[0]
        raise StepFailed(f"{plan.stage} ({step}) was declined: {record['reason'] or 'no reason given'}")
    start(ws, agreed[0])
    return watch(ws, agreed[0])


def _inline(ws: Workspace, step: str) -> Step:
    """Run a free step in this process: it takes milliseconds and loads nothing heavy."""
    from tunesmith.tools.pipeline import worker

    me = ProcessId.of(os.getpid())
    ws.store.claim(
        step,
        needs_approval=False,
        pid=me.pid,
        pid_started=me.started,
        boot_id=me.boot_id,
        pid_ticks=me.ticks,
    )
    job = worker.open_job(ws.store, step, ws.vllm)
    ws.emit("step.started", run=job.run, step=step, stage=job.step.stage)
    try:
        worker.run_here(job)
    except BaseException as error:
        ws.store.fail(step, str(error) or type(error).__name__)
        raise
    return watch(ws, step)


def run_arc(ws: Workspace, plan: ArcPlan, approver: Approver, *, resume_run: str | None = None) -> str:
    """Carry out a written plan step by step and return the run's id; a resumed run skips what is done.

    Raises BadInput before a run is opened where a step is known to fail, else what the first failing step raises,
    after marking the run.
    """
    from tunesmith.tools.pipeline.forecast import check_ahead

    store = ws.store
    if not resume_run:
        check_ahead(ws, plan)
    run = resume_run or store.new_run(plan.name, goal=plan.goal, plan=plan.model_dump(mode="json"))
    done = done_positions(store, run) if resume_run else {}
    store.set_run_status(run, RUNNING)
    stages = [spec.stage for spec in plan.steps]
    try:
        ws.emit("run.started", run=run, name=plan.name, steps=stages, resumed=bool(resume_run))
        for position, spec in enumerate(plan.carried_out):
            before = done.get(position)
            if before and before.status == DONE:
                continue
            if before and before.status == RUNNING and launcher.is_alive(before):
                watch(ws, before.id)
            elif before and before.status != DECLINED and same_inputs(store, before):
                resume(ws, before.id, approver)
            else:
                perform(ws, run, spec.stage, spec.fields, approver)
    except TunesmithError as error:
        if not store.steps(run, status=RUNNING):  # else somebody else carries it out at the same time
            store.set_run_status(run, FAILED if error.exit_code == 1 else WAITING)
        raise
    except Exception:
        store.set_run_status(run, FAILED)
        raise
    store.set_run_status(run, DONE)
    return run


def go_on(ws: Workspace, run: str, approver: Approver) -> Step:
    """Go on with the newest step of a run that was begun and did not reach its end, and return it ended.

    It goes on from its own checkpoint, unless the run holds other inputs by now: then it is planned anew. Raises
    BadInput where no step is half done.
    """
    step = half_done(ws.store, run)
    if step.status == RUNNING:
        return watch(ws, step.id)
    if same_inputs(ws.store, step):
        return resume(ws, step.id, approver)
    fields = {name: value for name, value in step.request.items() if name != "run"}
    return perform(ws, run, step.stage, fields, approver)
