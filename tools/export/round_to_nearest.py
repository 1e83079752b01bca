"""A base rounded to 4 bits without data, some rows at a time: what answers for it where 16 bits do not fit.

The arithmetic and the stored form are `models/packed_weights`'. Neither the model nor a file of it is ever in memory,
and nothing but numpy is loaded. llm-compressor's `model_free_ptq` holds a whole file, of a size that no config tells
before a download: of the 1.5B it peaks at 3,761 MiB, this at 660, and it takes twice the CPU. Whatever else the base
has is copied byte for byte. Not covered, and refused: experts that are stored as one tensor of all of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.tools.export.audit import CARRIED, Places
from tunesmith.tools.models.full_precision import full_precision_layers, matches_layer
from tunesmith.tools.models.memory_math import group_size_for
from tunesmith.tools.models.packed_weights import BITS, WORDS, packed, quantized_name
from tunesmith.tools.models.tensor_file import (
    TensorFileWriter,
    TensorPlace,
    TensorSpec,
    read_places,
    weight_files,
    write_index,
)
from tunesmith.tools.models.tensor_values import floats_of

if TYPE_CHECKING:
    from tunesmith.tools.models.packed_weights import Words

Progress = Callable[[float, float, str], None]
_WEIGHTS_AT_ONCE = 1 << 21
"""8 MB in fp32, for each thread: a whole matrix of a large model, and its copies on the way, would be gigabytes."""


class Rounded(NamedTuple):
    """What was made."""

    layers: int
    group_size: int
    """Weights that share a scale; 0: those of an output channel."""


def round_base(base: Path, out_dir: Path, progress: Progress) -> Rounded:
    """Fill `out_dir` with the base at 4 bits, as compressed-tensors that vLLM serves.

    Raises StepFailed for a mixture whose experts are one tensor, and where no layer is there to be rounded.
    """
    config = json.loads((base / "config.json").read_text())
    group, unquantized, files = group_size_for(config), full_precision_layers(config), weight_files(base)
    places = {file: read_places(file) for file in files}
    total = sum(_is_rounded(name, place, unquantized) for in_file in places.values() for name, place in in_file.items())
    if not total:
        raise StepFailed(f"{base} has no linear layers that could be rounded; measure it with measuring=16")
    done = 0
    with ThreadPoolExecutor() as pool:  # numpy lets other threads run while it computes
        for file in files:
            for name in _write(out_dir / file.name, places[file], unquantized, group, pool):
                if name.endswith(".weight_packed"):
                    done += 1
                    progress(done, total, f"rounding layer {done} of {total}")
    if len(files) > 1:
        write_index(out_dir, [out_dir / file.name for file in files])
    for name in CARRIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, out_dir / name)
    described = {**config, "quantization_config": quantization(group, unquantized)}
    atomic_write(out_dir / "config.json", json.dumps(described, indent=2) + "\n")
    return Rounded(total, group)


def quantization(group: int, unquantized: Sequence[str]) -> Mapping[str, object]:
    """What a config says of a model that was rounded so, in compressed-tensors' words."""
    weights: dict[str, object] = {"num_bits": BITS, "type": "int", "symmetric": True, "dynamic": False}
    weights |= {"strategy": "group", "group_size": group} if group else {"strategy": "channel", "group_size": None}
    scheme: dict[str, object] = {"targets": ["Linear"], "weights": weights, "format": "pack-quantized"}
    return {
        "quant_method": "compressed-tensors",
        "version": version("compressed-tensors"),
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {**scheme, "input_activations": None, "output_activations": None}},
        "ignore": list(unquantized),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _is_rounded(name: str, place: TensorPlace, unquantized: Sequence[str]) -> bool:
    """Whether a stored tensor is a linear layer of the decoder that does not have to stay. Raises StepFailed."""
    layer, _, end = name.rpartition(".")
    if len(place.spec.shape) == 3 and ".experts." in name:
        raise StepFailed(
            f"{place.path.name} holds its experts as one tensor ({name}): they cannot be rounded one by one; take a "
            "checkpoint with separate experts, or measure with measuring=16"
        )
    stays = any(matches_layer(layer, pattern) for pattern in unquantized)
    return end == "weight" and len(place.spec.shape) == 2 and ".layers." in name and not stays


def _write(
    path: Path, places: Places, unquantized: Sequence[str], group: int, pool: ThreadPoolExecutor
) -> Iterator[str]:
    """Write one file of the model; the name of every tensor once it is written."""
    rounded = {name for name, place in places.items() if _is_rounded(name, place, unquantized)}
    specs: dict[str, TensorSpec] = {}
    for name, place in places.items():
        specs |= _codes(name, place.spec, group) if name in rounded else {name: place.spec}
    with TensorFileWriter(path, specs.items()) as writer:
        for name, place in places.items():
            if name not in rounded:
                writer.write(name, place.read())
                yield name
                continue
            arrays = _rounded(place, group, pool)
            for code, words in zip(_codes(name, place.spec, group), arrays, strict=True):
                writer.write(code, words.tobytes())
                yield code


def _codes(name: str, spec: TensorSpec, group: int) -> dict[str, TensorSpec]:
    """The tensors that a rounded layer becomes: several codes in an int32, a scale for each group, the shape."""
    layer, (outputs, inputs) = quantized_name(name.removesuffix(".weight")), spec.shape
    return {
        # codes lie in words of 32 bits
        f"{layer}.weight_packed": TensorSpec("I32", (outputs, -(-inputs * BITS // 32))),
        f"{layer}.weight_scale": TensorSpec(spec.dtype, (outputs, -(-inputs // group) if group else 1)),
        f"{layer}.weight_shape": TensorSpec("I64", (2,)),
    }


def _rounded(place: TensorPlace, group: int, pool: ThreadPoolExecutor) -> tuple[Words, Words, Words]:
    """A layer's codes, scales and shape, in the order of `_codes`."""
    import numpy as np

    outputs, inputs = place.spec.shape
    kind, row_bytes = place.spec.dtype, place.spec.bytes // max(outputs, 1)
    step = max(1, _WEIGHTS_AT_ONCE // max(inputs, 1))

    def some(first: int) -> tuple[Words, Words]:
        words = np.frombuffer(place.read(first * row_bytes, min(step, outputs - first) * row_bytes), WORDS[kind])
        weights = np.require(floats_of(words, kind), requirements="W")  # of fp32 it is the file's own bytes
        return packed(weights.reshape(-1, inputs), group, kind)

    blocks = list(pool.map(some, range(0, outputs, step)))
    return (
        np.concatenate([codes for codes, _ in blocks]),
        np.concatenate([scales for _, scales in blocks]),
        np.array(place.spec.shape, "<i8"),
    )
