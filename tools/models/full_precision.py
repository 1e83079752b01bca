"""Which layers a quantization must leave alone, by architecture, and the proof of it on the saved files.

Read from safetensors headers only; nothing is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.tensor_file import read_headers

_FLOATS = {"BF16", "F16", "F32"}
_PACKED = (".weight_packed", ".weight_scale", ".weight_global_scale", ".weight_zero_point", ".qweight")
HEAD = ("lm_head",)
# Routers decide which expert computes: a wrong choice costs a whole token. `mlp.gate_proj` is not one of them.
_ROUTERS = (r"re:.*\.gate$", r"re:.*shared_expert_gate$", r"re:.*router.*")


class Proof(NamedTuple):
    """What the saved headers say."""

    full_precision: tuple[str, ...]
    """Names of the tensors that had to stay, all found in a float type."""
    quantized_layers: int


def full_precision_layers(config: Mapping[str, object], also: Iterable[str] = ()) -> tuple[str, ...]:
    """Patterns of the layers to leave alone, in llm-compressor's form: names, or regexes after `re:`.

    `also` are further kinds of layers by the end of their name. vLLM fuses q, k and v, and gate and up: of those none
    can be left alone by itself.
    """
    asked = tuple(rf"re:.*\.{name}$" for name in also)
    return HEAD + (_ROUTERS if ModelShape.of(config).experts else ()) + asked


def assert_full_precision(folder: Path, patterns: Iterable[str]) -> Proof:
    """Prove on the files below `folder` that every layer matching `patterns` holds floats.

    Raises StepFailed when one is packed or not a float, when a router pattern was given and no router is found, or when
    nothing at all was quantized. A tied lm_head has no tensor of its own: its embedding is proven in its place.
    """
    dtypes = {name: spec.dtype for name, spec in read_headers(sorted(folder.glob("*.safetensors"))).items()}
    wanted = [*patterns, "re:.*embed_tokens$"]
    layers = {name.rsplit(".", 1)[0] for name in dtypes}
    matches = sorted(layer for layer in layers if any(matches_layer(layer, pattern) for pattern in wanted))
    proven = []
    for layer in matches:
        packed = [layer + suffix for suffix in _PACKED if layer + suffix in dtypes]
        name = next((n for n in (f"{layer}.weight", f"{layer}.e_score_correction_bias") if n in dtypes), None)
        if packed or name is None or dtypes[name] not in _FLOATS:
            what = packed[0] if packed else f"{layer}.weight as {dtypes.get(name or '', 'nothing')}"
            raise StepFailed(f"{layer} had to stay full precision, the saved model has {what}; do not deploy it")
        proven.append(name)
    if any("router" in pattern for pattern in patterns) and not any(_is_router(layer) for layer in matches):
        raise StepFailed(f"{folder}: a mixture of experts, yet no router is among its tensors; do not deploy it")
    quantized = sum(name.endswith(".weight_scale") for name in dtypes)
    if not quantized:
        raise StepFailed(f"{folder}: no layer is quantized; check the scheme against the architecture")
    return Proof(tuple(proven), quantized)


def _is_router(layer: str) -> bool:
    return any(matches_layer(layer, pattern) for pattern in _ROUTERS)


def matches_layer(layer: str, pattern: str) -> bool:
    """Whether a layer is named by a pattern: a name, its end after a dot, or a regex after `re:`."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], layer) is not None
    return layer == pattern or layer.endswith(f".{pattern}")
