"""A decided step: its worker starts, is followed to its end, and leaves its run as it ended."""

from __future__ import annotations

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import FAILED, RUNNING, Step
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog, driver_eviction, launcher
from tunesmith.tools.pipeline.runs import set_run_status
from tunesmith.tools.pipeline.workspace import Workspace


def start(ws: Workspace, step: str) -> Step:
    """Launch the worker of an approved step and return at once; a driver that it does not fit beside is evicted."""
    plan = Plan.model_validate(ws.store.step(step).plan)
    try:
        driver_eviction.need_memory_now(ws.store.home, plan)
        if not plan.on and driver_eviction.evict_driver(ws.store.home, plan.estimate):
            ws.emit("driver.gave_way", step=step, text=driver_eviction.EVICTED)
        started = launcher.launch(ws.store, step, vllm=ws.vllm, ray=ws.ray if plan.on else None)
    except StepFailed:
        set_run_status(ws.store, ws.store.step(step).run, FAILED)
        raise
    _go_past(ws, started)
    set_run_status(ws.store, started.run, RUNNING)
    ws.emit("step.started", run=started.run, step=step, stage=started.stage)
    return started


def _go_past(ws: Workspace, step: Step) -> None:
    """The run builds on what it has: prices of what should have come before are open no more."""
    ws.store.abandon(step.run, catalog.before(step.stage), f"{step.stage} ({step.id}) has begun")


def follow_step(ws: Workspace, step: str) -> Step:
    """Follow a worker to its end, whatever that is, and return the ended step; its run is left as the step is."""
    current = ws.store.step(step)
    for current in launcher.follow(ws.store, step):
        if not current.ended:
            ws.emit(
                "step.progress", step=step, stage=current.stage, done=current.done, total=current.total,
                note=current.note, started_at=current.started_at, estimated_seconds=current.estimated_seconds,
            )  # fmt: skip
    ws.store.announce([step])
    set_run_status(ws.store, current.run, current.status)
    ws.emit(
        "step.finished", run=current.run, step=step, stage=current.stage, status=current.status,
        seconds=current.seconds, estimated_seconds=current.estimated_seconds,
        peak_rss_bytes=current.peak_rss_bytes, result=current.result, error=current.error,
    )  # fmt: skip
    return current


def run_here(ws: Workspace, step: str) -> Step:
    """Run a free step in this process: it takes milliseconds and loads nothing heavy."""
    from tunesmith.tools.pipeline import worker

    with worker.claimed(ws.store, step, needs_approval=False):
        job = worker.open_job(ws.store, step, ws.vllm)
        _go_past(ws, job.step)
        ws.emit("step.started", run=job.run, step=step, stage=job.step.stage)
        try:
            driver_eviction.need_memory_now(ws.store.home, job.plan)
            worker.record(job, worker.work(job, ws.ray))
        except BaseException as error:  # a Ctrl-C too: it must not stay running
            ws.store.fail(step, why := worker.reason(ws.store, step, error))
            set_run_status(ws.store, job.run, FAILED)
            if isinstance(error, OSError):  # told as a worker's end is: it is the step's, not its caller's
                raise StepFailed(f"{job.step.stage} ({step}) failed: {why}") from error
            raise
    return follow_step(ws, step)
