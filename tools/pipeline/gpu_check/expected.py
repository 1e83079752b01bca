"""What the items of the check are held against: tunesmith's own formulas on a config, and how far off each may be.

Nothing new is calculated here. Every number is that of `memory_math`, `time_math` or `rates`, with what the check does
not measure taken out of it: the fixed seconds of programs that start, the bytes of a CUDA context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.tools.core.rates import Rates
from tunesmith.tools.models.fitting import Training
from tunesmith.tools.models.memory_math import (
    CUDA_BYTES,
    loaded_bytes,
    nf4_bytes,
    quantize_vram_bytes,
)
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import loading_seconds, training_seconds

PEAK = (0.85, 1.15)
"""Of training: above it a plan would say that something fits which does not."""
UPPER = (0.3, 1.1)
"""Of upper estimates that are said to be such: quantizing, what a server takes beside its weights."""
BYTES = (0.97, 1.03)
"""Of weights as they are loaded: nothing but their padding is open."""
ALLOCATED = (0.97, 1.1)
"""Of the same as torch's allocator hands them out, in blocks."""
SECONDS = (0.5, 2.0)
"""Of priced times, once the device was measured."""
CONTEXT = (0.2, 1.0)
"""Of what a process is priced at beside its tensors."""
SHARE = (0.8, 1.05)
"""Of what a server may take of the card that it has for itself: vLLM makes its cache of all that is left of it."""
FREED = (0.98, 1.02)
"""Of what was free before a server, once it was stopped."""


def tensors_bytes(config: Mapping[str, Any], way: Training) -> int:
    """Of training's peak what torch's allocator reserves: all but the context's."""
    return way.peak_bytes(config) - CUDA_BYTES


def step_seconds(config: Mapping[str, Any], rates: Rates, way: Training, *, on_card: bool) -> float:
    """One optimiser step of `way.rows_at_once` rows, each of the longest: training's price without its start."""
    price = training_seconds(
        config,
        rates,
        tokens=float(way.rows_at_once * way.longest_row_tokens),
        micro_steps=1,
        on_card=on_card,
        checkpointing=way.checkpointing,
        load_in_4bit=way.load_in_4bit,
    )
    shape = ModelShape.of(config)
    return price.train - loading_seconds(shape, rates, load_in_4bit=way.load_in_4bit, on_card=on_card).train


def four_bit_bytes(config: Mapping[str, Any]) -> dict[str, float]:
    """Of a model loaded at 4 bits: `all` of it, and `experts`, those of a mixture alone."""
    shape = ModelShape.of(config)
    return {
        "all": loaded_bytes(shape, load_in_4bit=True),
        "experts": nf4_bytes(shape.mixture_layers * shape.expert_parameters),
    }


def quantizing_bytes(config: Mapping[str, Any], tokens: int) -> int:
    """Of quantizing's peak on a card what torch's allocator reserves."""
    return quantize_vram_bytes(config, seq_len_tokens=tokens) - CUDA_BYTES


def rates_within(usual: Rates) -> tuple[float, float]:
    """How far a device may be from the rates that are assumed until it is measured: what its prices say of them."""
    return 1 / usual.spread, usual.spread
