"""Prices: how long a step will take and whether it fits, each with the reason why we think so."""

from __future__ import annotations

from statistics import median

from tunesmith.tools.core.stage import GIB, Estimate, Facts

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


def room(price: Estimate, facts: Facts, *, remedy: str) -> tuple[str, ...]:
    """Refusals of a plan that does not fit into what is free; `remedy` is the next thing to try."""
    machine = facts.machine
    lacks = []
    memory_bytes = machine.ram_free_bytes + machine.swap_free_bytes
    for what, needed, free in (
        ("RAM and swap", price.peak_ram_bytes, memory_bytes),
        ("VRAM", price.peak_vram_bytes, machine.vram_free_bytes),
        ("disk", price.disk_bytes, machine.disk_free_bytes),
    ):
        if needed > free:
            lacks.append(f"needs {needed / GIB:.1f} GiB of {what}, {free / GIB:.1f} GiB free; try {remedy}")
    return tuple(lacks)
