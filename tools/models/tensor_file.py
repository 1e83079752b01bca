"""Safetensors files, written and read one tensor at a time.

The safetensors library serialises a whole dictionary at once, which costs a model's size in memory. This writer
needs the names, dtypes and shapes first and then one tensor's bytes at a time: converting or merging a 3 GB model
peaks at its largest tensor. Tensors are read by the library; headers are parsed here, without torch, and whatever a
file says of itself is checked first: it may come from anywhere. What the library would not load is refused here too.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.memory.json_values import as_list
from tunesmith.tools.core.strict_json import parse_json

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
ADAPTER_NAME = "adapter_model.safetensors"
SHARD = re.compile(r"\w[\w.-]{0,199}\.safetensors", re.ASCII)
MAX_HEADER_BYTES = 16 << 20
"""Of one file; the largest public ones have a tenth of it."""
_BITS = {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32}
_BITS |= {"F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
"""Bits, since the format has types of six and four; none that is left out here is read."""
_MOST_DIMS, _MOST_ROWS, _NAME_LETTERS = 8, 1 << 48, 512
"""Beyond what any model has: a header is read from strangers, and its numbers are multiplied."""


class TensorSpec(NamedTuple):
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _BITS[self.dtype] // 8


class TensorPlace(NamedTuple):
    """Where in which file a tensor's bytes lie."""

    path: Path
    spec: TensorSpec
    start: int
    end: int

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """Its bytes, `size` of them from `start` on: not mapped, for a mapped file counts as this process's memory."""
        with self.path.open("rb") as file:
            file.seek(self.start + start)
            return file.read(self.end - self.start - start if size is None else size)


def read_header(path: Path) -> dict[str, TensorSpec]:
    """The names, dtypes and shapes in one safetensors file. Raises BadInput for any other file, or one cut short."""
    return {name: place.spec for name, place in read_places(path).items()}


def read_places(path: Path) -> dict[str, TensorPlace]:
    """The same, and where the bytes of each are."""
    with path.open("rb") as file:
        return places_in(file, path)


def header_bytes(file: BinaryIO, path: Path) -> int:
    """How long the header of an open safetensors file is. Raises BadInput for any other file, or one cut short."""
    # The format: eight bytes that say how long the JSON header is, the header, then the values.
    size, start = os.fstat(file.fileno()).st_size, file.read(8)
    length = int.from_bytes(start, "little")
    if start == b"version ":  # the first bytes of a pointer; as a length it would be 2 EB
        raise BadInput(f"{path} is Git LFS's pointer to the weights; fetch them with `git lfs pull` in its folder")
    if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
        raise BadInput(
            f"{path} is not a whole safetensors file ({size} bytes, of which {MAX_HEADER_BYTES >> 20} MB may be its "
            "header); copy or make it again"
        )
    return length


def places_in(file: BinaryIO, path: Path) -> dict[str, TensorPlace]:
    """The places in an open file, `path` being its name. Raises BadInput as the safetensors library would refuse it."""
    length = header_bytes(file, path)
    data, size = 8 + length, os.fstat(file.fileno()).st_size
    try:
        header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("no object")
        header.pop("__metadata__", None)
        places = {name: _place(path, name, entry, data) for name, entry in header.items()}
    except (ValueError, TypeError, LookupError) as error:  # a header that a stranger wrote may be any JSON
        raise BadInput(f"{path} has no safetensors header: {str(error)[:100]}; copy or make it again") from None
    end = data
    # as they lie: a gap or an overlap is between neighbours
    for place in sorted(places.values(), key=lambda place: (place.start, place.end)):
        if place.start != end:
            raise BadInput(f"{path}: its tensors overlap or leave a gap at byte {end}; copy or make it again")
        end = place.end
    if size != end:
        what = "is cut short" if size < end else "goes on behind its tensors"
        raise BadInput(f"{path} {what}: {size} of {end} bytes; copy or make it again")
    return places


