"""The process that a step runs in: `python -m tunesmith.tools.pipeline.worker --home HOME [--vllm PROGRAM] STEP`.

It leads a session of its own, so neither a closed terminal nor a killed REPL reaches it. It claims the step (which
uses up the approval), works, and records the end, whatever the end is. Heavy imports happen only in here.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.files import atomic_write
from tunesmith.memory.locks import adding_to, lock_file, locked
from tunesmith.memory.privacy import keep_private
from tunesmith.memory.records import APPROVED, FAILED, STOPPED
from tunesmith.memory.step_records import keep_record
from tunesmith.memory.store import Store
from tunesmith.tools.core.disk import concerns_disk, trouble
from tunesmith.tools.core.job import PATIENCE_S, Job
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.rates import START
from tunesmith.tools.core.settled import FOUR_BITS, load_modules
from tunesmith.tools.core.stage import CPU, Plan, Result
from tunesmith.tools.core.time_left import WAIT
from tunesmith.tools.machine.gpus import measure_gpus, trains_on_cpu
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.machine.probe import keep_rates, measured_rates
from tunesmith.tools.machine.probe_job import measure_rates
from tunesmith.tools.machine.processes import ProcessId, own_tree, resident_bytes, tree
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.pipeline.tenancy import tenancy
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.eviction import make_room

_SAMPLE_EVERY_S, _SAMPLED_SHARE = 1.0, 0.03
"""Reading the page tables of a 2 GB server takes 0.1 s of a core: resident memory is looked at each second, and less
often where that would take more than this share of the time."""
_LOCK_WAIT_S = 5.0
"""Who looks whether a step is at work holds its lock for a moment, too."""


class _Stopped(BaseException):
    """SIGTERM arrived: unwind, so that what the work opened is closed."""


def main() -> int:
    """Run one step to its end and return the exit code of the process."""
    parser = argparse.ArgumentParser(prog="tunesmith-worker")
    parser.add_argument("step")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--vllm")
    parser.add_argument("--ray", type=RaySettings.model_validate_json)
    args = parser.parse_args()
    keep_private()
    store = Store(args.home, busy_timeout_s=PATIENCE_S)  # nobody waits for it: rather late than lost
    step = store.step(args.step)
    entry = catalog.ENTRIES[step.stage]
    with claimed(store, args.step, needs_approval=step.status == APPROVED or entry.asks(step.request)):
        signal.signal(signal.SIGTERM, _on_sigterm)  # before the claim there is no end to record
        return _work(store, args.step, args.vllm, args.ray)


@contextmanager
def claimed(store: Store, step: str, *, needs_approval: bool) -> Iterator[None]:
    """Make this process the worker of a step, and hold the step's lock meanwhile: by it others see that it lives.

    Raises what `Store.claim` raises, and BadInput where an earlier worker of the step is at work after all.
    """
    me = ProcessId.of(os.getpid())
    with locked(lock_file(store.home, step), wait_s=_LOCK_WAIT_S, holder=f"pid {me.pid} on {me.host}"):
        store.claim(
            step,
            needs_approval=needs_approval,
            pid=me.pid,
            pid_started=me.started,
            boot_id=me.boot_id,
            pid_ticks=me.ticks,
            host=me.host,
            pid_namespace=me.namespace,
        )
        yield


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut the recording of this one off
    raise _Stopped


def _work(store: Store, step: str, vllm: str | None, ray: RaySettings | None) -> int:
    """Work on a claimed step and record its end, whatever that is; the exit code of the process."""
    try:
        job = open_job(store, step, vllm)
        job.alone = True
        if job.plan.on:
            result = work(job, ray)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a stop that comes now comes too late
            record(job, result)
            return 0
        with _tenancy(job):
            if not catalog.ENTRIES[job.step.stage].serves:  # else it goes on with the server that is there
                make_room(job.home, ram_bytes=job.plan.estimate.peak_ram_bytes, log=job.log)
            _load(job)
            with _in_turn(job):
                result = work(job)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a stop that comes now comes too late
            record(job, result)
            _measure_device(job)
    except _Stopped:
        _fail(store, step, f"stopped by {store.stopped_by(step)}", status=STOPPED)
    except BaseException as error:  # whatever a library raises, SystemExit too: the step ends with a reason
        traceback.print_exc()
        _fail(store, step, reason(store, step, error))
    else:
        return 0
    return 1


def _in_turn(job: Job[Any]) -> AbstractContextManager[None]:
    """Of a stage that is usually free: its run is its own while it works, as it is for one that asks nobody."""
    if catalog.ENTRIES[job.step.stage].expensive:
        return contextlib.nullcontext()
    return adding_to(job.home, job.run, waiting=lambda holder: job.progress(0, 0, f"waiting for {holder}", kind=WAIT))


def _load(job: Job[Any]) -> None:
    """Import what the stage computes with, whatever it is asked."""
    entry = catalog.ENTRIES[job.step.stage]
    on_several = getattr(job.request, "cards", 1) > 1 and not entry.serves  # its ranks load what they compute with
    if (modules := entry.loads) and not on_several:
        loaded = ", ".join(dict.fromkeys(module.split(".")[0] for module in modules))
        job.progress(0, 0, f"loading {loaded}", kind=START)
        unneeded = () if getattr(job.request, "load_in_4bit", False) else (FOUR_BITS,)
        load_modules(modules, without=(*entry.without, *unneeded))


def _measure_device(job: Job[Any]) -> None:
    """Measure the device that torch computed on here, for the prices of what comes next: once, and a second long."""
    if "torch" not in sys.modules:
        return
    card = None if trains_on_cpu() else chosen_gpu(measure_gpus())
    device = card.name if card else CPU
    try:
        if device not in measured_rates(job.home):
            keep_rates(job.home, device, measure_rates(job.home))
    except (OSError, RuntimeError) as error:  # no room for it; the step is done all the same
        job.log(f"{device} was not measured: {error}")


def reason(store: Store, step: str, error: BaseException) -> str:
    """What ended the work, for the user: a disk in trouble by its name, with what to do."""
    if isinstance(error, TunesmithError):
        return str(error)
    record = store.step(step)
    folder, needed = store.home / "runs" / record.run / step, Plan.model_validate(record.plan).estimate.disk_bytes
    if concerns_disk(error) and (disk := trouble(folder, error, needed_bytes=needed)):
        return f"{disk}; then `tunesmith run --resume {record.run}` goes on"
    # it is shown in a sentence and kept in the store
    return f"{type(error).__name__}: {error}"[:2000].removesuffix(": ")


def _fail(store: Store, step: str, why: str, *, status: str = FAILED) -> None:
    """Record that this worker's own attempt ended, and no other one's; where it cannot be, its log says why it did."""
    me = store.step(step).worker
    if me and me.pid == os.getpid():
        try:
            store.fail(step, why, status=status, worker=me)
        except sqlite3.OperationalError:  # a full disk; who looks next finds this worker gone
            print(why, file=sys.stderr, flush=True)


@contextmanager
def _tenancy(job: Job[Any]) -> Iterator[None]:
    """Hold the machine, and the GPU where there is one, and say so."""

    def waiting(what: str) -> None:
        job.progress(0, 0, what, kind=WAIT)

    cards = job.plan.estimate.cards
    with tenancy(job.home, job.step.id, measure_gpus(), cards=cards, waiting=waiting, log=job.log):
        job.store.event("lease.taken", run=job.run, step=job.step.id)
        job.progress(0, 0, "starting", kind=START)
        yield


def work(job: Job[Any], ray: RaySettings | None = None) -> Result:
    """Do the work of a claimed step in this process, its memory watched; or have it done on the other machine."""
    if job.plan.on:
        from tunesmith.tools.pipeline import elsewhere

        return elsewhere.work(job, ray or RaySettings())
    done = threading.Event()
    # A daemon: a look at a card may hang in its driver, and must not hold the process at its end.
    watch = threading.Thread(target=_watch_memory, args=(job, done), daemon=True)
    watch.start()
    try:
        return catalog.ENTRIES[job.step.stage].work()(job)
    finally:
        done.set()
        watch.join(timeout=5)  # a look at a card may hang in its driver; the result does not wait for it


def record(job: Job[Any], result: Result) -> None:
    """Record that a step reached its end, however late: what was done is kept beside the step until it is recorded."""
    document = result.model_dump(mode="json")
    with contextlib.suppress(OSError):  # a full disk; the store may still take it
        atomic_write(job.result_file, job.store.places.to_json({"worker": job.step.worker, "result": document}))
    job.flush()
    job.patiently(lambda: job.store.finish(job.step.id, document, worker=job.step.worker))
    job.result_file.unlink(missing_ok=True)
    if not job.plan.on:  # else the worker there has said what it took there
        took, machine = dict(job.ended()), measure_machine(job.home).fingerprint
        job.best_effort(lambda: job.store.event("step.done", run=job.run, step=job.step.id, took=took, machine=machine))
    with contextlib.suppress(OSError, sqlite3.Error):  # the step is done; only a lost store would miss it
        keep_record(job.store, job.step.id, job.dir)


def open_job(store: Store, step: str, vllm: str | None) -> Job[Any]:
    """The job of a step, with exactly the request and the inputs that were approved."""
    record = store.step(step)
    stage = catalog.ENTRIES[record.stage].load()
    folder = store.home / "runs" / record.run / step
    folder.mkdir(parents=True, exist_ok=True)
    return Job(
        store=store,
        step=record,
        plan=Plan.model_validate(record.plan),
        request=stage.request.of(record.stage, record.request),
        inputs={name: store.artifact(artifact) for name, artifact in record.inputs.items()},
        dir=folder,
        vllm=vllm,
    )


def own_bytes(job: Job[Any]) -> int:
    """What belongs to the step: its process with its helpers, the servers it uses, one that it is just starting."""
    running = {*job.watched, *(s.pid for s in servers.list_servers(job.home) if s.owner == job.step.id)}
    mine = own_tree(os.getpid())
    for pid in running:
        mine |= tree(pid)
    return resident_bytes(mine.values())


def _tell_peaks(job: Job[Any], rss_bytes: int, vram_bytes: int | None) -> None:
    job.store.peak(job.step.id, rss_bytes, vram_bytes, wait_s=0.5)  # for a lock; the next sample tells it


def _watch_memory(job: Job[Any], done: threading.Event) -> None:
    """Sample the memory of the worker, its children and the servers it uses, and keep the peaks in the store."""
    peak_bytes, reported_bytes, peak_vram, reported_vram = 0, 0, 0, 0
    vram_before = {gpu.index: gpu.free_bytes for gpu in measure_gpus()}
    last, due = False, 0.0
    while not last:
        last = done.wait(_SAMPLE_EVERY_S if reported_bytes else 0)  # the first at once: a short step has a peak too
        job.go_on()
        if last or time.monotonic() >= due:
            started = time.thread_time()
            peak_bytes = max(peak_bytes, own_bytes(job))
            due = time.monotonic() + (time.thread_time() - started) / _SAMPLED_SHARE
        if vram_before:
            used_bytes = [vram_before.get(gpu.index, gpu.free_bytes) - gpu.free_bytes for gpu in measure_gpus()]
            peak_vram = max(peak_vram, *used_bytes, 0)
        # Each report is a commit to the disk: a peak that grew by less is told at the end.
        if last or peak_bytes > reported_bytes * 1.02 or peak_vram > reported_vram * 1.02:
            job.best_effort(partial(_tell_peaks, job, peak_bytes, peak_vram if vram_before else None))
            reported_bytes, reported_vram = peak_bytes, peak_vram


def _leave(exit_code: int) -> NoReturn:
    """End once whatever was registered for the end is done: to take torch and a model apart object by object takes a
    core more than a second, and the kernel frees the same memory without it; the next step would start on a busy
    machine."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # nothing is left to run: see above


if __name__ == "__main__":
    _leave(main())
