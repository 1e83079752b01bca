"""doctor --gpu at work: whatever one part comes to, each of its items is named, and the next one begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tunesmith.tools.core.job import Job
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.machine.gpus import measure_gpus
from tunesmith.tools.pipeline.gpu_check import card_job
from tunesmith.tools.pipeline.gpu_check.findings import Finding, failed
from tunesmith.tools.pipeline.gpu_check.stage import PARTS, GpuCheckRequest, GpuCheckResult

WORK: Mapping[str, Callable[[Path], Iterator[Finding]]] = {"card": card_job.card, "rates": card_job.rates}


def run(job: Job[GpuCheckRequest]) -> GpuCheckResult:
    """Measure every item and keep what came of each; raises nothing for an item that fails."""
    began, gpu = time.monotonic(), chosen_gpu(measure_gpus())
    items: list[Finding] = []
    for number, (name, part) in enumerate(PARTS.items()):
        job.progress(number, len(PARTS), part.doing)
        items += _each(part.gives, WORK[name](job.home))
    for item in items:
        job.log(f"{item.name}: {item.state} {item.why}")
    job.write_json("findings.json", [item.model_dump(mode="json") for item in items])
    states = [item.state for item in items]
    return GpuCheckResult(
        device=gpu.name if gpu else "the GPU, which is gone",
        took_seconds=round(time.monotonic() - began, 1),
        ok=states.count("ok"),
        failed=states.count("failed"),
        skipped=states.count("skipped"),
        items=tuple(items),
    )


def _each(names: tuple[str, ...], findings: Iterator[Finding]) -> list[Finding]:
    """A finding for each name; those that never came have failed, by the error that ended them."""
    collected: list[Finding] = []
    began, why = time.monotonic(), "it was not found"
    try:
        for finding in findings:
            now = time.monotonic()
            collected.append(finding.model_copy(update={"seconds": round(now - began, 3)}))
            began = now
    except Exception as error:  # whatever it is: those that are left have failed by it
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]  # a finding is a few lines on a screen
    return [*collected, *(failed(name, why) for name in names[len(collected) :])]
