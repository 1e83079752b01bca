"""Safetensors files, written and read one tensor at a time.

The safetensors library serialises a whole dictionary at once, which costs a model's size in memory. This writer
needs the names, dtypes and shapes first and then one tensor's bytes at a time: converting or merging a 3 GB model
peaks at its largest tensor. Tensors are read by the library; headers are parsed here, without torch, and whatever a
file says of itself is checked first: it may come from anywhere.

Not covered: dtypes narrower than a byte.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self, TypedDict

from tunesmith.memory.errors import BadInput, StepFailed

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_SHARD = re.compile(r"\w[\w.-]*\.safetensors")
_MAX_HEADER_BYTES = 100_000_000
"""The safetensors library's own limit."""
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1}


class _Entry(TypedDict):
    dtype: str
    shape: list[int]
    data_offsets: list[int]


class TensorSpec(NamedTuple):
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _BYTES[self.dtype]


class TensorPlace(NamedTuple):
    """Where in which file a tensor's bytes lie."""

    path: Path
    spec: TensorSpec
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorSpec]:
    """The names, dtypes and shapes in one safetensors file. Raises BadInput for any other file, or one cut short."""
    return {name: place.spec for name, place in read_places(path).items()}


def read_places(path: Path) -> dict[str, TensorPlace]:
    """The same, and where the bytes of each are."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise BadInput(f"{path} is not a whole safetensors file ({size} bytes); copy or make it again")
        text = file.read(length)
    try:
        header: dict[str, _Entry] = json.loads(text)
        header.pop("__metadata__", None)
        places = {name: _place(path, entry, 8 + length) for name, entry in header.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path} has no safetensors header: {str(error)[:100]}; copy or make it again") from None
    end = max((place.end for place in places.values()), default=8 + length)
    if size < end:
        raise BadInput(f"{path} is cut short: {size} of {end} bytes; copy or make it again")
    return places


def _place(path: Path, entry: _Entry, data: int) -> TensorPlace:
    start, end = map(int, entry["data_offsets"])
    return TensorPlace(path, TensorSpec(str(entry["dtype"]), tuple(map(int, entry["shape"]))), data + start, data + end)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in `folder`, in name order. Raises BadInput where one is missing."""
    index = folder / INDEX_NAME
    names = indexed_shards(json.loads(index.read_text()), index) if index.is_file() else {SINGLE_NAME}
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        raise BadInput(f"{folder} lacks {missing[0]} ({len(missing)} of {len(names)} shards); copy or make it again")
    return [folder / name for name in sorted(names)]


def indexed_shards(document: object, index: Path) -> set[str]:
    """The shards that an index names. Raises BadInput for one that lies anywhere but beside it."""
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{index} has no weight_map; copy it again")
    for name in weight_map.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise BadInput(f"{index} names {str(name)[:100]!r}, which is no safetensors file beside it; do not use it")
    return set(weight_map.values())


def read_headers(files: Iterable[Path]) -> dict[str, TensorSpec]:
    """The headers of several files, as one mapping."""
    return {name: spec for path in files for name, spec in read_header(path).items()}


class TensorFileWriter:
    """Writes one safetensors file tensor by tensor, in the order of `specs`; the file appears only when whole."""

    def __init__(self, path: Path, specs: Iterable[tuple[str, TensorSpec]]) -> None:
        self.path = path
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
        text += b" " * (-len(text) % 8)
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
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self.path)
            return
        self._file.close()
        self._temporary.unlink(missing_ok=True)
        if kind is None:
            raise StepFailed(f"{self.path.name}: only {self._next} of {len(self._specs)} tensors were written")
