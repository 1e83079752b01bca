"""Safetensors files, written and read one tensor at a time.

The safetensors library serialises a whole dictionary at once, which costs a model's size in memory. This writer
needs the names, dtypes and shapes first and then one tensor's bytes at a time: converting or merging a 3 GB model
peaks at its largest tensor. Reading goes through the library; only headers are parsed here, without torch.

Not covered: dtypes narrower than a byte.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

from tunesmith.memory.errors import StepFailed

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1}


class TensorSpec(NamedTuple):
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count * _BYTES[self.dtype]


def read_header(path: Path) -> dict[str, TensorSpec]:
    """The names, dtypes and shapes in one safetensors file; raises StepFailed for a file that is cut short."""
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        size = path.stat().st_size
        if not 2 <= length <= size - 8:
            raise StepFailed(f"{path} is no whole safetensors file ({size} bytes); make it again")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < 8 + length + end:
        raise StepFailed(f"{path} is cut short: {size} of {8 + length + end} bytes; make it again")
    return {name: TensorSpec(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in `folder`, in name order; raises StepFailed when none."""
    index = folder / INDEX_NAME
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = [SINGLE_NAME] if (folder / SINGLE_NAME).is_file() else []
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise StepFailed(f"{folder} lacks {missing[0] if missing else SINGLE_NAME}; make the model folder again")
    return [folder / name for name in names]


def read_headers(folder: Path) -> dict[str, TensorSpec]:
    """The headers of every weight file of a model folder, as one mapping."""
    return {name: spec for path in weight_files(folder) for name, spec in read_header(path).items()}


class TensorFileWriter:
    """Writes one safetensors file tensor by tensor, in the order of `specs`; the file appears only when whole."""

    def __init__(self, path: Path, specs: Iterable[tuple[str, TensorSpec]]) -> None:
        self.path = path
        self._specs = list(specs)
        self._next = 0
        self._temporary = path.with_name(f".{path.name}.part")
        self._file = self._temporary.open("wb")
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
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
