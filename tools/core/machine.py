"""What there is to compute with, as facts: a machine and its GPUs at one moment. `tools/machine` measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA device as NVML reports it."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: str
    driver: str
    uuid: str = ""


def chosen_gpu(gpus: Sequence[Gpu]) -> Gpu | None:
    """The one GPU that is worked on: the one with the most free memory, the first of equals; None without any."""
    return max(gpus, key=lambda gpu: gpu.free_bytes, default=None)


def cores_text(cores: int, allowed: float | None) -> str:
    """A processor's cores, and what a control group allows of them."""
    limit = "" if allowed is None or allowed >= cores else f", {allowed:.3g} of them allowed by the control group"
    return f"{cores} cores{limit}"


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to compute with, measured at one moment. RAM that is free includes reclaimable cache."""

    cpu: str
    cores: int
    ram_total_bytes: int
    ram_free_bytes: int
    swap_free_bytes: int
    disk_free_bytes: int
    gpus: tuple[Gpu, ...] = ()
    bf16_units: bool = True
    """Whether the processor has instructions for products in bf16; True too where that is not known."""
    cores_allowed: float | None = None
    """How many cores' worth of time this process's control group allows, as a container's limit does; None: all."""

    @property
    def share(self) -> float:
        """Of the time of its cores, what may be used."""
        return 1.0 if self.cores_allowed is None else min(1.0, self.cores_allowed / self.cores)

    @property
    def fingerprint(self) -> str:
        """What computes: what one machine took says nothing of another."""
        return f"{self.cpu}, {cores_text(self.cores, self.cores_allowed)}" + "".join(
            sorted(f", {gpu.name}" for gpu in self.gpus)
        )

    @property
    def memory_free_bytes(self) -> int:
        """Free RAM and swap."""
        return self.ram_free_bytes + self.swap_free_bytes

    @property
    def vram_free_bytes(self) -> int:
        """Free memory of the GPU that is worked on; 0 without one."""
        chosen = chosen_gpu(self.gpus)
        return chosen.free_bytes if chosen else 0
