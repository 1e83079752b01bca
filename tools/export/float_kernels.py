"""What vLLM computes a float format with, where it would be served here: in the format, in 16 bits, or not at all.

Read in the source of vLLM 0.32.0 (`kernels/linear`, the schemes of compressed-tensors, `cutlass_scaled_mm_supports_*`);
of cards nothing of it was measured. What is tried is decided by a dry load.
"""

from __future__ import annotations

from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.stage import Facts
from tunesmith.tools.machine.gpus import capability
from tunesmith.tools.models.schemes import Scheme

_FP8_FROM = {"FP8": (8, 9), "FP8_BLOCK": (9, 0)}
"""Compute capability from which CUTLASS multiplies FP8. Below, Marlin reads the weights and multiplies in 16 bits."""
_FOUR_BITS_FROM = (10, 0)
_ON_A_CPU = {
    "FP8": "vLLM emulates FP8 on a CPU without AMX for FP8: 2.6 tokens a second of the bundled model, 55 at 16 bits; "
    "scheme=W8A8 is what CPUs compute",
    "FP8_BLOCK": "on a CPU vLLM multiplies FP8 blocks in 16 bits, with AMX alone (Sapphire Rapids and newer)",
}


def served(scheme: Scheme, facts: Facts) -> str:
    """A sentence for the plan: what becomes of a float format where vLLM computes here; empty for integers."""
    if scheme.codes is None:
        return ""
    card = chosen_gpu(facts.machine.gpus) if facts.serves_on_gpu else None
    if card is None:
        without = f"vLLM has no kernel for {scheme.name} on a CPU: it is for a card, and dry_load=off makes it anyway"
        return _ON_A_CPU.get(scheme.name, without)
    own, has = capability(card), f"{card.name} has compute capability {card.compute_capability}"
    if scheme.name in _FP8_FROM:
        least = _FP8_FROM[scheme.name]
        from_ = f"{least[0]}.{least[1]}"
        if own >= least:
            return f"{has}: vLLM multiplies {scheme.name} in FP8, as from {from_} on"
        return f"{has}: vLLM reads {scheme.name} weights and multiplies in 16 bits (Marlin); in FP8 from {from_} on"
    if scheme.powers_of_two and own >= _FOUR_BITS_FROM:
        return f"{has}: where FlashInfer is installed vLLM rounds activations to MXFP4 too, beyond {scheme.name}"
    return f"{has}: vLLM reads {scheme.name} weights and multiplies in 16 bits, on every card"
