"""How a layer of a quantized model is stored, by its config, and what its codes decode to.

Covers the layouts that quantize writes, compressed-tensors' by name: symmetric `pack-quantized` and `int-quantized`
(integers), `float-quantized` (E4M3), `nvfp4-pack-quantized` and `mxfp4-pack-quantized` (E2M1, two to a byte).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.tools.models.tensor_file import TensorPlace, TensorSpec
from tunesmith.tools.models.tensor_values import FLOATS, floats, row_ranges, stored

if TYPE_CHECKING:
    from tunesmith.tools.models.tensor_values import Floats

_INT_PACKED, _INT, _FLOAT = "pack-quantized", "int-quantized", "float-quantized"
_NVFP4, _MXFP4 = "nvfp4-pack-quantized", "mxfp4-pack-quantized"
_KINDS = {_INT_PACKED: "int", _INT: "int", _FLOAT: "float", _NVFP4: "float", _MXFP4: "float"}
_GROUPS = {_NVFP4: 16, _MXFP4: 32}
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_EXPONENT_BIAS, _EXPONENT_NAN = 127, 255
"""Of a scale that is a power of two in a byte: E8M0 of the OCP Microscaling Formats v1.0."""


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
    rows: int = 1
    """Outputs that share a scale."""
    signed: bool = False
    """Whether a scale may be below zero."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Layout:
        """Read it. Raises LookupError, TypeError or ValueError where the config describes no layout of ours."""
        document = config["quantization_config"]
        [group] = document["config_groups"].values()
        weights, form = group["weights"], group.get("format") or document["format"]
        if weights["type"] != _KINDS[form] or not weights["symmetric"]:
            raise ValueError(f"the weights are not symmetric, or {weights['type']} in {form}")
        shared, rows = weights["strategy"], 1
        size = int(weights["group_size"] or 0) if shared in ("group", "tensor_group") else 0
        if shared == "block":
            rows, size = map(int, weights["block_structure"])
        bits, integers = int(weights["num_bits"]), _KINDS[form] == "int"
        if not integers and (bits, size) != ((8, size) if form == _FLOAT else (4, _GROUPS[form])):
            raise ValueError(f"{form} of {bits} bits in groups of {size}")
        smoothed = integers and group["input_activations"] is not None
        return cls(form, bits, size, smoothed, tuple(document["ignore"]), rows)

    def codes(self, shape: tuple[int, ...]) -> tuple[str, TensorSpec]:
        """The tensor that holds a layer's codes: the end of its name, and what a header says of it."""
        outputs, inputs = shape
        if self.form in (_INT, _FLOAT):
            return ".weight", TensorSpec("I8" if self.form == _INT else "F8_E4M3", shape)
        if self.form == _INT_PACKED:
            return ".weight_packed", TensorSpec("I32", (outputs, -(-inputs // (32 // self.bits))))
        return ".weight_packed", TensorSpec("U8", (outputs, -(-inputs // 2)))

    def scales(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The shape of a layer's scales."""
        return (-(-shape[0] // self.rows), -(-shape[1] // self.group) if self.group else 1)

    @property
    def ends(self) -> tuple[str, ...]:
        """The ends of the names of a layer's tensors beside its codes."""
        more = {_INT_PACKED: (".weight_shape",), _NVFP4: (".weight_global_scale",)}
        return (".weight_scale", *more.get(self.form, ()))

    def scale_faults(self, scales: TensorPlace) -> str:
        """What is wrong with the type or the values of a layer's scales; empty for nothing."""
        kind = scales.spec.dtype
        wanted = {_NVFP4: "F8_E4M3", _MXFP4: "U8"}.get(self.form, "")
        if wanted and kind != wanted:
            return f"is {kind}, the config makes it {wanted}"
        if kind not in FLOATS and not wanted:
            return f"is {kind}, no float"
        if self.form == _MXFP4:
            odd = sum(int((stored(scales)[rows] == _EXPONENT_NAN).sum()) for rows in row_ranges(scales))
        else:
            odd = sum(int(((floats(scales, rows) == 0) if self.signed else (floats(scales, rows) <= 0)).sum())
                      for rows in row_ranges(scales))  # fmt: skip
        wrong = "are zero" if self.signed else "are not above zero"
        return f"has {odd} values that {wrong}" if odd else ""


def global_scale_faults(scale: TensorPlace) -> str:
    """What is wrong with the one number that a layer's scales are divided by; empty for nothing."""
    if (scale.spec.dtype, scale.spec.shape) != ("F32", (1,)):
        return f"is {scale.spec.dtype} {scale.spec.shape}, and one number in F32 belongs there"
    return "" if floats(scale)[0] > 0 else "is not above zero"


def decoded(
    places: Mapping[str, TensorPlace], layer: str, shape: tuple[int, ...], layout: Layout, rows: slice
) -> Floats:
    """Some rows of a quantized layer's weights: codes × scales."""
    import numpy as np

    start, stop, _ = rows.indices(shape[0])
    first = start // layout.rows
    scales = _scales(places, layer, layout, slice(first, -(-stop // layout.rows)))
    scales = scales[np.arange(start, stop) // layout.rows - first]
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
    if layout.form == _INT_PACKED:
        shifts = np.arange(0, 32, layout.bits, dtype=np.uint32)
        fields = (codes.view("<u4")[:, :, None] >> shifts) & np.uint32(2**layout.bits - 1)
        signed = fields.reshape(len(codes), -1)[:, : shape[1]].astype(np.int32) - 2 ** (layout.bits - 1)
        integers: Floats = signed.astype(np.float32)
        return integers
    halves = codes.astype(np.uint8)
    both = np.stack([halves & np.uint8(15), halves >> np.uint8(4)], axis=-1).reshape(len(codes), -1)
    values: Floats = np.array([*_E2M1, *(-value for value in _E2M1)], np.float32)[both[:, : shape[1]]]
    return values


def _scales(places: Mapping[str, TensorPlace], layer: str, layout: Layout, rows: slice) -> Floats:
    """Some rows of a layer's scales, as they multiply codes."""
    import numpy as np

    place = places[f"{layer}.weight_scale"]
    if layout.form == _MXFP4:
        return np.ldexp(np.float32(1), stored(place)[rows].astype(np.int32) - _EXPONENT_BIAS).astype(np.float32)
    if layout.form == _NVFP4:  # stored is what scales were multiplied by, to fill the range of their own float type
        return floats(place, rows) / floats(places[f"{layer}.weight_global_scale"])
    return floats(place, rows)
