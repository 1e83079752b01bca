"""What vLLM computes FP8 with, where it would be served here: in the format, or in 16 bits.

Read in the source of vLLM 0.32.0 (`kernels/linear`, the schemes of compressed-tensors, `cutlass_scaled_mm_supports_*`);
of cards nothing of it was measured. What is tried is decided by a dry load.
"""

from __future__ import annotations

from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.stage import Facts
from tunesmith.tools.machine.gpus import capability
from tunesmith.tools.models.schemes import Scheme

FP8_FROM = (8, 9)
"""Compute capability from which CUTLASS multiplies FP8. Below, Marlin reads the weights and multiplies in 16 bits."""
_ON_A_CPU = (
    "vLLM emulates FP8 on a CPU without AMX for FP8: 2.6 tokens a second of the bundled model, 55 at 16 bits; "
    "scheme=W8A8 is what CPUs compute"
)


def served(scheme: Scheme, facts: Facts) -> str:
    """A sentence for the plan: what becomes of a float format where vLLM computes here; empty for integers."""
    if not scheme.floats:
        return ""
    card = chosen_gpu(facts.machine.gpus) if facts.serves_on_gpu else None
    if card is None:
        return _ON_A_CPU
    own, has = capability(card), f"{card.name} has compute capability {card.compute_capability}"
    least = ".".join(map(str, FP8_FROM))
    if own >= FP8_FROM:
        return f"{has}: vLLM multiplies FP8 in FP8, as from {least} on"
    return f"{has}: vLLM reads FP8 weights and multiplies in 16 bits (Marlin); in FP8 from {least} on"
