"""The audit of a quantized checkpoint that somebody else made, against the base that it should have been made from.

Every tensor counts, one at a time and some rows at once. What is stored whole has the base's values, once they are
rounded to its float type. What is packed decodes to the base's weights, by five rules (`layer_faults`) that hold for
rounding to nearest, GPTQ and AutoRound; for what was scaled into norms or rotated they do not.

Not covered: whether codes that were chosen with calibration data are the best ones; and another fine-tune's weights
that were rounded with scales below what their largest weight needs (AutoRound, or a search for the least square
error), where they differ from the base's by less than rounding leaves.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.tools.export.audit import (
    Audit,
    Fault,
    Places,
    not_finite_faults,
    read_weights,
    reference_weights,
    text_side_faults,
    with_faults,
)
from tunesmith.tools.export.taken_layers import layer_faults, relative_error
from tunesmith.tools.models.full_precision import kept_layers, matches_layer
from tunesmith.tools.models.packed_weights import as_type, stored_name
from tunesmith.tools.models.packing import Packing
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.tensor_file import TensorPlace
from tunesmith.tools.models.tensor_values import FLOATS, floats, row_ranges, stored

Progress = Callable[[float, float, str], None]
_EMBEDDINGS = r"re:.*embed_tokens$"
_THREADS = 8
_NARROWER = ("BF16", "F16")
_SCALED_NORM = re.compile(r"norm\.weight$")


@dataclass(slots=True)
class _Matched:
    """The checkpoint's tensors, by what the base makes of them."""

    layers: dict[str, TensorPlace] = field(default_factory=dict)
    """Packed layer → its weight in the base."""
    whole: dict[str, TensorPlace] = field(default_factory=dict)
    """Tensor that is stored whole → the one of the base that it has to equal."""
    faults: list[Fault] = field(default_factory=list)


