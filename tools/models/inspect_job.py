"""inspect at work: read the counters, and do the arithmetic of what fits."""

from __future__ import annotations

from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Machine
from tunesmith.tools.machine.gpus import left_out_gpus, serves_on_cpu
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.inspect import Fit, GpuReport, InspectRequest, InspectResult
from tunesmith.tools.models.memory_math import measuring_memory, serving_peaks

# Parameters of a dense model → its key-value cache's bytes per token, as published models of that size have it.
_SIZES = {
    135_000_000: 23_040,
    1_500_000_000: 28_672,
    3_000_000_000: 36_864,
    7_000_000_000: 57_344,
    14_000_000_000: 196_608,
    32_000_000_000: 262_144,
}
# Bytes per parameter, measured or by arithmetic: bf16 weights + a LoRA step's activations, NF4 weights likewise.
_TRAINS = {"train LoRA, bf16": 3.0, "train QLoRA, NF4": 1.2}
# Bytes per parameter as stored: at 4 bits the scales and the embeddings, which stay bf16, count too.
_SERVES = {"serve, bf16": 2.0, "serve, W4A16": 0.75}


def run(job: Job[InspectRequest]) -> InspectResult:
    """Measure the machine, and say which sizes of dense model fit which kind of work right now."""
    return report(measure_machine(job.home), job.vllm)


def report(machine: Machine, vllm: str | None) -> InspectResult:
    """The result for a measured machine."""
    on_gpu = bool(machine.gpus) and not serves_on_cpu(vllm)
    return InspectResult(
        cpu=machine.cpu,
        cores=machine.cores,
        ram_total_bytes=machine.ram_total_bytes,
        ram_free_bytes=machine.ram_free_bytes,
        swap_free_bytes=machine.swap_free_bytes,
        disk_free_bytes=machine.disk_free_bytes,
        gpus=tuple(
            GpuReport(
                name=gpu.name,
                total_bytes=gpu.total_bytes,
                free_bytes=gpu.free_bytes,
                compute_capability=gpu.compute_capability,
            )
            for gpu in machine.gpus
        ),
        gpus_left_out=left_out_gpus(),
        fits=_fits(machine.vram_free_bytes if on_gpu else machine.ram_free_bytes, on_gpu=on_gpu),
        vllm=vllm,
    )


def _fits(free_bytes: int, *, on_gpu: bool) -> tuple[Fit, ...]:
    """Every kind of work with every size; serving at the price that the stages which serve have."""
    needs = {(work, size): int(size * each) for work, each in _TRAINS.items() for size in _SIZES}
    for work, each in _SERVES.items():
        for size, kv_bytes in _SIZES.items():
            served = measuring_memory(int(size * each), kv_bytes)
            needs[work, size] = sum(serving_peaks(served, on_gpu=on_gpu).values())
    return tuple(
        Fit(parameters=size, work=work, needs_bytes=needed, free_bytes=free_bytes, fits=needed <= free_bytes)
        for (work, size), needed in needs.items()
    )
