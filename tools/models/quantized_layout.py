"""How a layer of a quantized model is stored, by its config, and what its codes decode to.

Covers the layouts that quantize writes, compressed-tensors' by name: symmetric `pack-quantized` and `int-quantized`
(integers), and `float-quantized` (E4M3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.memory.json_values import as_int, as_list, as_object
from tunesmith.tools.models.tensor_file import TensorPlace, TensorSpec
from tunesmith.tools.models.tensor_values import FLOATS, floats, row_ranges, stored

if TYPE_CHECKING:
    from tunesmith.tools.models.tensor_values import Floats

_INT_PACKED, _INT, _FLOAT = "pack-quantized", "int-quantized", "float-quantized"
_KINDS = {_INT_PACKED: "int", _INT: "int", _FLOAT: "float"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How the config says that a layer is stored."""

    form: str
    """compressed-tensors' name of it."""
    bits: int
    group: int
    """Weights of a row that share a scale; 0: those of an output channel."""
    smoothed: bool
    """Activations are quantized to integers too, so their outliers may have been moved into weights and norms."""
    ignore: tuple[str, ...] = ()
    signed: bool = False
    """Whether a scale may be below zero."""

    @classmethod
    def of(cls, config: Mapping[str, object]) -> Layout:
        """Read it. Raises LookupError, TypeError or ValueError where the config describes no layout of ours."""
        document = as_object(config["quantization_config"])
        [group] = map(as_object, as_object(document["config_groups"]).values())
        weights, form = as_object(group["weights"]), str(group.get("format") or document["format"])
        if weights["type"] != _KINDS[form] or not weights["symmetric"]:
            raise ValueError(f"the weights are not symmetric, or {weights['type']} in {form}")
        if (shared := weights["strategy"]) not in ("group", "channel"):
            raise ValueError(f"a scale is for a {shared}")
        size = as_int(weights["group_size"] or 0) if shared == "group" else 0
        bits, integers = as_int(weights["num_bits"]), _KINDS[form] == "int"
        # Floats are only written as FP8 with a scale an output: other files are not this program's.
        if not integers and (bits, size) != (8, 0):
            raise ValueError(f"{form} of {bits} bits in groups of {size}")
        smoothed = integers and group["input_activations"] is not None
        return cls(form, bits, size, smoothed, tuple(map(str, as_list(document["ignore"]))))

    def codes(self, shape: tuple[int, ...]) -> tuple[str, TensorSpec]:
        """The tensor that holds a layer's codes: the end of its name, and what a header says of it."""
        outputs, inputs = shape
        if self.form in (_INT, _FLOAT):
            return ".weight", TensorSpec("I8" if self.form == _INT else "F8_E4M3", shape)
        return ".weight_packed", TensorSpec("I32", (outputs, -(-inputs // (32 // self.bits))))

    def scales(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The shape of a layer's scales."""
        return (shape[0], -(-shape[1] // self.group) if self.group else 1)

    @property
    def ends(self) -> tuple[str, ...]:
        """The ends of the names of a layer's tensors beside its codes."""
        return (".weight_scale", ".weight_shape") if self.form == _INT_PACKED else (".weight_scale",)

    def scale_faults(self, scales: TensorPlace) -> str:
        """What is wrong with the type or the values of a layer's scales; empty for nothing."""
        kind = scales.spec.dtype
        if kind not in FLOATS:
            return f"is {kind}, no float"
        odd = sum(int(((floats(scales, rows) == 0) if self.signed else (floats(scales, rows) <= 0)).sum())
                  for rows in row_ranges(scales))  # fmt: skip
        wrong = "are zero" if self.signed else "are not above zero"
        return f"has {odd} values that {wrong}" if odd else ""


def decoded(
    places: Mapping[str, TensorPlace], layer: str, shape: tuple[int, ...], layout: Layout, rows: slice
) -> Floats:
    """Some rows of a quantized layer's weights: codes × scales."""
    import numpy as np

    scales = floats(places[f"{layer}.weight_scale"], rows)
    spread = np.repeat(scales, layout.group or shape[1], axis=1)[:, : shape[1]]
    values: Floats = _codes(places[layer + layout.codes(shape)[0]], shape, layout, rows) * spread
    return values


def _codes(place: TensorPlace, shape: tuple[int, ...], layout: Layout, rows: slice) -> Floats:
    import numpy as np

    if layout.form == _FLOAT:
        return floats(place, rows)
    codes = stored(place)[rows]
    if layout.form == _INT:
        return codes.astype(np.float32)
    # compressed-tensors packs codes into words of 32 bits, the first one lowest.
    shifts = np.arange(0, 32, layout.bits, dtype=np.uint32)
    fields = (codes.view("<u4")[:, :, None] >> shifts) & np.uint32(2**layout.bits - 1)
    # Stored from 0 on, and padded to whole words at a row's end.
    signed = fields.reshape(len(codes), -1)[:, : shape[1]].astype(np.int32) - 2 ** (layout.bits - 1)
    integers: Floats = signed.astype(np.float32)
    return integers
