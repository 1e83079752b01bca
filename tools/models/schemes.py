"""The formats that `quantize` writes: what the code of a weight is, which weights share a scale, what is rounded too.

Integers are rounded with GPTQ or to the nearest step, 4 bits after a search too (`rounding_terms`). Floats (FP8, and
the 4-bit formats of Blackwell cards) are rounded one by one, from the weights alone: compressed-tensors' presets of the
names below. Left out are presets that store scales of activations (NVFP4, FP8 with static inputs), which need
calibration, and MXFP4 with rounded inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tunesmith.tools.models.memory_math import group_size_for, quantized_weight_bytes
from tunesmith.tools.models.shape import ModelShape

SchemeName = Literal["W4A16", "W8A16", "W8A8", "FP8", "FP8_BLOCK", "NVFP4A16", "MXFP4A16"]


class FloatCodes(NamedTuple):
    """A float type that codes are of."""

    fraction_bits: int
    lowest_exponent: int
    """Of the smallest power of two that has all fraction bits; values below it lie as far apart as those above it."""
    largest: float


E4M3 = FloatCodes(3, -6, 448.0)
"""FP8 Formats for Deep Learning, arXiv 2209.05433, table 1; without infinities."""
E2M1 = FloatCodes(1, 0, 6.0)
"""OCP Microscaling Formats (MX) v1.0, table 5."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One format."""

    name: str
    bits: int
    """Of a weight."""
    codes: FloatCodes | None = None
    """None: signed integers."""
    preset: str = ""
    """compressed-tensors' name of a float format."""
    rounds_inputs: bool = False
    """Whether activations are rounded as well, by the token as they come."""
    in_groups: bool = False
    """Whether scales are for groups of a row, of a size that is chosen by the model."""
    columns: int = 0
    """Inputs that share a scale, where the format says how many; 0: it does not."""
    rows: int = 1
    """Outputs that share it."""
    scale_bytes: int = 2
    powers_of_two: bool = False
    """Whether scales are powers of two."""

    @property
    def smooths(self) -> bool:
        """Whether outliers of activations are smoothed into the weights first: integers do not hold them."""
        return self.rounds_inputs and self.codes is None

    @property
    def shared(self) -> str:
        """What has one scale, where the format says it."""
        if self.rows > 1:
            return f"a block of {self.rows} × {self.columns} weights"
        return f"{self.columns} weights of a row" if self.columns else "an output channel"

    def group_of(self, config: Mapping[str, object], asked: int = 0) -> int:
        """Weights of a row that share a scale; 0: those of an output channel."""
        return asked or self.columns or (group_size_for(config) if self.in_groups else 0)

    def weight_bytes(self, config: Mapping[str, object], group: int, kept: Collection[str] = ()) -> int:
        """Of the tensors of a model in this format, with kinds of layers that stay as they are."""
        return quantized_weight_bytes(
            config, bits=self.bits, group_size=group * self.rows, kept=kept, scale_bytes=self.scale_bytes
        )

    def misfit(self, config: Mapping[str, object], kept: Collection[str] = ()) -> str:
        """Why a model's layers cannot be stored so, with what can; empty where they can.

        compressed-tensors pads blocks that are cut off, and vLLM refuses them in layers that it fuses.
        """
        for what, size, unit in self._sizes(ModelShape.of(config), kept):
            if unit > 1 and size % unit:
                other = "FP8" if self.bits == 8 else "W4A16"
                return (
                    f"{self.name} has a scale for {self.shared}, and {what} = {size} is no multiple of {unit}; "
                    f"try scheme={other}"
                )
        return ""

    def _sizes(self, shape: ModelShape, kept: Collection[str]) -> Iterator[tuple[str, int, int]]:
        """What each size of the quantized layers is called, the size, and what has to divide it."""
        either = max(self.rows, self.columns)
        yield "hidden_size", shape.hidden, either
        yield "the width of all heads", shape.heads * shape.head_dim, self.rows if "o_proj" in kept else either
        yield "the width of all key heads", shape.kv_heads * shape.head_dim, self.rows
        inner = self.rows if "down_proj" in kept else either
        if not shape.experts or shape.dense_layers:
            yield "intermediate_size", shape.intermediate, inner
        if shape.experts:
            yield "the width of an expert", shape.expert_intermediate, inner
            yield "the width of the shared experts", shape.shared_intermediate, inner


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("W4A16", 4, in_groups=True),
        Scheme("W8A16", 8),
        Scheme("W8A8", 8, rounds_inputs=True),
        Scheme("FP8", 8, E4M3, "FP8_DYNAMIC", rounds_inputs=True),
        Scheme("FP8_BLOCK", 8, E4M3, "FP8_BLOCK", rounds_inputs=True, columns=128, rows=128),
        Scheme("NVFP4A16", 4, E2M1, "NVFP4A16", columns=16, scale_bytes=1),
        Scheme("MXFP4A16", 4, E2M1, "MXFP4A16", columns=32, scale_bytes=1, powers_of_two=True),
    )
}
