"""Prices: how long a step will take and whether it fits, each with the reason why we think so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.rates import Rates, Seconds
from tunesmith.tools.core.stage import Estimate, Facts, Fitting, Past

_PAST_STEPS = 5
_GPU = "GPU"
_MOST_CORRECTED = 10.0


def estimate(
    stage: str,
    facts: Facts,
    *,
    seconds: float | Seconds,
    rates: Rates | None = None,
    ram_bytes: int = 0,
    vram_bytes: int = 0,
    disk_bytes: int = 0,
    like: str = "",
) -> Estimate:
    """Price a step from what arithmetic says of its time, corrected by how long its like took on this machine.

    Only the variable part is corrected: by the median of taken ÷ said over the newest finished steps of the stage, so
    that one disturbed night does not spoil the next price, and shrunk towards the arithmetic while they are few (one
    run counts half). Where a stage does different kinds of work, `like` names the kind, and only past steps of that
    kind count; a step that is priced in VRAM is of another kind than the same on the CPU. `rates` are the device's:
    until they were measured, or the work was done here before, the price is the middle of a range.
    """
    if vram_bytes:
        like = f"{like}, {_GPU}" if like else _GPU
    work = seconds if isinstance(seconds, Seconds) else Seconds(0.0, seconds)
    past = [p for p in facts.past.get(stage, ()) if p.calibrated_seconds > 0 and p.like == like][:_PAST_STEPS]
    what = f"{stage} ({like})" if like else stage
    priced = work.fixed + work.variable * _correction(past)
    least = 0.0
    if past:
        runs = "1 past run" if len(past) == 1 else f"{len(past)} past runs"
        basis = f"{runs} of {what} on this machine"
    elif rates and not rates.measured:
        least, most = work.fixed + work.variable / rates.spread, work.fixed + work.variable * rates.spread
        device = "a card" if vram_bytes else "such a processor"
        basis = (
            f"usual rates of {device}, from {duration(least)} to {duration(most)} until this one is measured; {what} "
            "has not run on this machine yet"
        )
    else:
        by = "this device's measured rates" if rates else "arithmetic"
        basis = f"{by}; {what} has not run on this machine yet"
    return Estimate(
        seconds=round(priced, 1),
        basis=basis,
        peak_ram_bytes=ram_bytes,
        peak_vram_bytes=vram_bytes,
        disk_bytes=disk_bytes,
        calibrated_seconds=round(work.total, 1),
        fixed_seconds=round(work.fixed, 1),
        least_seconds=round(least, 1),
        like=like,
    )


def _correction(past: Sequence[Past]) -> float:
    """What the variable part is multiplied with: n past steps count n in n + 1, in the exponent."""
    ratios = [
        (step.seconds - step.fixed_seconds) / (step.calibrated_seconds - step.fixed_seconds)
        for step in past
        if step.calibrated_seconds > step.fixed_seconds
    ]
    if not ratios:
        return 1.0
    usual = min(max(median(ratios), 1 / _MOST_CORRECTED), _MOST_CORRECTED)
    return math.exp(math.log(usual) * len(ratios) / (len(ratios) + 1))


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
        f"needs {size(needed)} of {what}, {size(free)} free; try {instead}"
        for what, needed, free, instead in (
            ("RAM and swap", price.peak_ram_bytes, machine.memory_free_bytes, try_),
            ("VRAM", price.peak_vram_bytes, machine.vram_free_bytes, try_),
            ("disk", price.disk_bytes, machine.disk_free_bytes, "making room, or TUNESMITH_HOME on another disk"),
        )
        if needed > free
    )
