"""Start, follow, stop and account for workers.

A worker holds a lock on its step, and is found again by pid, start, boot and PID namespace, never by pid alone. One
that died without recording an end (power cut, `kill -9`, the kernel's OOM killer) is marked failed by `reconcile`,
which every start of tunesmith runs.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.locks import is_locked, lock_file
from tunesmith.memory.records import APPROVED, PLANNED, RUNNING, STOPPED, Step, Worker
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import RESULT_FILE
from tunesmith.tools.core.machine import Gpu
from tunesmith.tools.core.stage import Plan, Request, Stage
from tunesmith.tools.machine.control_groups import cores_allowed
from tunesmith.tools.machine.gpus import pin_environment, trains_on_cpu
from tunesmith.tools.machine.processes import ProcessId, boot_id, python_module, stop_group, with_environment
from tunesmith.tools.machine.torch_env import NO_REPORTS, OFFLINE
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.serving.eviction import machine_for_a_step

_CLAIM_TIMEOUT_S = 60.0
"""Imports take a second or two; on a machine that is fully used, or from a cold disk, many times that."""
_POLL_S = 0.1
"""A step's end is seen soon, at ten small reads of the store a second."""
_BUSY = 0.25
"""Share of the cores that other programs use from which a worker's threads had better sleep while they wait."""
_LEAVING_S = 10.0
"""So long a worker may take to be gone from the moment at which it recorded its end: CUDA and a large model's memory
take seconds to be given back."""
_SILENT_S = 600.0
"""So long a worker that cannot be looked at may say nothing before it counts as dead: it may be on another node, or in
another PID namespace; so long its store may keep it from writing (`PATIENCE_S`)."""


def log_path(store: Store, step: Step) -> Path:
    """The log of a step's worker."""
    return store.home / "runs" / step.run / step.id / "worker.log"


def cores_in_use() -> float:
    """Share of all cores that is in use over a fifth of a second; where they are busy, over the next one if that is
    less: what has just ended takes a moment to go."""
    share = psutil.cpu_percent(interval=0.2) / 100
    return share if share < _BUSY else min(share, psutil.cpu_percent(interval=0.2) / 100)


def worker_environment(
    stage: Stage[Request, object], fields: Mapping[str, object], gpus: Sequence[Gpu], cards: int = 1
) -> dict[str, str]:
    """What a stage's worker is started with beside its parent's environment: nothing that reports, no hub unless the
    fields of its request name it, its own, its GPUs, or what suits a CPU, how much of it is allowed, and how busy that
    is."""
    env = {**(NO_REPORTS if stage.asks_hub(fields) else OFFLINE), **stage.env, **pin_environment(gpus, cards)}
    if stage.env and (allowed := cores_allowed()):
        # A thread for each core of the machine would use up what the group allows and sleep, all of them at once.
        env["OMP_NUM_THREADS"] = str(max(1, math.ceil(allowed)))
    if stage.env and (trains_on_cpu() or not gpus):
        from tunesmith.tools.cpu.settings import ASLEEP, COMPUTING

        env |= COMPUTING
        if cores_in_use() >= _BUSY:
            env |= ASLEEP
    return env


def worker_command(home: Path, step: str, env: Mapping[str, str], vllm: str | None, *more: str) -> list[str]:
    """How a step's worker is started."""
    worker = python_module("tunesmith.tools.pipeline.worker", "--home", str(home), *(["--vllm", vllm] if vllm else []))
    return with_environment(env, [*worker, *more, step])


def launch(store: Store, step: str, *, vllm: str | None, ray: RaySettings | None = None) -> Step:
    """Start the worker of an approved step and return once it has claimed the step; `ray` is of one carried out there.

    Raises StepFailed where the worker ended before that, with the last line of its log.
    """
    record = store.step(step)
    log = log_path(store, record)
    log.parent.mkdir(parents=True, exist_ok=True)
    stage = catalog.ENTRIES[record.stage].load()
    cards = Plan.model_validate(record.plan).estimate.cards if record.plan else 1
    here = worker_environment(stage, record.request, machine_for_a_step(store.home).gpus, cards)
    env = dict(NO_REPORTS) if ray else here
    argv = worker_command(store.home, step, env, vllm, *(["--ray", ray.model_dump_json()] if ray else []))
    nothing = subprocess.DEVNULL
    with log.open("ab") as output:  # a session of its own: neither a closed terminal nor a killed REPL ends it
        worker = subprocess.Popen(
            argv, stdin=nothing, stdout=output, stderr=output, start_new_session=True, cwd=log.parent
        )
    try:
        return _until_claimed(store, record, worker)
    finally:
        store.let_go(step)


def _until_claimed(store: Store, record: Step, worker: subprocess.Popen[bytes]) -> Step:
    step, deadline = record.id, time.monotonic() + _CLAIM_TIMEOUT_S
    while time.monotonic() < deadline:
        current = store.step(step)
        if current.status not in (APPROVED, PLANNED):
            store.event("step.started", run=record.run, step=step, pid=worker.pid)
            return current
        if worker.poll() is not None:
            break
        time.sleep(0.02)  # a claim comes within a second or two, and a person waits for it
    if worker.poll() is None:
        stop_group(ProcessId.of(worker.pid))
    log = log_path(store, record)
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
        if not current.ended and not is_alive(store, current):
            current = _mark_dead(store, current)
        if current != before:
            yield current
            before = current
        if current.ended:
            _until_gone(current)
            return
        time.sleep(_POLL_S)


