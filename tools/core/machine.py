"""What there is to compute with, as facts: a machine and its GPUs at one moment. `tools/machine` measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_KEPT_BYTES, _KEPT_SHARE = (2 << 30) // 5, 0.01
"""Of a memory, what a driver or a kernel keeps: the larger of both."""


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


def usable_bytes(total_bytes: int) -> int:
    """Of a memory, what programs can have once nobody else has any."""
    return max(0, total_bytes - max(_KEPT_BYTES, int(_KEPT_SHARE * total_bytes)))


def whole_bytes(usable: int) -> int:
    """The memory of which programs can have so much."""
    return max(usable + _KEPT_BYTES, round(usable / (1 - _KEPT_SHARE)))


def chosen_gpus(gpus: Sequence[Gpu], cards: int) -> tuple[Gpu, ...]:
    """The GPUs that work of so many cards is done on: those with the most free memory, the first of equals."""
    return tuple(sorted(gpus, key=lambda gpu: -gpu.free_bytes)[:cards])


def chosen_gpu(gpus: Sequence[Gpu]) -> Gpu | None:
    """The one that work of one card is done on; None without any."""
    return next(iter(chosen_gpus(gpus, 1)), None)


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
    def memory_room_bytes(self) -> int:
        """RAM and swap that a plan may count on: whatever RAM other programs hold now, they may let go of."""
        return usable_bytes(self.ram_total_bytes) + self.swap_free_bytes

    def vram_room_on(self, cards: int) -> int:
        """What a plan may count on of each of so many GPUs, the largest; 0 where there are not so many."""
        totals = sorted((gpu.total_bytes for gpu in self.gpus), reverse=True)
        return usable_bytes(totals[cards - 1]) if cards <= len(totals) else 0

    @property
    def vram_free_bytes(self) -> int:
        """Free memory of the GPU that is worked on; 0 without one."""
        return self.vram_free_on(1)

    def vram_free_on(self, cards: int) -> int:
        """What each of so many GPUs has free at the least; 0 where there are not so many."""
        chosen = chosen_gpus(self.gpus, cards)
        return chosen[-1].free_bytes if len(chosen) == cards else 0
