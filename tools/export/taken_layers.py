"""One packed layer of somebody else's checkpoint, held against the base's weight: the rules that it has to obey.

A symmetric 4-bit scale is what makes a group's largest weight 7.5 steps. Rounding to nearest and GPTQ choose it so,
from the original weights (GPTQ without a fixed order at least in the group that comes first, before it has moved any
weight); a search for the least error, and AutoRound, only ever make it smaller. On SmolLM2-135M, groups of 32
(measured): held against the model that was rounded, all scales are so, to the rounding of their float type. Against one
that differs from it by a LoRA (1.2 % of the weights' norm) 56 % are, and 25 % are larger, though the error of what is
decoded is 10 % of either.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.tools.export.audit import Fault, Places
from tunesmith.tools.models.packing import Packing
from tunesmith.tools.models.tensor_file import TensorPlace
from tunesmith.tools.models.tensor_values import floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_STEPS = 7.5
_WEIGHTS_AT_ONCE = 1 << 19
_MOST_ERROR = 0.7
"""Of a layer's norm, as of a model that was quantized here."""
_ROUNDED = {"BF16": 2.0**-8, "F16": 2.0**-10, "F32": 2.0**-10}
"""Of a scale, what its float type may have taken or added, relative; the last leaves room for how it was computed."""
_TINY = 2.0**-24
_ALIKE = 0.81
"""Squared correlation from which on what a group decodes to is its weights times a number."""
_GAINS = (0.6, 1.6)
"""What that number may be. Measured: 0.77 to 1.23 of GPTQ, 0.68 to 1.10 of AutoRound, 0.1 to 7 of layers AWQ scaled."""
_FAR_SCALE, _FAR_CODE, _HALF_STEP = 1.05, 1.0, 0.55
_SOME, _FEW = 0.01, 0.005


class Worst(NamedTuple):
    """The worst of a layer's groups in one way, and where it is."""

    value: float = 0.0
    row: int = 0
    group: int = 0
    told: float = 0.0


class Sums(NamedTuple):
    """What was counted over some rows of a layer."""

    error: float = 0.0
    """Squared, of what the codes decode to."""
    size: float = 0.0
    """Squared, of the base's weights."""
    rows: int = 0
    groups: int = 0
    """Of weights that are not all zero."""
    by_largest: int = 0
    """Of these, those whose scale is what their largest weight makes it."""
    larger: int = 0
    """Rows whose first group has a larger scale than that."""
    off_nearest: int = 0
    """Groups with a code that is not the nearest."""
    scale: Worst = Worst()
    """By how far it is from what the largest weight makes it, as a factor above 1."""
    code: Worst = Worst()
    """In steps."""
    gain: Worst = Worst()
    """What a group decodes to, as a multiple of its weights, where it is one that is out of bounds."""


class Held(NamedTuple):
    """A layer, and what is wrong with it."""

    sums: Sums
    faults: tuple[Fault, ...]


def _joined(one: Sums, other: Sums) -> Sums:
    pairs: Iterator[tuple[Any, Any]] = zip(one, other, strict=True)
    return Sums(*(max(a, b) if isinstance(a, Worst) else a + b for a, b in pairs))


def relative_error(sums: Sums) -> float:
    """‖decoded − weight‖ ÷ ‖weight‖."""
    return float((sums.error / sums.size) ** 0.5) if sums.size else 0.0


