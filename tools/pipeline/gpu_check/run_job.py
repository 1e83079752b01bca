"""doctor --gpu at work: one process a task, until all are done or the minutes are over."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.machine.gpus import measure_gpus
from tunesmith.tools.machine.processes import python_module
from tunesmith.tools.pipeline.gpu_check.check import FILE, FINDINGS, MODELS, Check
from tunesmith.tools.pipeline.gpu_check.child_job import ERROR
from tunesmith.tools.pipeline.gpu_check.findings import FAILED, OK, SKIPPED, Finding, count, skipped
from tunesmith.tools.pipeline.gpu_check.schedule import Ended, carry_out
from tunesmith.tools.pipeline.gpu_check.stage import ENDING_S, GpuCheckRequest, GpuCheckResult
from tunesmith.tools.pipeline.gpu_check.tasks import Task, chosen
from tunesmith.tools.serving import servers

NO_VLLM = "no vLLM was found; `tunesmith setup` installs it, and TUNESMITH_VLLM names another one"


def run(job: Job[GpuCheckRequest]) -> GpuCheckResult:
    """Measure every item and keep what came of each; raises nothing for an item that fails."""
    began = time.monotonic()
    request = job.request
    tasks = chosen(request.minutes)
    check = Check(home=job.home, dir=job.dir, step=job.step.id, vllm=job.vllm, minutes=request.minutes)
    card = chosen_gpu(measure_gpus())

    def on_task(number: int, task: Task) -> None:
        job.progress(number, len(tasks), task.doing)
        job.log(task.doing)

    throw_away(check)  # what an attempt that was cut off has left
    items: list[Finding] = []
    deadline = began + 60.0 * request.minutes - ENDING_S
    try:
        for finding in measured(check, tasks, deadline=deadline, on_task=on_task):
            job.log(f"{finding.name}: {finding.state} {finding.why}")
            items.append(finding)
    finally:
        throw_away(check)
    job.write_json("findings.json", [item.model_dump(mode="json") for item in items])
    return GpuCheckResult(
        device=card.name if card else "the GPU, which is gone",
        minutes=request.minutes,
        took_seconds=round(time.monotonic() - began, 1),
        ok=count(items, OK),
        failed=count(items, FAILED),
        skipped=count(items, SKIPPED),
        items=tuple(items),
    )


def measured(
    check: Check,
    tasks: Sequence[Task],
    *,
    deadline: float,
    on_task: Callable[[int, Task], None] = lambda number, task: None,
) -> Iterator[Finding]:
    """The findings of tasks, each in a process of its own, until `deadline` on the monotonic clock."""
    atomic_write(check.dir / FILE, check.model_dump_json(indent=1))

    def carry(task: Task, most_s: float) -> Ended:
        if task.needs_vllm and not check.vllm:
            return Ended([skipped(name, NO_VLLM) for name in task.gives])
        return in_a_process(check.dir, task, most_s)

    return carry_out(tasks, carry, deadline=deadline, clock=time.monotonic, on_task=on_task)


def in_a_process(folder: Path, task: Task, most_s: float) -> Ended:
    """Carry a task out in a process, which is killed after so many seconds or when this one is stopped."""
    findings, error = folder / FINDINGS, folder / ERROR
    for file in (findings, error):
        file.unlink(missing_ok=True)
    command = python_module("tunesmith.tools.pipeline.gpu_check.child_job", str(folder), task.work)
    if task.hides_card:
        command = ["/usr/bin/env", "CUDA_VISIBLE_DEVICES=", *command]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder)
    killed = False
    try:
        child.wait(most_s)
    except subprocess.TimeoutExpired:
        killed = True
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    lines = findings.read_text().splitlines() if findings.is_file() else []
    found = [Finding.model_validate_json(line) for line in lines]
    why = ""
    if child.returncode and not killed:
        why = error.read_text() if error.is_file() else f"its process ended with {_in_words(child.returncode)}"
    return Ended(found, why, killed)


def _in_words(code: int) -> str:
    return f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"


def throw_away(check: Check) -> None:
    """Stop what a task left serving, and remove the models that were made."""
    for server in servers.list_servers(check.home, role=servers.BENCH):
        if server.owner == check.step:
            servers.stop(server)
    shutil.rmtree(check.dir / MODELS, ignore_errors=True)
