"""The card itself: its driver, its memory by NVML and by torch, its rates."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.machine.accelerators import OLDEST_CAPABILITY, OLDEST_DRIVER
from tunesmith.tools.machine.gpus import capability, measure_gpus
from tunesmith.tools.machine.probe import keep_rates
from tunesmith.tools.machine.probe_job import measure_rates
from tunesmith.tools.models.memory_math import CUDA_BYTES
from tunesmith.tools.pipeline.gpu_check.check import Check, Finding, compared, skipped, stated
from tunesmith.tools.pipeline.gpu_check.measures_job import (
    context_bytes,
    device_name,
    free_bytes,
    need_device,
    usual_rates,
)

_BYTES = (0.97, 1.03)
_CONTEXT = (0.2, 1.0)
"""Of what a process is priced at beside its tensors."""


def card(check: Check) -> Iterator[Finding]:
    """What the driver says, against what torch sees: the price is made by the one, the work done by the other."""
    if not check.on_card:
        names = ("driver", "compute capability", "total memory", "CUDA context", "free memory")
        yield from (skipped(name, "only a card has one") for name in names)
        return
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
    need_device(check)
    taken = context_bytes()  # before anything else makes a context
    seen = torch.cuda.get_device_capability()
    yield stated(
        "compute capability",
        expected=f"{gpu.compute_capability}, and {'.'.join(map(str, OLDEST_CAPABILITY))} or newer",
        measured=".".join(map(str, seen)),
        holds=seen == capability(gpu) and seen >= OLDEST_CAPABILITY,
    )
    total = torch.cuda.get_device_properties(0).total_memory
    yield compared("total memory", expected=gpu.total_bytes, measured=total, within=_BYTES, unit="bytes")
    yield compared("CUDA context", expected=CUDA_BYTES, measured=taken, within=_CONTEXT, unit="bytes")
    free, _ = torch.cuda.mem_get_info()
    yield compared("free memory", expected=free_bytes(), measured=free, within=_BYTES, unit="bytes")


def rates(check: Check) -> Iterator[Finding]:
    """What the device reaches, against what is assumed of one until it is measured; kept for the prices to come."""
    need_device(check)
    usual, found = usual_rates(check), measure_rates(check.home)
    keep_rates(check.home, device_name(check), found)
    for name, unit in (("bf16_flops", "FLOP/s"), ("fp32_flops", "FLOP/s"), ("memory_bytes_s", "bytes/s"),
                       ("disk_bytes_s", "bytes/s")):  # fmt: skip
        yield compared(
            f"{name.partition('_')[0]} rate",
            expected=getattr(usual, name),
            measured=getattr(found, name),
            within=(1 / usual.spread, usual.spread),
            unit=unit,
            why="prices are by what was measured from now on",
        )
