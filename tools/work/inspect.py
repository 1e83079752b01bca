"""inspect at work: read the counters, and do the arithmetic of what fits."""

from __future__ import annotations

from tunesmith.tools.facts import measure_machine
from tunesmith.tools.gpus import serves_on_cpu
from tunesmith.tools.inspect import Fit, GpuReport, InspectRequest, InspectResult
from tunesmith.tools.stage import Machine
from tunesmith.tools.work.job import Job

_SIZES = (135_000_000, 1_500_000_000, 3_000_000_000, 7_000_000_000, 14_000_000_000, 32_000_000_000)
# Bytes per parameter, measured or by arithmetic: bf16 weights + a LoRA step's activations, NF4 weights likewise,
# bf16 weights + KV cache, W4A16 weights + KV cache.
_WORKS = {"train LoRA, bf16": 3.0, "train QLoRA, NF4": 1.2, "serve, bf16": 2.4, "serve, W4A16": 0.8}


def run(job: Job[InspectRequest]) -> InspectResult:
    """Measure the machine, and say which sizes of dense model fit which kind of work right now."""
    return report(measure_machine(job.home), job.vllm)


def report(machine: Machine, vllm: str | None) -> InspectResult:
    """The result for a measured machine."""
    on_gpu = bool(machine.gpus) and not serves_on_cpu(vllm)
    free_bytes = machine.vram_free_bytes if on_gpu else machine.ram_free_bytes
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
        fits=tuple(
            Fit(
                parameters=size,
                work=work,
                needs_bytes=int(size * bytes_per_parameter),
                free_bytes=free_bytes,
                fits=size * bytes_per_parameter <= free_bytes,
            )
            for work, bytes_per_parameter in _WORKS.items()
            for size in _SIZES
        ),
        vllm=vllm,
    )