def _until_gone(step: Step) -> None:
    """Wait for the worker of an ended step to give its memory back: the next step is priced by what is free.

    Not where that worker is this very process, which carries out free steps itself.
    """
    process, most_s = _worker_of(step), (step.finished_at or 0) + _LEAVING_S - time.time()
    if process is None or process.elsewhere or process.pid == os.getpid():
        return
    deadline = time.monotonic() + min(most_s, _LEAVING_S)
    while not process.has_let_go() and time.monotonic() < deadline:
        time.sleep(0.02)  # the next step waits for it


def _not_started(step: Step) -> str:
    if step.status == PLANNED:
        how = f"it waits for a yes: `tunesmith {step.stage} --approve {step.plan_hash[:12]}` gives it"
    else:
        how = f"it has its yes, but no worker yet; where none comes, `tunesmith {step.stage}` plans it again"
    return f"{step.id} does not run: {how}"


def is_alive(store: Store, step: Step) -> bool:
    """Whether the worker that claimed this step still runs.

    It holds the step's lock as long as it lives; where its pid counts here, that is looked at as well, for a process
    that it left behind may hold the lock on. A worker of another machine, whose lock may not be visible here, is given
    up only once it has been silent for long.
    """
    process = _worker_of(step)
    if process is None:
        return False
    locked = is_locked(lock_file(store.home, step.id))
    if not process.elsewhere:
        # The lock alone is not asked for: workers of early versions held none, and named no host.
        return process.alive() and (locked or not step.host)
    if locked:
        return True
    other_machine = process.boot_id != boot_id()
    return other_machine and time.time() - _last_sign(store, step) < _SILENT_S


def _worker_of(step: Step) -> ProcessId | None:
    if step.pid is None or step.pid_started is None:
        return None
    where = (step.host or "", step.pid_namespace or "")
    return ProcessId(step.pid, step.pid_started, step.boot_id or "", step.pid_ticks, *where)


def reconcile(store: Store) -> list[Step]:
    """Take every step whose worker is gone off the running ones, and return those steps.

    It is failed, with the reason; or done, where its worker came to the end of the work and not of recording it.
    """
    return [_mark_dead(store, step) for step in store.steps(status=RUNNING) if not is_alive(store, step)]


def _mark_dead(store: Store, step: Step) -> Step:
    """Record the death of the worker that `step` was seen with, unless the step has moved on in the meantime."""
    if _deliver(store, step):
        return store.step(step.id)
    at = f" at {step.done / step.total:.0%}" if step.total else ""
    reason = f"its worker (pid {step.pid}) died without recording an end{at}"
    last = last_line(log_path(store, step))
    message = f"{reason}; last log line: {last}; go on with `tunesmith run --resume {step.run}`"
    if store.fail(step.id, message, ended_at=_last_sign(store, step), worker=step.worker):
        store.event("step.died", run=step.run, step=step.id, pid=step.pid)
    return store.step(step.id)


def _deliver(store: Store, step: Step) -> bool:
    """Record the result that a worker left beside its step because the store could not take it."""
    result_path = log_path(store, step).with_name(RESULT_FILE)
    try:
        document = store.places.from_json(result_path.read_text())
        worker = Worker(*document["worker"])
    except (OSError, ValueError, TypeError, KeyError):  # none was left, or it was cut off in writing
        return False
    if worker != step.worker or not store.finish(step.id, document["result"], worker=worker):
        return False
    result_path.unlink(missing_ok=True)
    return True


def _last_sign(store: Store, step: Step) -> float:
    """When a dead worker was last heard of: what came after, with the machine off, was no work."""
    try:
        logged = log_path(store, step).stat().st_mtime
    except OSError:  # it never began, or its log was removed
        logged = 0.0
    return min(max(store.last_sign(step.id), logged), time.time())


# 10 s: a worker stops its servers in them, and records that it was stopped.
def stop(store: Store, step: str, *, by: str = "", grace_s: float = 10.0) -> Step:
    """End the worker of a running step: SIGTERM to its whole group, SIGKILL after `grace_s`.

    `by` names who had it stopped, where that is not the user. Raises BadInput for a step that does not run.
    """
    record = store.step(step)
    if record.status != RUNNING:
        raise BadInput(f"{step} does not run: it is {record.status}")
    worker = _worker_of(record)
    assert worker is not None
    if worker.elsewhere:
        raise BadInput(f"{step} is at work on {record.host} or in another container; stop it there")
    if by:  # the user's own stop needs no room on a disk
        store.event("step.stopped", step=step, by=by)
    stop_group(worker, grace_s=grace_s)
    why = f"stopped by {store.stopped_by(step)} (SIGKILL after {grace_s:.0f} s)"
    store.fail(step, why, status=STOPPED, worker=record.worker)
    return store.step(step)


def last_line(log: Path) -> str:
    """The last line of a log that says something, or 'the log is empty'."""
    try:
        # A log may hold any program's bytes.
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:  # it could not even be made
        lines = []
    return lines[-1].strip()[:300] if lines else "the log is empty"