def _place(path: Path, name: str, entry: Mapping[str, object], data: int) -> TensorPlace:
    """Raises ValueError, TypeError or LookupError for what describes no tensor."""
    dtype, shape, offsets = entry["dtype"], entry["shape"], as_list(entry["data_offsets"])
    if len(name) > _NAME_LETTERS or not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"{name[:40]!r} is of {str(dtype)[:20]!r}")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMS:
        raise ValueError(f"{name[:40]!r} has no shape of at most {_MOST_DIMS} dimensions")
    # `type`, because True is an int
    sizes = [size for size in (*shape, *offsets) if type(size) is int and 0 <= size < _MOST_ROWS]
    if len(sizes) < len(shape) + len(offsets):
        raise ValueError(f"{name[:40]!r} has a size that none can have")
    start, end = sizes[len(shape) :]
    spec = TensorSpec(dtype, tuple(shape))
    if end - start != spec.bytes:
        raise ValueError(f"{name[:40]!r} lies in {end - start} bytes and takes {spec.bytes}")
    return TensorPlace(path, spec, data + start, data + end)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in `folder`, in name order. Raises BadInput where one is missing."""
    index = folder / INDEX_NAME
    names = indexed_shards(parse_json(index.read_bytes()), index) if index.is_file() else {SINGLE_NAME}
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        raise BadInput(f"{folder} lacks {missing[0]} ({len(missing)} of {len(names)} shards); copy or make it again")
    return [folder / name for name in sorted(names)]


def indexed_shards(document: object, index: Path) -> set[str]:
    """The shards that an index names. Raises BadInput for one that lies anywhere but beside it."""
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{index} has no weight_map; copy it again")
    for name in weight_map.values():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise BadInput(f"{index} names {str(name)[:100]!r}, which is no safetensors file beside it; do not use it")
    return set(weight_map.values())


def places_of(folder: Path) -> dict[str, TensorPlace]:
    """The tensors of the model in `folder`, those of its own shards alone. Raises BadInput where it is not whole."""
    return {name: place for file in weight_files(folder) for name, place in read_places(file).items()}


def write_index(folder: Path, shards: Iterable[Path]) -> None:
    """Say which tensor is in which shard."""
    places = {name: place for path in shards for name, place in read_places(path).items()}
    index = {
        "metadata": {"total_size": sum(place.end - place.start for place in places.values())},
        "weight_map": {name: places[name].path.name for name in sorted(places)},
    }
    atomic_write(folder / INDEX_NAME, json.dumps(index, indent=2) + "\n")


def read_headers(files: Iterable[Path]) -> dict[str, TensorSpec]:
    """The headers of several files, as one mapping."""
    return {name: spec for path in files for name, spec in read_header(path).items()}


class TensorFileWriter:
    """Writes one safetensors file tensor by tensor, in the order of `specs`; the file appears only when whole.

    Not `synced`, its bytes may not be on the disk yet when it has its name: its owner sees to that.
    """

    def __init__(self, path: Path, specs: Iterable[tuple[str, TensorSpec]], *, synced: bool = True) -> None:
        self.path = path
        self._synced = synced
        self._specs = list(specs)
        self._next = 0
        self._temporary = path.with_name(f".{path.name}.part")
        self._file = self._temporary.open("wb")
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, spec in self._specs:
            header[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [offset, offset + spec.bytes]}
            offset += spec.bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # as safetensors does, so that data begins at a multiple of 8
        self._file.write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, data: memoryview | bytes) -> None:
        """Append one tensor's little-endian bytes; it must be the next one announced, at its announced size."""
        expected, spec = self._specs[self._next]
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        if name != expected or size != spec.bytes:
            raise StepFailed(f"{self.path.name}: expected {expected} of {spec.bytes} bytes, got {name} of {size}")
        self._file.write(data)
        self._next += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None and self._next == len(self._specs):
            self._file.flush()
            if self._synced:
                os.fsync(self._file.fileno())  # or a power cut leaves the name without the bytes
            self._file.close()
            self._temporary.replace(self.path)
            return
        self._file.close()
        self._temporary.unlink(missing_ok=True)
        if kind is None:
            raise StepFailed(f"{self.path.name}: only {self._next} of {len(self._specs)} tensors were written")
