"""Start, follow, stop and account for workers.

A worker is found again by pid, start and boot id, never by pid alone. One that died without recording an end
(power cut, `kill -9`, the kernel's OOM killer) is marked failed by `reconcile`, which every start of tunesmith runs.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.records import APPROVED, PLANNED, RUNNING, STOPPED, Step
from tunesmith.memory.store import Store
from tunesmith.tools.machine.gpus import pin_environment
from tunesmith.tools.machine.processes import ProcessId, python_module, stop_group
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.serving.eviction import machine_for_a_step

_CLAIM_TIMEOUT_S = 60.0
_POLL_S = 0.1


def log_path(store: Store, step: Step) -> Path:
    """The log of a step's worker."""
    return store.home / "runs" / step.run / step.id / "worker.log"


def launch(store: Store, step: str, *, vllm: str | None) -> Step:
    """Start the worker of an approved step and return once it has claimed the step.

    Raises StepFailed where the worker ended before that, with the last line of its log.
    """
    record = store.step(step)
    log = log_path(store, record)
    log.parent.mkdir(parents=True, exist_ok=True)
    stage = catalog.BY_NAME[record.stage].load()
    # `env` adds to the environment without this module having to read it.
    env = {**stage.env, **pin_environment(machine_for_a_step(store.home).gpus)}
    worker = python_module("tunesmith.tools.pipeline.worker", "--home", str(store.home))
    argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in env.items()), *worker]
    argv += [*(["--vllm", vllm] if vllm else []), step]
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=log.parent
        )
    deadline = time.monotonic() + _CLAIM_TIMEOUT_S
    while time.monotonic() < deadline:
        current = store.step(step)
        if current.status not in (APPROVED, PLANNED):
            store.event("step.started", run=record.run, step=step, pid=child.pid)
            return current
        if child.poll() is not None:
            break
        time.sleep(0.02)
    child.kill()
    raise StepFailed(f"the worker of {step} did not start: {last_line(log)}; its log is {log}")


def follow(store: Store, step: str) -> Iterator[Step]:
    """Yield the step whenever it moves, until its end; stopping to iterate leaves the worker alone.

    Raises BadInput for a step that nobody has started: there is nothing to wait for.
    """
    before: Step | None = None
    while True:
        current = store.step(step)
        if current.status in (PLANNED, APPROVED):
            raise BadInput(_not_started(current))
        if not current.ended and not is_alive(current):
            current = _mark_dead(store, current)
        if current != before:
            yield current
            before = current
        if current.ended:
            return
        time.sleep(_POLL_S)


def _not_started(step: Step) -> str:
    if step.status == PLANNED:
        how = f"it waits for a yes: `tunesmith {step.stage} --approve {step.plan_hash[:12]}` gives it"
    else:
        how = f"it has its yes, but no worker yet; where none comes, `tunesmith {step.stage}` plans it again"
    return f"{step.id} does not run: {how}"


def is_alive(step: Step) -> bool:
    """Whether the worker that claimed this step still runs."""
    process = _worker_of(step)
    return process is not None and process.alive()


def _worker_of(step: Step) -> ProcessId | None:
    if step.pid is None or step.pid_started is None:
        return None
    return ProcessId(step.pid, step.pid_started, step.boot_id or "", step.pid_ticks)


def reconcile(store: Store) -> list[Step]:
    """Mark every step whose worker is gone as failed, with the reason, and return those steps."""
    return [_mark_dead(store, step) for step in store.steps(status=RUNNING) if not is_alive(step)]


def _mark_dead(store: Store, step: Step) -> Step:
    """Record the death of a worker, unless it recorded its own end in the meantime."""
    current = store.step(step.id)
    if current.status == RUNNING:
        at = f" at {current.done:g} of {current.total:g}" if current.total else ""
        reason = f"its worker (pid {current.pid}) died without recording an end{at}"
        last = last_line(log_path(store, current))
        told = f"{reason}; last log line: {last}; go on with `tunesmith run --resume {step.run}`"
        store.fail(step.id, told, ended_at=_last_sign(store, current))
        store.event("step.died", run=step.run, step=step.id, pid=current.pid)
    return store.step(step.id)


def _last_sign(store: Store, step: Step) -> float:
    """When a dead worker was last heard of: what came after, with the machine off, was no work."""
    try:
        logged = log_path(store, step).stat().st_mtime
    except OSError:
        logged = 0.0
    return min(max(store.last_sign(step.id), logged), time.time())


def stop(store: Store, step: str, *, grace_s: float = 10.0) -> Step:
    """End the worker of a running step: SIGTERM to its whole group, SIGKILL after `grace_s`."""
    record = store.step(step)
    if record.status != RUNNING:
        return record
    worker = _worker_of(record)
    assert worker is not None
    stop_group(worker, grace_s=grace_s)
    if store.step(step).status == RUNNING:
        store.fail(step, f"stopped by the user ({signal.Signals.SIGKILL.name} after {grace_s:.0f} s)", status=STOPPED)
    return store.step(step)


def last_line(log: Path) -> str:
    """The last line of a log that says something, or 'the log is empty'."""
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1].strip()[:300] if lines else "the log is empty"
