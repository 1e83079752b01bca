"""Prices: how long a step will take and whether it fits, each with the reason why we think so."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tunesmith.tools.core.stage import GIB, Estimate, Facts, Fitting, Machine

_PAST_STEPS = 5
_GPU = "GPU"
_REFERENCE = "2 cores with AVX512-BF16"


def estimate(
    stage: str,
    facts: Facts,
    *,
    seconds: float,
    ram_bytes: int = 0,
    vram_bytes: int = 0,
    disk_bytes: int = 0,
    like: str = "",
) -> Estimate:
    """Price a step from its calibrated `seconds`, corrected by how long its like took on this machine.

    The correction is the median of taken ÷ calibrated over the newest finished steps of the stage, so that one
    disturbed night does not spoil the next estimate. Where a stage does different kinds of work, `like` names the
    kind, and only past steps of that kind count. A step that is priced in VRAM is of another kind than the same on the
    CPU; its calibration is the CPU's, since no GPU has been measured, and the basis says so.
    """
    if vram_bytes:
        like = f"{like}, {_GPU}" if like else _GPU
    past = [p for p in facts.past.get(stage, ()) if p.calibrated_seconds > 0 and p.like == like][:_PAST_STEPS]
    what = f"{stage} ({like})" if like else stage
    factor = median(p.seconds / p.calibrated_seconds for p in past) if past else 1.0
    if past:
        runs = "1 past run" if len(past) == 1 else f"{len(past)} past runs"
        basis = f"{runs} of {what} on this machine"
    else:
        slower = ", which a GPU should beat by far" if vram_bytes else ""
        basis = f"calibration on {_REFERENCE}{slower}; {what} has not run on this machine yet"
    return Estimate(
        seconds=round(seconds * factor, 1),
        basis=basis,
        peak_ram_bytes=ram_bytes,
        peak_vram_bytes=vram_bytes,
        disk_bytes=disk_bytes,
        calibrated_seconds=round(seconds, 1),
        like=like,
    )


def lacks_memory(price: Estimate, machine: Machine) -> bool:
    """Whether a step needs more memory than is free, of either kind."""
    return price.peak_ram_bytes > machine.memory_free_bytes or price.peak_vram_bytes > machine.vram_free_bytes


def room(price: Estimate, facts: Facts, *, remedy: str, fitting: Sequence[Fitting] = ()) -> tuple[str, ...]:
    """Refusals of a plan that does not fit into what is free.

    Where memory is lacking, `fitting` is what would fit, best first, and `remedy` what to try where nothing does. The
    disk has one remedy.
    """
    machine = facts.machine
    try_ = ", or ".join(map(str, fitting)) or remedy
    return tuple(
        f"needs {needed / GIB:.1f} GiB of {what}, {free / GIB:.1f} GiB free; try {instead}"
        for what, needed, free, instead in (
            ("RAM and swap", price.peak_ram_bytes, machine.memory_free_bytes, try_),
            ("VRAM", price.peak_vram_bytes, machine.vram_free_bytes, try_),
            ("disk", price.disk_bytes, machine.disk_free_bytes, "making room, or TUNESMITH_HOME on another disk"),
        )
        if needed > free
    )
