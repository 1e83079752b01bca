"""The card itself: its driver, its memory by NVML and by torch, its rates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.rates import usual_card, usual_cpu
from tunesmith.tools.core.stage import CPU
from tunesmith.tools.machine.accelerators import OLDEST_CAPABILITY, OLDEST_DRIVER
from tunesmith.tools.machine.device import computes_on_cpu
from tunesmith.tools.machine.gpus import capability, measure_gpus
from tunesmith.tools.machine.probe import keep_rates
from tunesmith.tools.machine.probe_job import measure_rates
from tunesmith.tools.models.memory_math import CUDA_BYTES
from tunesmith.tools.pipeline.gpu_check.findings import Finding, compared, stated

_BYTES = (0.97, 1.03)
"""Torch and the driver count pages of their own sizes."""
_CONTEXT = (0.2, 1.0)
"""Of what a process is priced at beside its tensors: it is an estimate on the safe side, so far less is right too."""


def card(home: Path) -> Iterator[Finding]:
    """What the driver says, against what torch sees: the price is made by the one, the work done by the other.

    Raises StepFailed where either sees no card.
    """
    import torch

    gpu = chosen_gpu(measure_gpus())
    if gpu is None:
        raise StepFailed("NVML sees no card any more; see nvidia-smi")
    yield stated(
        "driver",
        expected=f"{OLDEST_DRIVER} or newer",
        measured=gpu.driver,
        holds=int(gpu.driver.split(".")[0]) >= OLDEST_DRIVER,
        why=f"{gpu.name}; torch {torch.__version__} with CUDA {torch.version.cuda}",
    )
    if computes_on_cpu():
        raise StepFailed(f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees no card; see nvidia-smi")
    context_size = context_bytes()  # before anything else makes a context
    seen = torch.cuda.get_device_capability()
    yield stated(
        "compute capability",
        expected=f"{gpu.compute_capability}, and {'.'.join(map(str, OLDEST_CAPABILITY))} or newer",
        measured=".".join(map(str, seen)),
        holds=seen == capability(gpu) and seen >= OLDEST_CAPABILITY,
    )
    total = torch.cuda.get_device_properties(0).total_memory
    yield compared("total memory", expected=gpu.total_bytes, measured=total, within=_BYTES, unit="bytes")
    yield compared("CUDA context", expected=CUDA_BYTES, measured=context_size, within=_CONTEXT, unit="bytes")
    free, _ = torch.cuda.mem_get_info()
    yield compared("free memory", expected=free_bytes(), measured=free, within=_BYTES, unit="bytes")


def rates(home: Path) -> Iterator[Finding]:
    """What the device reaches, against what is assumed of one until it is measured; kept for the prices to come."""
    gpu = None if computes_on_cpu() else chosen_gpu(measure_gpus())
    usual, reached = usual_card() if gpu else usual_cpu(psutil.cpu_count() or 1), measure_rates(home)
    keep_rates(home, gpu.name if gpu else CPU, reached)
    for name, unit in (("bf16_flops", "FLOP/s"), ("fp32_flops", "FLOP/s"), ("memory_bytes_s", "bytes/s"),
                       ("disk_bytes_s", "bytes/s")):  # fmt: skip
        yield compared(
            f"{name.partition('_')[0]} rate",
            expected=getattr(usual, name),
            measured=getattr(reached, name),
            within=(1 / usual.spread, usual.spread),
            unit=unit,
            why="prices are by what was measured from now on",
        )


def free_bytes() -> int:
    """Of the card, as NVML says now."""
    gpu = chosen_gpu(measure_gpus())
    return gpu.free_bytes if gpu else 0


def context_bytes() -> int:
    """What this process takes of the card beside tensors, once it has multiplied: its context and its libraries."""
    import torch

    before = free_bytes()
    # A first product loads cuBLAS, which is most of what is looked for; its size does not matter.
    one = torch.ones((256, 256), dtype=torch.bfloat16, device="cuda")
    (one @ one).sum().item()
    torch.cuda.synchronize()
    return before - free_bytes() - int(torch.cuda.memory_reserved())
