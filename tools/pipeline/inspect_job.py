"""inspect at work: read the counters, and ask the stages what of their work fits."""

from __future__ import annotations

from pathlib import Path

from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Facts
from tunesmith.tools.machine.gpus import left_out_gpus
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.model_names import of_size
from tunesmith.tools.pipeline import planning_facts
from tunesmith.tools.pipeline.fits import plan_of
from tunesmith.tools.pipeline.inspect import GpuReport, InspectRequest, InspectResult, MemoryNeed
from tunesmith.tools.pipeline.workspace import Workspace

_SIZES = (135_000_000, 1_500_000_000, 3_000_000_000, 7_000_000_000, 14_000_000_000, 32_000_000_000)
"""The bundled sizes, and those that models are usually published in, up to what one large card trains."""
_WORK = {
    "train LoRA, bf16": "train",
    "train QLoRA, NF4": "train at 4 bits",
    "serve, bf16": "deploy merged",
    "serve, W4A16": "deploy W4A16",
}
"""What is told, and the step that is asked."""


def run(job: Job[InspectRequest]) -> InspectResult:
    """The step of a written plan."""
    return measured(job.home, job.vllm)


def look(ws: Workspace, run: str = "") -> InspectResult:
    """What a person who asks is shown: no step, and an event where one can be written. Raises NotFound for the run."""
    run = ws.store.run(run).id if run else ""
    seen = measured(ws.store.home, ws.vllm)
    if not ws.store.unwritable:
        gpus = [gpu.model_dump() for gpu in seen.gpus]
        ws.store.event("machine.inspected", run=run or None, gpus=gpus, ram_free_bytes=seen.ram_free_bytes)
    return seen


def measured(home: Path, vllm: str | None) -> InspectResult:
    """Measure the machine, and say which sizes of dense model fit which kind of work right now."""
    machine = measure_machine(home)
    return report(Facts(home, machine, "", vllm, cpu_builds=planning_facts.cpu_builds(vllm)))


def report(facts: Facts) -> InspectResult:
    """The result for a measured machine."""
    machine = facts.machine
    return InspectResult(
        cpu=machine.cpu,
        cores=machine.cores,
        ram_total_bytes=machine.ram_total_bytes,
        ram_free_bytes=machine.ram_free_bytes,
        swap_free_bytes=machine.swap_free_bytes,
        disk_free_bytes=machine.disk_free_bytes,
        gpus=tuple(GpuReport.model_validate(gpu, from_attributes=True) for gpu in machine.gpus),
        gpus_left_out=left_out_gpus(),
        fits=tuple(_memory_need(facts, parameters, work) for work in _WORK for parameters in _SIZES),
        vllm=facts.vllm,
    )


def _memory_need(facts: Facts, parameters: int, work: str) -> MemoryNeed:
    """What the usual model of a size needs for a kind of work, as its plan says it."""
    plan = plan_of(_WORK[work], of_size(parameters), facts)
    price = plan.estimate
    free_bytes = facts.machine.vram_room_on(1) if price.peak_vram_bytes else facts.machine.memory_room_bytes
    needed_bytes = price.peak_vram_bytes or price.peak_ram_bytes
    return MemoryNeed(
        parameters=parameters, work=work, needs_bytes=needed_bytes, free_bytes=free_bytes, fits=not plan.refusals
    )