def audit_taken(
    folder: Path, base: Path, packing: Packing, *, against: str = "", progress: Progress = lambda *_: None
) -> Audit:
    """Hold the files of a quantized checkpoint, in a folder with the base's text side, against the base."""
    before, (places, faults) = reference_weights(base), read_weights(folder)
    audit = Audit(model="quantized checkpoint", against=against or str(base), tensors=len(places))
    faults += text_side_faults(folder, base)
    matched = _matched(places, before, packing, json.loads((base / "config.json").read_text()))
    scales = {name: place for name, place in places.items() if name.endswith(packing.scales)}
    faults += [*matched.faults, *not_finite_faults(scales)]
    unequal = [fault for name, was in matched.whole.items() for fault in _unequal(name, places[name], was)]
    faults += unequal
    errors = []
    broken = {fault.where for fault in faults}
    with ThreadPoolExecutor(_THREADS) as pool:  # numpy lets other threads run while it computes
        for done, (layer, was) in enumerate(matched.layers.items(), 1):
            progress(done, len(matched.layers), f"holding {layer} against the base's")
            if any(layer + end in broken for end, _ in packing.specs(was.spec.shape)):
                continue
            found = layer_faults(places, layer, was, packing, pool)
            errors.append(relative_error(found.sums))
            faults += found.faults
    audit = audit.model_copy(
        update={
            "bytes": sum(place.end - place.start for place in places.values()),
            "unchanged": len(matched.whole) - len(unequal),
            "quantized_layers": len(matched.layers),
            "decoded": len(errors),
            "weight_error": round(sorted(errors)[len(errors) // 2], 6) if errors else None,
        }
    )
    return with_faults(audit, faults)


def _matched(places: Places, before: Places, packing: Packing, config: Mapping[str, object]) -> _Matched:
    found, kept, tied = _Matched(), (*kept_layers(config), _EMBEDDINGS), ModelShape.of(config).tied
    known: set[str] = set()
    for name, was in before.items():
        layer, _, end = name.rpartition(".")
        stored_as = stored_name(places, layer, packing)
        if end == "weight" and stored_as:
            known |= {stored_as + end for end, _ in packing.specs(was.spec.shape)}
            found.faults += _packed_faults(places, stored_as, was, packing, kept)
            found.layers[stored_as] = was
        elif name in places:
            known.add(name)
            found.whole[name] = was
            found.faults += _left_whole(layer, was, packing, kept) if end == "weight" else ()
        elif not (name.endswith("rotary_emb.inv_freq") or (tied and layer == "lm_head")):
            found.faults.append(Fault(kind="missing tensor", where=name, says="is in the base, and not there"))
    for name in sorted(places.keys() - known):
        found.faults += _beyond(name, places[name], before, found, packing, tied=tied)
    if not found.layers:
        found.faults.append(Fault(kind="config", where="config.json", says="tells of packed layers, and none is there"))
    return found


def _packed_faults(
    places: Places, layer: str, was: TensorPlace, packing: Packing, kept: Sequence[str]
) -> Iterator[Fault]:
    """A packed layer: whether it may be packed, that the config says so, and the types and shapes of its tensors."""
    if len(was.spec.shape) != 2 or ".layers." not in layer or any(matches_layer(layer, one) for one in kept):
        yield Fault(kind="precision", where=layer + packing.codes, says="is packed and had to stay full precision")
        return
    if any(_ignored(layer, pattern) for pattern in packing.ignore):
        yield Fault(kind="config", where=layer + packing.codes, says="is packed, and the config tells to ignore it")
    inputs = was.spec.shape[1]
    for end, spec in packing.specs(was.spec.shape):
        place = places.get(layer + end)
        if place is None:
            if end != packing.order or packing.ordered:
                yield Fault(kind="missing tensor", where=layer + end, says=f"is not there, {layer} is packed")
        elif place.spec.shape != spec.shape or (place.spec.dtype != spec.dtype if spec.dtype else not _scale(place)):
            says = (
                f"is {place.spec.dtype} {place.spec.shape}; the config makes it {spec.dtype or 'floats'} {spec.shape}"
            )
            yield Fault(kind="shape", where=layer + end, says=says)
        elif end == ".weight_shape" and tuple(map(int, stored(place).tolist())) != was.spec.shape:
            yield Fault(kind="shape", where=layer + end, says=f"is not {was.spec.shape}")
        elif end == ".qzeros" and (odd := int((stored(place).view("<u4") != packing.zeros).sum())):
            yield Fault(kind="zero point", where=layer + end, says=f"has {odd} words of zero points other than 8")
        elif end == packing.order and (wrong := _order_fault(packing, places, layer, inputs)):
            yield Fault(kind="order", where=layer + end, says=wrong)


def _scale(place: TensorPlace) -> bool:
    return place.spec.dtype in (*_NARROWER, "F32")


def _order_fault(packing: Packing, places: Places, layer: str, inputs: int) -> str:
    """Why the groups of a layer's inputs cannot be; empty where they can."""
    import numpy as np

    groups, count, size = packing.groups(places, layer, inputs), packing.groups_in(inputs), packing.group or inputs
    if groups.min() < 0 or groups.max() >= count:
        return f"names groups from {groups.min()} to {groups.max()}, there are {count}"
    sizes = np.bincount(groups, minlength=count)
    return "" if sizes.max() <= size and sizes.min() > 0 else f"puts {sizes.max()} inputs into a group of {size}"


def _left_whole(layer: str, was: TensorPlace, packing: Packing, kept: Sequence[str]) -> Iterator[Fault]:
    """A linear layer that is stored whole, and is not said to be: vLLM would wait for its codes, and not find them."""
    stays = any(matches_layer(layer, one) for one in kept)
    if len(was.spec.shape) != 2 or ".layers." not in layer or stays:
        return
    if not any(_ignored(layer, pattern) for pattern in packing.ignore):
        yield Fault(kind="config", where=f"{layer}.weight", says="is stored whole, and the config does not say so")


def _ignored(layer: str, pattern: str) -> bool:
    """As vLLM reads it: the whole name, or a regex after `re:`."""
    return bool(re.match(pattern[3:], layer)) if pattern.startswith("re:") else layer == pattern


def _beyond(
    name: str, place: TensorPlace, before: Places, found: _Matched, packing: Packing, *, tied: bool
) -> Iterator[Fault]:
    """A tensor that the base does not have: its head, where it is tied to the embeddings, or a bias of zeros."""
    if tied and name == "lm_head.weight":
        for embeddings, was in before.items():
            if embeddings.endswith("embed_tokens.weight"):
                found.whole[name] = was
                return
    empty = packing.gptq and name.endswith(".bias") and place.spec.dtype in FLOATS and not floats(place).any()
    if not (empty or name.endswith("rotary_emb.inv_freq")):
        yield Fault(kind="extra tensor", where=name, says="is there, and the base has no such tensor")


def _unequal(name: str, place: TensorPlace, was: TensorPlace) -> Iterator[Fault]:
    """A tensor that is stored whole, and does not have the base's values."""
    import numpy as np

    if place.spec.shape != was.spec.shape:
        yield Fault(kind="shape", where=name, says=f"is {place.spec.shape}, the base's {was.spec.shape}")
        return
    if place.spec.dtype == was.spec.dtype and all(
        np.array_equal(stored(place)[rows], stored(was)[rows]) for rows in row_ranges(place)
    ):
        return
    if {place.spec.dtype, was.spec.dtype} - {*_NARROWER, "F32"}:
        yield Fault(kind="precision", where=name, says=f"is {place.spec.dtype}, the base's {was.spec.dtype}")
        return
    count, largest = 0, 0.0
    for rows in row_ranges(place):
        now, then = floats(place, rows), as_type(floats(was, rows), place.spec.dtype)
        differing = ~(now == then)
        if differing.any():
            count += int(differing.sum())
            largest = max(largest, float(np.abs(now - then)[differing].max()))
    if count:
        says = f"does not hold the base's values: {count} of {math.prod(was.spec.shape)} differ, "
        scaled = "; AWQ and SmoothQuant scale norms" if _SCALED_NORM.search(name) else ""
        yield Fault(kind="other model", where=name, says=f"{says}by up to {largest:.3g}{scaled}")
