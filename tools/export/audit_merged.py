"""The audit of a merged model, and of the adapter itself: base plus update, and nothing else.

Every tensor without an update must be the base's bit for bit. Every weight with one must be the sum: some of its rows,
drawn by seed, are computed again value by value, in float32, and may differ by the rounding to their stored type alone.
Updates of a mixture's fused experts are laid out by peft: of these only that they changed the experts is asked.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.memory.files import MANIFEST
from tunesmith.tools.export.audit import (
    Audit,
    Fault,
    Places,
    name_faults,
    not_finite_faults,
    read_weights,
    with_faults,
)
from tunesmith.tools.export.audit import text_side_faults as text_side
from tunesmith.tools.export.lora_update import StoredUpdate, adapter_tensors, module_of, stored_updates
from tunesmith.tools.models.tensor_file import INDEX_NAME, TensorPlace, places_of
from tunesmith.tools.models.tensor_values import equal, floats, half_step, row_ranges

if TYPE_CHECKING:
    from tunesmith.tools.models.tensor_values import Floats

_BLOCKS, _SEED = 4, 17
"""Of a MiB of rows each, which are computed again of a weight: all of a large one would take as long as its merge."""
_SLACK = 2e-6
"""Of float32 sums of a few dozen products, relative to the largest value that goes in."""


class _Summed(NamedTuple):
    """A weight that was computed again: squared norms, and what is wrong with it."""

    error: float
    update: float
    fault: Fault | None = None


def audit_merged(folder: Path, base: Path, adapter: Path, *, against: str = "") -> Audit:
    """Hold the files of a merged model against its base and adapter. Raises BadInput where these two are not whole."""
    before, (places, faults) = places_of(base), read_weights(folder)
    updates = stored_updates(adapter)
    faults += [*name_faults(places, before, set()), *_shapes(places, before), *not_finite_faults(places)]
    faults += [*text_side(folder, base), *_other_files(folder, base)]
    bad = {fault.where for fault in faults}
    common = {name: place for name, place in places.items() if name in before and name not in bad}
    named = sorted(updates.weights.keys() & common.keys())
    with ThreadPoolExecutor() as pool:  # numpy lets other threads run while it computes
        same = dict(zip(common, pool.map(lambda name: equal(common[name], before[name]), common), strict=True))
        sums = list(pool.map(lambda name: _sum(name, common[name], before[name], updates.weights[name]), named))
    faults += [one.fault for one in sums if one.fault]
    changed = [name for name in common if not same[name] and name not in updates.weights]
    changed_modules = [module_of(name) for name in changed]
    changed_experts = {prefix for prefix in updates.experts if any(name.startswith(prefix) for name in changed_modules)}
    faults += [
        Fault(kind="other base", where=name, says="is not the base's, and the adapter leaves it alone")
        for name in changed
        if not module_of(name).startswith(tuple(updates.experts))
    ]
    faults += [
        Fault(kind="not merged", where=prefix, says="are the base's experts; the adapter's update was not added")
        for prefix in sorted(updates.experts - changed_experts)
    ]
    faults += [
        Fault(kind="other base", where=name, says="has an update in the adapter, and no weight in the base")
        for name in sorted(updates.weights.keys() - before.keys())
    ]
    size = sum(one.update for one in sums)
    audit = Audit(
        model="merged",
        against=against or str(base),
        tensors=len(places),
        bytes=sum(place.end - place.start for place in places.values()),
        unchanged=sum(same.values()),
        updated=len(named) + sum(module_of(name).startswith(tuple(changed_experts)) for name in common),
        recomputed=len(sums),
        update_error=round(math.sqrt(sum(one.error for one in sums) / size), 6) if size else None,
    )
    return with_faults(audit, faults)


def _shapes(places: Places, before: Places) -> Iterator[Fault]:
    for name in places.keys() & before.keys():
        now, then = places[name].spec, before[name].spec
        if now != then:
            yield Fault(
                kind="shape", where=name, says=f"is {now.dtype} {now.shape}, the base's {then.dtype} {then.shape}"
            )


def _other_files(folder: Path, base: Path) -> Iterator[Fault]:
    """The config and whatever else lies beside the weights: all of it the base's."""
    config = folder / "config.json"
    if not config.is_file() or config.read_bytes() != (base / "config.json").read_bytes():
        yield Fault(kind="config", where=config.name, says="is not the base's")
    ours = {MANIFEST, INDEX_NAME}
    for file in sorted(folder.iterdir()):
        if file.suffix != ".safetensors" and file.name not in ours and not (base / file.name).exists():
            yield Fault(kind="extra file", where=file.name, says="is not in the base")


def _sum(name: str, merged: TensorPlace, base: TensorPlace, update: StoredUpdate) -> _Summed:
    """Whether a weight is base + update, but for the rounding of its type."""
    import numpy as np

    a, factor = floats(update.a), np.float32(update.scale)
    needed = (update.b.spec.shape[0], a.shape[1])
    if merged.spec.shape != needed:
        return _Summed(0, 0, Fault(kind="shape", where=name, says=f"is {merged.spec.shape}, its update {needed}"))
    off, error, size = 0, 0.0, 0.0
    blocks = [*row_ranges(merged)]
    for rows in random.Random(f"{_SEED} {name}").sample(blocks, min(_BLOCKS, len(blocks))):
        was, now = floats(base, rows), floats(merged, rows)
        delta: Floats = (floats(update.b, rows) @ a) * factor
        total = was + delta
        wrong = np.abs(now - total)
        slack = np.float32(_SLACK) * np.maximum(np.abs(was), np.abs(delta)).max(initial=0)
        # 1.01: the half step is computed in fp32 itself, and a tie may be rounded either way.
        off += int(np.count_nonzero(wrong > half_step(total, merged.spec.dtype) * np.float32(1.01) + slack))
        error += float(np.square(wrong, dtype=np.float64).sum())
        size += float(np.square(delta, dtype=np.float64).sum())
    if not off:
        return _Summed(error, size)
    share = math.sqrt(error / size) if size else math.inf
    left_out = equal(merged, base)
    says = "is the base's; the adapter's update was not added" if left_out else "is not base + update"
    says += f" ({off} values are off by more than rounding, {share:.0%} of the update)"
    return _Summed(error, size, Fault(kind="not merged" if left_out else "wrong sum", where=name, says=says))


def audit_adapter(adapter: Path, base: Path, *, against: str = "") -> Audit:
    """Hold an adapter's file against the base that it is served on. Raises BadInput where one of them is not whole."""
    places, before, updates = adapter_tensors(adapter), places_of(base), stored_updates(adapter)
    faults = [*not_finite_faults(places)]
    for name, update in updates.weights.items():
        shape = (update.b.spec.shape[0], update.a.spec.shape[1])
        if name not in before:
            faults.append(
                Fault(kind="other base", where=name, says="has an update in the adapter, and no weight in the base")
            )
        elif before[name].spec.shape != shape:
            faults.append(
                Fault(kind="other base", where=name, says=f"is {before[name].spec.shape}, its update {shape}")
            )
    audit = Audit(
        model="adapter",
        against=against or str(base),
        tensors=len(places),
        bytes=sum(place.end - place.start for place in places.values()),
        updated=len(updates.weights) + len(updates.experts),
    )
    return with_faults(audit, faults)