def layer_faults(places: Places, layer: str, was: TensorPlace, packing: Packing, pool: ThreadPoolExecutor) -> Held:
    """Decode a layer whose tensors have the right shapes, and hold it against the base's weight."""
    outputs, inputs = was.spec.shape
    step = max(1, _WEIGHTS_AT_ONCE // inputs)

    def some(first: int) -> Sums:
        return _compared(places, layer, was, packing, slice(first, min(first + step, outputs)))

    sums = reduce(_joined, pool.map(some, range(0, outputs, step)), Sums())
    faults = tuple(Fault(kind=kind, where=f"{layer}{end}", says=says) for kind, end, says in _wrong(sums, packing))
    return Held(sums, faults)


def _wrong(sums: Sums, packing: Packing) -> Iterator[tuple[str, str, str]]:
    """Kind, end of the name and words of every rule that a layer breaks."""
    error = relative_error(sums)
    if not error <= _MOST_ERROR:
        says = f"decodes to weights that are off by {error:.0%} of the base's; rounding leaves 10 to 40 %"
        yield "other model", packing.codes, says
    if sums.larger > max(2, _FEW * sums.rows):
        says = f"has larger scales than the base's largest weights make them in {sums.larger} of {sums.rows} rows"
        yield "other model", packing.scales, f"{says}: other weights were rounded, such as another fine-tune's"
    if sums.gain.value:
        says = f"decodes to {sums.gain.told:.2f} times the base's weights {_where(sums.gain)}"
        yield "scale", packing.scales, says
    by_largest = sums.groups - sums.by_largest <= max(2, _SOME * sums.groups)
    if by_largest and sums.scale.value > _FAR_SCALE:
        says = f"is {sums.scale.told:.2f} times what the base's largest weight makes it {_where(sums.scale)}"
        yield "scale", packing.scales, f"{says}; of {sums.groups} groups {sums.by_largest} are what it makes them"
    nearest = sums.off_nearest <= max(2, _FEW * sums.groups)
    if by_largest and nearest and sums.code.value > _FAR_CODE:
        says = f"is off by {sums.code.told:.1f} steps {_where(sums.code)}, where all others are the nearest"
        yield "code", packing.codes, says


def _where(worst: Worst) -> str:
    return f"in row {worst.row}, group {worst.group}"


def _compared(places: Places, layer: str, was: TensorPlace, packing: Packing, rows: slice) -> Sums:
    """Some rows of a layer, group by group."""
    import numpy as np

    read = packing.decoded(places, layer, was.spec.shape, rows)
    order = np.argsort(read.groups, kind="stable")
    sorted_groups = read.groups[order]
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    weight, decoded = floats(was, rows), read.weights
    if (np.diff(read.groups) < 0).any():
        weight, decoded = weight[:, order], decoded[:, order]
    error = decoded - weight
    size, made, off = (np.add.reduceat(np.square(one), starts, axis=1) for one in (weight, decoded, error))
    largest = np.maximum.reduceat(np.abs(weight), starts, axis=1)
    furthest = np.maximum.reduceat(np.abs(error), starts, axis=1)
    rounded = _ROUNDED[places[layer + packing.scales].spec.dtype]
    return _counted(rows.start, np.abs(read.scales), size, made, off, largest, furthest, rounded)


def _counted(
    first: int, scales: Array, size: Array, made: Array, off: Array, largest: Array, furthest: Array, rounded: float
) -> Sums:
    """Of arrays with a value a group; see `Sums`."""
    import numpy as np

    some, wanted = largest > 0, largest / np.float32(_STEPS)
    room = wanted * np.float32(rounded) + np.float32(_TINY)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(some, scales / wanted, 1)
        steps = np.where(some, furthest / scales, 0)
        product = (size + made - off) / 2  # decoded × weight
        gain = np.where(some, product / size, 1)
        alike = np.square(product) >= np.float32(_ALIKE) * size * made
    # Scales of almost nothing are rounded to a multiple of the smallest number of their type.
    far = np.where(np.abs(scales - wanted) <= room, 1, np.maximum(factor, 1 / np.maximum(factor, _TINY)))
    out_of_bounds = alike & some & ~((gain > _GAINS[0]) & (gain < _GAINS[1]))
    out_of_bounds |= (made > 0) & ~some
    return Sums(
        error=float(off.sum(dtype=np.float64)),
        size=float(size.sum(dtype=np.float64)),
        rows=len(size),
        groups=int(some.sum()),
        by_largest=int((some & (np.abs(scales - wanted) <= room)).sum()),
        larger=int((some & (scales > wanted + room))[:, 0].sum()),
        off_nearest=int((steps > _HALF_STEP).sum()),
        scale=_worst(far, factor, first),
        code=_worst(steps, steps, first),
        gain=_worst(np.where(out_of_bounds, np.maximum(np.abs(np.log2(np.abs(gain) + _TINY)), _TINY), 0), gain, first),
    )


def _worst(values: Array, told: Array, first: int) -> Worst:
    import numpy as np

    row, group = np.unravel_index(int(np.argmax(values)), values.shape)
    return Worst(float(values[row, group]), first + int(row), int(group), float(told[row, group]))
