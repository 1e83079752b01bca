"""GPUs for machines that have none: a stand-in for NVML that reports what a test plants."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tunesmith.tools.stage import Gpu

GIB = 1 << 30


def gpu(index: int, *, free: float = 20, total: float = 24) -> Gpu:
    """A GPU with so many GiB."""
    return Gpu(index, f"Card {index}", int(total * GIB), int(free * GIB), "9.0", "570.1", f"GPU-{index}f00")


@dataclass
class Planted:
    """What the stand-in reports; a test may change it."""

    gpus: list[Gpu]
    holds: dict[int, int] = field(default_factory=dict)
    """Pid → bytes on GPU 0."""
    slice_: Gpu | None = None


def plant(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, visible: str | None = None) -> Planted:
    """Have NVML report these GPUs, and CUDA_VISIBLE_DEVICES be this."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    planted = Planted(list(gpus))
    monkeypatch.setitem(sys.modules, "pynvml", _nvml(planted))
    return planted


def _nvml(planted: Planted) -> ModuleType:
    module: Any = ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.nvmlInit = module.nvmlShutdown = lambda: None
    module.nvmlSystemGetDriverVersion = lambda: "570.1"
    module.nvmlDeviceGetCount = lambda: len(planted.gpus)
    module.nvmlDeviceGetHandleByIndex = lambda index: planted.gpus[index]
    module.nvmlDeviceGetHandleByUUID = lambda uuid: planted.slice_
    module.nvmlDeviceGetDeviceHandleFromMigDeviceHandle = lambda handle: planted.gpus[0]
    module.nvmlDeviceGetMemoryInfo = lambda gpu: SimpleNamespace(total=gpu.total_bytes, free=gpu.free_bytes)
    module.nvmlDeviceGetName = lambda gpu: gpu.name
    module.nvmlDeviceGetUUID = lambda gpu: gpu.uuid
    module.nvmlDeviceGetCudaComputeCapability = lambda gpu: tuple(map(int, gpu.compute_capability.split(".")))
    module.nvmlDeviceGetComputeRunningProcesses = lambda gpu: [
        SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in planted.holds.items() if gpu.index == 0
    ]
    return module  # type: ignore[no-any-return]
