"""4-bit weights as compressed-tensors' `pack-quantized` holds them: rounded and packed, with numpy alone.

The arithmetic is llm-compressor's round to nearest: the largest weight of a group becomes 7.5 steps, codes go from -8
to 7. The library divides in the weights' own type, here it is float32, so that of a hundred codes one is another where
a weight lies half-way between two; scales are the same, bit for bit. A test holds both against each other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tunesmith.tools.models.tensor_values import floats_of, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.generic]

BITS = 4
_LOWEST, _HIGHEST, _STEPS = -8, 7, 7.5  # a scale is half the range, as compressed-tensors makes it: 15 / 2
WORDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
"""Float type of a file → numpy's type for what is stored."""
_NO_SCALE = {"BF16": 2.0**-7, "F16": 2.0**-10, "F32": 2.0**-23}
"""Of a group of zeros, by the type that scales are stored in: that type's epsilon, as the library has it."""
IN_EXPERT = re.compile(r"(.*\.experts)\.\d+\.(\w+)$")
# Mixtral's experts, by the names that quantizing gives them; vLLM takes both.
_EXPERT_NAMES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def quantized_name(layer: str) -> str:
    """The name that quantizing gives a layer: the experts of Mixtral are called as everybody else's."""
    match = IN_EXPERT.match(layer)
    if match is None or match[2] not in _EXPERT_NAMES:
        return layer
    return layer.removesuffix(match[2]) + _EXPERT_NAMES[match[2]]


def packed(weights: NDArray[np.float32], group: int, kind: str) -> tuple[Words, Words]:
    """Codes, eight to a word with the first in its lowest bits, and scales as the words that are stored.

    One scale for `group` weights of a row, or for the row where that is 0. `weights` are used up.
    """
    import numpy as np

    rows, inputs = weights.shape
    grouped = weights.reshape(rows, -1, group or inputs)
    largest = np.maximum(grouped.max(-1), -grouped.min(-1))
    stored = words_of(largest / np.float32(_STEPS), kind)
    scales = floats_of(stored, kind)
    if not scales.all():
        stored = np.where(scales == 0, words_of(np.full_like(scales, _NO_SCALE[kind]), kind), stored)
        scales = floats_of(stored, kind)
    np.divide(grouped, scales[..., None], out=grouped)
    np.rint(grouped, out=grouped)
    np.clip(grouped, _LOWEST, _HIGHEST, out=grouped)
    codes = (weights - np.float32(_LOWEST)).astype("u1")
    if beyond := -inputs % (32 // BITS):  # a row begins with a word of its own: eight codes to an int32
        codes = np.pad(codes, ((0, 0), (0, beyond)))
    packed = np.ascontiguousarray(codes[:, ::2] | (codes[:, 1::2] << BITS))
    return packed.view("<i4"), stored
