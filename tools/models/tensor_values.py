"""Values of stored tensors without torch: mapped from their file and looked at a MiB at a time.

bfloat16 has no numpy type: it is read as the upper half of a float32. Of the 8-bit floats E4M3 alone is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from tunesmith.tools.models.tensor_file import TensorPlace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# Of each float type: numpy's type for its bits, and the exponent that only infinities and NaN have.
_WORDS = {
    "BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00), "F32": ("<u4", 0x7F800000), "F64": ("<u8", 0x7FF << 52),
    "F8_E4M3": ("u1", 0x7F), "F8_E5M2": ("u1", 0x7C),
}  # fmt: skip
_INTEGERS = {"I8": "i1", "U8": "u1", "BOOL": "u1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
FLOATS = frozenset(_WORDS)
_FRACTION_BITS = {"BF16": 7, "F16": 10, "F32": 23}
"""Of bits after the point: what is rounded away is half of the last one."""
_CHUNK = 1 << 20
"""Bytes that are looked at together: what is made of them stays in a core's cache (of 4 MiB, a third of the pace)."""


def stored(place: TensorPlace) -> NDArray[np.generic]:
    """The tensor as it is stored, mapped from the file: integers as such, floats as the words of their bits."""
    import numpy as np

    kind, shape = place.spec.dtype, place.spec.shape or (1,)
    word = _WORDS[kind][0] if kind in _WORDS else _INTEGERS[kind]
    if 0 in shape:  # nothing, which cannot be mapped
        return np.zeros(shape, word)
    return np.memmap(place.path, word, "r", place.start, shape)


def row_ranges(place: TensorPlace) -> Iterator[slice]:
    """Slices of the first axis that are a MiB each, or one row where that has more."""
    rows = place.spec.shape[0] if place.spec.shape else 1
    step = max(1, _CHUNK * rows // max(1, place.spec.bytes))
    yield from (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def floats(place: TensorPlace, rows: slice = slice(None)) -> Floats:
    """Some rows of a float tensor as float32."""
    return floats_of(stored(place)[rows], place.spec.dtype)


def words_of(values: Floats, dtype: str) -> NDArray[np.generic]:
    """Finite float32 values as the words of a float type, rounded to nearest, ties to even."""
    import numpy as np

    if dtype != "BF16":
        return values.astype({"F16": "<f2", "F32": "<f4"}[dtype])
    bits = np.ascontiguousarray(values, np.float32).view("<u4")
    # Half of what is cut off, less one where the last kept bit is even: ties go to even.
    to_even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded: NDArray[np.generic] = ((bits + (np.uint32(0x7FFF) + to_even)) >> np.uint32(16)).astype("<u2")
    return rounded


def floats_of(words: NDArray[np.generic], dtype: str) -> Floats:
    """Words of a float type as float32."""
    import numpy as np

    words = np.ascontiguousarray(words)
    if dtype == "BF16":
        # A bf16 is the upper half of an fp32.
        return (words.astype("<u4") << 16).view("<f4")
    values: Floats
    if dtype == "F8_E4M3":
        values = e4m3_values()[words]
        return values
    values = words.view({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype("<f4", copy=False)
    return values


@cache
def e4m3_values() -> Floats:
    """The values of the 256 codes of an 8-bit float with 4 bits of exponent and 3 of fraction; two are NaN."""
    import numpy as np

    # Exponents are stored 7 too high, and a fraction has three bits: value = 1.fraction × 2^(exponent − 7), as eighths.
    codes = np.arange(128)
    exponent, fraction = codes >> 3, codes & 7
    values = np.where(exponent > 0, np.ldexp(8 + fraction, exponent - 10), np.ldexp(fraction, -9)).astype("<f4")
    values[127] = np.nan  # the highest code; this format has no infinity
    return np.concatenate([values, -values])


def not_finite(place: TensorPlace) -> int:
    """How many values of a float tensor are infinite or NaN."""
    import numpy as np

    mask = _WORDS[place.spec.dtype][1]
    words = stored(place).view(np.ndarray)  # slices of a memmap are slow to make
    exponent = np.asarray(mask, words.dtype)
    count = 0
    for rows in row_ranges(place):
        exponents = np.bitwise_and(words[rows], exponent)
        if exponents.size and exponents.max() == exponent:  # far cheaper than counting, and hardly ever so
            count += int(np.count_nonzero(exponents == exponent))
    return count


def equal(one: TensorPlace, other: TensorPlace) -> bool:
    """Whether two tensors hold the same values: bit for bit where they are stored alike."""
    import numpy as np

    if one.spec.shape != other.spec.shape:
        return False
    if one.spec.dtype == other.spec.dtype:
        words, others = stored(one).view(np.ndarray), stored(other).view(np.ndarray)
        return all(np.array_equal(words[rows], others[rows]) for rows in row_ranges(one))
    if not {one.spec.dtype, other.spec.dtype} <= {"F64", *_FRACTION_BITS}:
        return False
    return all(np.array_equal(floats(one, rows), floats(other, rows)) for rows in row_ranges(one))


def half_step(values: Floats, dtype: str) -> Floats:
    """Half the distance to the next value that a float type can store, at each of some values."""
    import numpy as np

    power = (values.view("<u4") & np.uint32(0x7F800000)).view("<f4")  # the power of two at or below
    step: Floats = power * np.float32(2.0 ** -(_FRACTION_BITS[dtype] + 1))
    return step
