"""How an existing checkpoint stores its 4-bit weights, by its config, and what its codes decode to; numpy alone.

Covers compressed-tensors' `pack-quantized`, which is what tunesmith writes, and GPTQ's own format, both symmetric and
with groups in any order of the inputs. Every other quantization is refused by its name, for it could not be held
against the weights that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.tensor_file import TensorPlace, TensorSpec
from tunesmith.tools.models.tensor_values import floats_of, stored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tunesmith.tools.models.tensor_values import Floats

    Integers = NDArray[np.integer[Any]]

_IN_A_WORD = 8
_MIDDLE = 8
_INSTEAD = "give a compressed-tensors (pack-quantized) or GPTQ checkpoint at 4 bits, or leave quantized out"
_WHY_NOT = {
    "awq": "AWQ folds its scales into the norms, so an adapter trained on the original base would see other inputs",
    "bitsandbytes": "bitsandbytes stores no codes that are known here",
    "fp8": "its weights are 8-bit floats, and a quantized base has 4 bits",
}
"""By `quant_method`; of another one it is said that it is not known."""


class Decoded(NamedTuple):
    """Some rows of a layer."""

    codes: Floats  # (rows, inputs), from -8 to 7
    scales: Floats  # (rows, groups)
    groups: Integers  # (inputs,)
    """The group of each input."""

    @property
    def weights(self) -> Floats:
        """Codes × scales."""
        weights: Floats = self.codes * self.scales[:, self.groups]
        return weights


@dataclass(frozen=True, slots=True)
class Packing:
    """Where a layer's codes, scales and order are."""

    gptq: bool
    """GPTQ's own format; else compressed-tensors'."""
    group: int
    """Weights of a row that share a scale; 0: those of an output channel."""
    ordered: bool = False
    """Whether inputs were sorted before they were grouped; what is stored of their order is read nowhere else."""
    ignore: tuple[str, ...] = ()
    """Layers that are stored whole, in compressed-tensors' words."""
    zeros: int = 0
    """What GPTQ's format stores as eight zero points of 8; its first version stores one less. There must be no others:
    vLLM takes these for granted."""

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str) -> Self:
        """By a config.json. Raises BadInput, saying what of `name` it is, for what cannot be held against a base."""
        document = config.get("quantization_config")
        if not isinstance(document, Mapping) or not document:
            raise BadInput(f"quantized={name} is not quantized: its config.json has no quantization_config; {_INSTEAD}")
        method = str(document.get("quant_method", "nothing"))
        if method not in ("compressed-tensors", "gptq"):
            why = _WHY_NOT.get(method, f"its quant_method is {method[:40]}, which is not known here")
            raise BadInput(f"quantized={name} is refused: {why}; {_INSTEAD}")
        try:
            read = cls._gptq(document) if method == "gptq" else cls._compressed(document)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            says = error if isinstance(error, ValueError) else f"its quantization_config is not whole ({error!r:.80})"
            raise BadInput(f"quantized={name} is refused: {says}; {_INSTEAD}") from None
        return read

    @classmethod
    def _compressed(cls, document: Mapping[str, Any]) -> Self:
        groups = list(document["config_groups"].values())
        _only(len(groups) == 1, f"it has {len(groups)} groups of layers, each stored in its own way")
        scheme, weights = groups[0], groups[0]["weights"]
        form = scheme.get("format") or document.get("format")
        _only(form == "pack-quantized", f"its format is {form}")
        _only(weights["num_bits"] == 4 and weights["type"] == "int", f"its weights have {_bits(weights)}")
        _only(bool(weights["symmetric"]), "its codes have zero points")
        _only(weights["strategy"] in ("group", "channel"), f"a scale of it is for a {weights['strategy']}")
        _only(not weights.get("dynamic"), "its scales are not stored")
        rounded = next((what for what in ("input_activations", "output_activations") if scheme.get(what)), "")
        _only(not rounded, f"its {rounded} are rounded too")
        _only(list(scheme["targets"]) == ["Linear"], f"its targets are {scheme['targets']!s:.60}, not every Linear")
        for also in ("kv_cache_scheme", "transform_config"):
            _only(not document.get(also), f"it has a {also} beside its weights")
        sparse = (document.get("sparsity_config") or {}).get("format", "dense")
        _only(sparse == "dense", f"it is sparse ({sparse})")
        size = int(weights["group_size"] or 0) if weights["strategy"] == "group" else 0
        ordered = weights.get("actorder") in (True, "group")
        return cls(False, max(size, 0), ordered, tuple(map(str, document.get("ignore") or ())))

    @classmethod
    def _gptq(cls, document: Mapping[str, Any]) -> Self:
        _only(document["bits"] == 4, f"its weights have {document['bits']} bits")
        version = document.get("checkpoint_format") or "gptq"
        _only(version in ("gptq", "gptq_v2"), f"its checkpoint_format is {version}")
        _only(document["sym"] is True, "its codes have zero points")
        for also in ("dynamic", "modules_in_block_to_quantize", "lm_head", "is_marlin_format"):
            _only(not document.get(also), f"it sets {also}")
        zeros = 0x88888888 if version == "gptq_v2" else 0x77777777
        return cls(True, max(int(document["group_size"]), 0), bool(document["desc_act"]), zeros=zeros)

    @property
    def codes(self) -> str:
        """The end of the name of a layer's codes."""
        return ".qweight" if self.gptq else ".weight_packed"

    @property
    def scales(self) -> str:
        """Of its scales."""
        return ".scales" if self.gptq else ".weight_scale"

    @property
    def order(self) -> str:
        """Of the group of each input, where these were sorted before they were grouped."""
        return ".g_idx" if self.gptq else ".weight_g_idx"

    def groups_in(self, inputs: int) -> int:
        """How many groups a row has."""
        return -(-inputs // self.group) if self.group else 1

    def specs(self, shape: tuple[int, ...]) -> Iterator[tuple[str, TensorSpec]]:
        """What headers say of a layer's tensors, by the ends of their names; the scales' float type is left open."""
        outputs, inputs = shape
        groups, words = self.groups_in(inputs), -(-inputs // _IN_A_WORD)
        yield self.codes, TensorSpec("I32", (words, outputs) if self.gptq else (outputs, words))
        yield self.scales, TensorSpec("", (groups, outputs) if self.gptq else (outputs, groups))
        if self.gptq:
            yield ".qzeros", TensorSpec("I32", (groups, -(-outputs // _IN_A_WORD)))
        if self.gptq or self.ordered:
            yield self.order, TensorSpec("I32", (inputs,))
        if not self.gptq:
            yield ".weight_shape", TensorSpec("I64", (2,))

    def groups(self, places: Mapping[str, TensorPlace], layer: str, inputs: int) -> Integers:
        """The group of each input of a layer."""
        import numpy as np

        if self.ordered:
            return stored(places[layer + self.order]).astype("<i8")
        return np.arange(inputs) // (self.group or inputs)

    def decoded(
        self, places: Mapping[str, TensorPlace], layer: str, shape: tuple[int, ...], rows: slice = slice(None)
    ) -> Decoded:
        """Some rows of a layer whose tensors have the right shapes."""
        import numpy as np

        words, scales = stored(places[layer + self.codes]), stored(places[layer + self.scales])
        words, scales = (words[:, rows].T, scales[:, rows].T) if self.gptq else (words[rows], scales[rows])
        codes = _fields(words, shape[1]).astype(np.float32) - np.float32(_MIDDLE)
        kind = places[layer + self.scales].spec.dtype
        return Decoded(codes, floats_of(scales, kind), self.groups(places, layer, shape[1]))


def _fields(words: NDArray[np.generic], count: int) -> NDArray[np.uint8]:
    """The first so many 4-bit fields of each row of words, the lowest bits first."""
    import numpy as np

    octets = np.ascontiguousarray(words).view("u1")
    fields = np.empty((len(octets), 2 * octets.shape[1]), np.uint8)
    np.bitwise_and(octets, 15, out=fields[:, ::2])
    np.right_shift(octets, 4, out=fields[:, 1::2])
    return fields[:, :count]


def _bits(weights: Mapping[str, Any]) -> str:
    return f"{weights['num_bits']} bits ({weights['type']})"


def _only(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
