"""What there is to compute with, measured now: cores, memory, disk and GPUs. Never loads torch."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import psutil

from tunesmith.tools.core.machine import Machine
from tunesmith.tools.machine.gpus import measure_gpus as measure_gpus
from tunesmith.tools.machine.memory_left import group_left_bytes


def measure_machine(folder: Path) -> Machine:
    """Cores, memory, GPUs, and the disk under `folder` (or under its nearest existing parent)."""
    memory = psutil.virtual_memory()
    while not folder.exists():
        folder = folder.parent
    return Machine(
        cpu=_cpu_name(),
        cores=len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else psutil.cpu_count() or 1,
        ram_total_bytes=memory.total,
        ram_free_bytes=group_left_bytes(default=memory.available),
        swap_free_bytes=psutil.swap_memory().free,
        disk_free_bytes=shutil.disk_usage(folder).free,
        gpus=measure_gpus(),
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
