"""The audit of a quantized model: every tensor is either the merged model's own or a packed layer of the right layout.

What had to stay (head, embeddings, routers, gates, exceptions, biases) must hold the merged model's values; norms may
differ where activations were smoothed into them. Of the packed layers codes, scales and shapes are checked against the
config, which is what vLLM goes by; a sample drawn by seed is decoded and held against the merged weights.
Covers the layouts that quantize writes (`quantized_layout`): integers and 8-bit floats.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.tools.export.audit import (
    Audit,
    Fault,
    Places,
    name_faults,
    not_finite_faults,
    read_weights,
    text_side_faults,
    with_faults,
)
from tunesmith.tools.models.full_precision import full_precision_layers, matches_layer
from tunesmith.tools.models.packed_weights import IN_EXPERT, quantized_name
from tunesmith.tools.models.quantized_layout import Layout, decoded
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.tensor_file import TensorPlace, places_of
from tunesmith.tools.models.tensor_values import FLOATS, equal, floats, row_ranges, stored

if TYPE_CHECKING:
    from tunesmith.tools.models.tensor_values import Floats

_DECODED = 16
"""Layers, drawn: codes of another model, or a wrong layout, are wrong in every layer."""
_MOST_ERROR = 0.7
"""4 bits leave 0.1 to 0.4 of a weight's norm as error; another model's codes, or a wrong sign, 1.4 and more."""
_EMBEDDINGS = r"re:.*embed_tokens$"
_SMOOTHED_NORM = re.compile(r"\.(input|post_attention)_layernorm\.weight$")
_READS_NORM = ((re.compile(r"\.self_attn\.[qkv]_proj$"), ".input_layernorm.weight"),
               (re.compile(r"\.mlp\.(gate|up)_proj$"), ".post_attention_layernorm.weight"))  # fmt: skip
# Of a config, what the weights must fit; a new transformers release writes the rest in its own way.
_OF_THE_MODEL = (
    "model_type", "architectures", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "num_experts", "num_local_experts",
    "num_experts_per_tok", "tie_word_embeddings", "rms_norm_eps", "hidden_act", "eos_token_id", "bos_token_id",
    "max_position_embeddings",
)  # fmt: skip


@dataclass(slots=True)
class _Expected:
    """What the merged model makes us expect of the quantized one."""

    layers: dict[str, TensorPlace] = field(default_factory=dict)
    """Quantized layer → its weight in the merged model."""
    same: dict[str, TensorPlace] = field(default_factory=dict)
    """Tensor that is taken over → where it is in the merged model."""
    names: dict[str, str] = field(default_factory=dict)
    """Every tensor → the layer that it belongs to, empty for none."""
    optional: set[str] = field(default_factory=set)


def audit_quantized(
    folder: Path, merged: Path, keep: Collection[str] = (), *, group_size: int | None = None, against: str = "",
    # 17: the same layers each time, so that a fault is found again.
    seed: int = 17, rounding: str = "gptq",
) -> Audit:  # fmt: skip
    """Hold the files of a quantized model against the merged one; `keep`, `group_size`, `rounding` are as asked for.

    AutoRound's scales may be below zero, so that a group's largest weight is the eighth step of whichever sign has one.
    """
    before, (places, faults) = places_of(merged), read_weights(folder)
    audit = Audit(model="quantized", against=against or str(merged), tensors=len(places))
    faults += text_side_faults(folder, merged)
    try:
        config = json.loads((folder / "config.json").read_text())
        origin = json.loads((merged / "config.json").read_text())
        layout = replace(Layout.of(config), signed=rounding == "autoround")
    except (OSError, ValueError, LookupError, TypeError) as error:  # whatever a config may hold
        says = f"describes no quantization that is known here ({error!r:.120})"
        return with_faults(audit, [*faults, Fault(kind="config", where="config.json", says=says)])
    unquantized = (*full_precision_layers(origin, keep), _EMBEDDINGS)
    expected = _expected(places, before, layout, unquantized, tied=ModelShape.of(origin).tied)
    unchanged = {name for name, was in expected.same.items() if name in places and equal(places[name], was)}
    faults += [
        *_config_faults(config, origin, layout, group_size),
        *name_faults(places, expected.names, expected.optional),
        *_unquantized_faults(places, expected, unchanged, unquantized, layout),
        *_layer_faults(places, expected, layout),
        *_expert_faults(places, keep),
        *not_finite_faults(places),
    ]
    errors, far = _decoded(places, expected, layout, {fault.where for fault in faults}, seed)
    audit = audit.model_copy(
        update={
            "bytes": sum(place.end - place.start for place in places.values()),
            "unchanged": len(unchanged),
            "quantized_layers": len(expected.layers),
            "decoded": len(errors),
            # The median: a layer that is far off is a fault of its own.
            "weight_error": round(sorted(errors)[len(errors) // 2], 6) if errors else None,
        }
    )
    return with_faults(audit, [*faults, *far])


def _expected(places: Places, before: Places, layout: Layout, unquantized: Sequence[str], *, tied: bool) -> _Expected:
    expected = _Expected()
    for name, place in before.items():
        layer, _, end = name.rpartition(".")
        stays = any(matches_layer(layer, pattern) for pattern in unquantized)
        linear = end == "weight" and len(place.spec.shape) == 2 and ".layers." in name
        if linear and not stays:
            layer = quantized_name(layer)
            expected.layers[layer] = place
            ends = (layout.codes(place.spec.shape)[0], *layout.ends)
            expected.names |= {layer + suffix: layer for suffix in ends}
        elif len(place.spec.shape) == 3 and ".experts." in name:
            # Fused experts are taken apart by quantizing: each is held to the layout, and to no weight of before.
            beginning = name[: name.index(".experts.") + len(".experts.")]
            expected.names |= {tensor: "" for tensor in places if tensor.startswith(beginning)}
        else:
            expected.same[name] = place
            expected.names[name] = ""
            if name.endswith("rotary_emb.inv_freq") or (tied and layer == "lm_head"):
                expected.optional.add(name)
    return expected


def _config_faults(
    config: Mapping[str, object], origin: Mapping[str, object], layout: Layout, group_size: int | None
) -> Iterator[Fault]:
    for name in _OF_THE_MODEL:
        if name in config and name in origin and config[name] != origin[name]:
            says = f"has {name} = {config[name]!r:.60}, the merged model {origin[name]!r:.60}"
            yield Fault(kind="config", where="config.json", says=says)
    if group_size is not None and layout.group != group_size:
        says = f"has group_size = {layout.group}, asked for was {group_size}"
        yield Fault(kind="group size", where="config.json", says=says)


def _unquantized_faults(
    places: Places, expected: _Expected, unchanged: Collection[str], unquantized: Sequence[str], layout: Layout
) -> Iterator[Fault]:
    """What had to stay and did not: as a float, and with the very values of the merged model."""
    for name, was in expected.same.items():
        place = places.get(name)
        if place is None:
            continue
        layer = name.rpartition(".")[0]
        must = any(matches_layer(layer, pattern) for pattern in unquantized)
        if place.spec.dtype not in FLOATS and was.spec.dtype in FLOATS:
            yield Fault(kind="precision", where=name, says=f"is {place.spec.dtype} and had to stay full precision")
        elif place.spec.shape != was.spec.shape:
            yield Fault(kind="shape", where=name, says=f"is {place.spec.shape}, the merged model's {was.spec.shape}")
        elif name not in unchanged and not (layout.smoothed and _SMOOTHED_NORM.search(name)):
            what = "had to stay full precision and" if must else "was to be left alone and"
            kind = "precision" if must else "other model"
            yield Fault(kind=kind, where=name, says=f"{what} does not hold the merged model's values")


def _layer_faults(places: Places, expected: _Expected, layout: Layout) -> Iterator[Fault]:
    """Every quantized layer: its codes' type and shape, its scales' shape and sign, and that the config names it."""
    for layer, was in expected.layers.items():
        end, spec = layout.codes(was.spec.shape)
        codes, scales = places.get(layer + end), places.get(f"{layer}.weight_scale")
        if codes is not None and codes.spec != spec:
            says = f"is {codes.spec.dtype} {codes.spec.shape}, the config makes it {spec.dtype} {spec.shape}"
            yield Fault(kind="shape", where=layer + end, says=says)
        if any(matches_layer(layer, pattern) for pattern in layout.ignore):
            yield Fault(kind="config", where=layer, says="is quantized, and the config tells to ignore it")
        noted = places.get(f"{layer}.weight_shape")
        if noted is not None and tuple(map(int, stored(noted).tolist())) != was.spec.shape:
            yield Fault(kind="shape", where=f"{layer}.weight_shape", says=f"is not {was.spec.shape}")
        if scales is None:
            continue
        if scales.spec.shape != layout.scales(was.spec.shape):
            says = f"is {scales.spec.shape}; the config's group size {layout.group} makes it "
            yield Fault(kind="group size", where=f"{layer}.weight_scale", says=f"{says}{layout.scales(was.spec.shape)}")
        if says := layout.scale_faults(scales):
            yield Fault(kind="scale", where=f"{layer}.weight_scale", says=says)


def _expert_faults(places: Places, keep: Collection[str]) -> Iterator[Fault]:
    """Expert layers of more than one precision: vLLM runs all of them in one. What was asked to stay counts apart."""
    kinds: dict[str, dict[str, str]] = {}
    for name, place in places.items():
        layer, _, end = name.rpartition(".")
        match = IN_EXPERT.match(layer)
        if match and end in ("weight", "weight_packed") and match[2] not in keep:
            kinds.setdefault(match[1], {}).setdefault(place.spec.dtype, name)
    for layer, by_dtype in kinds.items():
        if len(by_dtype) > 1:
            says = (
                f"holds {' and '.join(f'{dtype} ({one})' for dtype, one in by_dtype.items())}; one precision is served"
            )
            yield Fault(kind="expert precision", where=layer, says=says)


def _decoded(
    places: Places, expected: _Expected, layout: Layout, bad: set[str], seed: int
) -> tuple[list[float], list[Fault]]:
    """The relative error of a sample of layers, codes × scales against the merged weight, and those far off."""
    broken = {owner for name, owner in expected.names.items() if name not in places or name in bad}
    whole = sorted(expected.layers.keys() - broken)
    errors, faults = [], []
    # sorted, as files lie: each is read once
    for layer in sorted(random.Random(seed).sample(whole, min(_DECODED, len(whole)))):
        error = _relative_error(places, layer, expected, layout)
        errors.append(error)
        if error > _MOST_ERROR:
            says = f"decodes to weights that are off by {error:.0%} of the merged model's; rounding leaves 10 to 40 %"
            faults.append(Fault(kind="other model", where=layer, says=says))
    return errors, faults


def _relative_error(places: Places, layer: str, expected: _Expected, layout: Layout) -> float:
    """‖decoded − weight‖ ÷ ‖weight‖ of one layer, the weight as smoothing scaled it."""
    import numpy as np

    was, scaled = expected.layers[layer], _smoothing(places, layer, expected)
    off = size = 0.0
    for rows in row_ranges(was):
        weight = floats(was, rows) * scaled
        off += float(np.square(decoded(places, layer, was.spec.shape, layout, rows) - weight, dtype=np.float64).sum())
        size += float(np.square(weight, dtype=np.float64).sum())
    return float((off / size) ** 0.5) if size else 0.0


def _smoothing(places: Places, layer: str, expected: _Expected) -> Floats:
    """By what each input of a layer was scaled: what the norm before it was divided by."""
    import numpy as np

    for reader, norm in _READS_NORM:
        name = reader.sub(norm, layer)
        if name != layer and name in places and name in expected.same:
            now, was = floats(places[name]), floats(expected.same[name])
            return np.divide(was, now, out=np.ones_like(was), where=now != 0)
    return np.ones(1, np.float32)
