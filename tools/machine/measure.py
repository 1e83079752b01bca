"""What there is to compute with, measured now: cores, memory, disk and GPUs. Never loads torch."""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

import psutil

from tunesmith.tools.core.machine import Machine
from tunesmith.tools.machine.control_groups import cores_allowed
from tunesmith.tools.machine.gpus import measure_gpus as measure_gpus
from tunesmith.tools.machine.memory_left import group_left_bytes, group_limit_bytes

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


def measure_machine(folder: Path) -> Machine:
    """Cores, memory, GPUs, and the disk under `folder` (or under its nearest existing parent)."""
    memory = psutil.virtual_memory()
    while not folder.exists():
        folder = folder.parent
    return Machine(
        cpu=_cpu_name(),
        cores=len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")  # not on macOS
        else psutil.cpu_count() or 1,
        ram_total_bytes=group_limit_bytes(default=memory.total),
        ram_free_bytes=group_left_bytes(default=memory.available),
        swap_free_bytes=psutil.swap_memory().free,
        disk_free_bytes=shutil.disk_usage(folder).free,
        gpus=measure_gpus(),
        bf16_units=_has_bf16_units(),
        cores_allowed=cores_allowed(),
    )


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _has_bf16_units() -> bool:
    """By the flags that the kernel lists, of x86 and of ARM; True where it lists none."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return not flags or bool(_BF16_FLAGS.intersection(flags))


def _cpuinfo(name: str) -> str:
    """What /proc/cpuinfo says of the first core; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if re.match(rf"{name}\s*:", line)), "")
