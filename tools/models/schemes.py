"""The formats that `quantize` writes: what the code of a weight is, which weights share a scale, what is rounded too.

Integers are rounded with GPTQ or to the nearest step, 4 bits after a search too (`rounding_terms`). FP8 is rounded
weight by weight, from the weights alone: compressed-tensors' preset FP8_DYNAMIC. Blocks of FP8 and the 4-bit floats of
Blackwell cards are left out until a card has served them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from tunesmith.tools.models.memory_math import group_size_for, quantized_weight_bytes

SchemeName = Literal["W4A16", "W8A16", "W8A8", "FP8"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """One format."""

    name: str
    bits: int
    """Of a weight."""
    floats: bool = False
    """Whether its codes are floats: E4M3 (arXiv 2209.05433). Else they are signed integers."""
    preset: str = ""
    """compressed-tensors' name of a float format."""
    rounds_inputs: bool = False
    """Whether activations are rounded as well, by the token as they come."""
    in_groups: bool = False
    """Whether scales are for groups of a row, of a size that is chosen by the model."""

    @property
    def smooths(self) -> bool:
        """Whether outliers of activations are smoothed into the weights first: integers do not hold them."""
        return self.rounds_inputs and not self.floats

    def group_of(self, config: Mapping[str, object], asked: int = 0) -> int:
        """Weights of a row that share a scale; 0: those of an output channel."""
        return asked or (group_size_for(config) if self.in_groups else 0)

    def weight_bytes(self, config: Mapping[str, object], group: int, unquantized: Collection[str] = ()) -> int:
        """Of the tensors of a model in this format, with kinds of layers that stay as they are."""
        return quantized_weight_bytes(config, bits=self.bits, group_size=group, unquantized=unquantized)


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("W4A16", 4, in_groups=True),
        Scheme("W8A16", 8),
        Scheme("W8A8", 8, rounds_inputs=True),
        Scheme("FP8", 8, True, "FP8_DYNAMIC", rounds_inputs=True),
    )
}
