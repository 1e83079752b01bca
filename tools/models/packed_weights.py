"""4-bit weights as compressed-tensors' `pack-quantized` holds them: rounded, packed and unpacked, with numpy alone.

The arithmetic is llm-compressor's round to nearest: the largest weight of a group becomes 7.5 steps, codes go from -8
to 7. The library divides in the weights' own type, here it is float32, so that of a hundred codes one is another where
a weight lies half-way between two; scales are the same, bit for bit. A test holds both against each other.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.quantized_layout import Layout, decoded
from tunesmith.tools.models.tensor_file import TensorFileWriter, TensorPlace, read_places, weight_files
from tunesmith.tools.models.tensor_values import floats_of, row_ranges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.generic]

BITS = 4
_LOWEST, _HIGHEST, _STEPS = -8, 7, 7.5
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
    stored = _as_words(largest / np.float32(_STEPS), kind)
    scales = floats_of(stored, kind)
    if not scales.all():
        stored = np.where(scales == 0, _as_words(np.full_like(scales, _NO_SCALE[kind]), kind), stored)
        scales = floats_of(stored, kind)
    np.divide(grouped, scales[..., None], out=grouped)
    np.rint(grouped, out=grouped)
    np.clip(grouped, _LOWEST, _HIGHEST, out=grouped)
    codes = (weights - np.float32(_LOWEST)).astype("u1")
    if beyond := -inputs % (32 // BITS):
        codes = np.pad(codes, ((0, 0), (0, beyond)))
    packed = np.ascontiguousarray(codes[:, ::2] | (codes[:, 1::2] << BITS))
    return packed.view("<i4"), stored


def _as_words(values: NDArray[np.float32], kind: str) -> Words:
    """Values as a float type's words, rounded to nearest, ties to even."""
    import numpy as np

    if kind != "BF16":
        return values.astype(WORDS[kind])
    bits = np.ascontiguousarray(values).view("<u4")
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")


def _stored_name(places: Mapping[str, TensorPlace], layer: str) -> str:
    """The name that a layer is packed under; empty where it is not packed."""
    return next((name for name in (layer, quantized_name(layer)) if name + ".weight_packed" in places), "")


def unpack_base(base: Path, quantized: Path, target: Path) -> Path:
    """A folder of the quantized base's weights in the base's own form, for programs that read no packed ones.

    Raises BadInput for a checkpoint of another kind than is made here, which an earlier version could take.
    """
    config = json.loads((quantized / "config.json").read_text())
    document = config.get("quantization_config", {})
    groups = document.get("config_groups", {}).values()
    if document.get("format") != "pack-quantized" or any(group["weights"].get("actorder") for group in groups):
        raise BadInput(f"{quantized.name} was taken from elsewhere by an earlier version; run `tunesmith base` again")
    layout = Layout.of(config)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    codes = {name: place for file in weight_files(quantized) for name, place in read_places(file).items()}
    for file in base.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copyfile(file, target / file.name)
    for file in weight_files(base):
        places = read_places(file)
        with TensorFileWriter(target / file.name, [(name, place.spec) for name, place in places.items()]) as writer:
            for name, place in places.items():
                if layer := _stored_name(codes, name.removesuffix(".weight")):
                    parts = (decoded(codes, layer, place.spec.shape, layout, rows) for rows in row_ranges(place))
                    writer.write(name, b"".join(_as_words(part, place.spec.dtype).tobytes() for part in parts))
                else:
                    writer.write(name, place.read())
    return target
