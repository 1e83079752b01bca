"""Records of Parquet and Arrow files, a few at a time: texts, lists and structs, as pyarrow alone reads them.

What a file says about how it is to be understood (metadata of `datasets`, extension types, pickles) is not looked at:
no such column is read, and nothing is opened, fetched or written. It runs where `confined` limits it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.import_sources import open_regular
from tunesmith.tools.data.import_text import Record

_AT_ONCE = 32
"""Rows decoded together: one value repeated costs its file nothing, and memory each time."""
_MAX_DEPTH, _MAX_COLUMNS = 8, 1_000


class Columns:
    """The columns of a file that are read, those that are not, and how many records it says it has."""

    def __init__(self, path: Path, schema: Any, records: int | None) -> None:
        twice = [name for name, count in Counter(schema.names).items() if count > 1]
        if twice:
            raise BadInput(f"{path}: the column {twice[0][:60]!r} stands twice in it; rename or remove one of them")
        if len(schema.names) > _MAX_COLUMNS:
            raise BadInput(f"{path} has {len(schema.names):,} columns; at most {_MAX_COLUMNS:,} are looked at")
        self.read = [field.name for field in schema if _is_plain(field.type)]
        self.left_out = [f"{field.name} ({str(field.type)[:40]})" for field in schema if not _is_plain(field.type)]
        self.records = records
        if not self.read:
            raise BadInput(f"{path} has no column of text; it has {', '.join(self.left_out[:8])}")


def _is_plain(kind: Any, depth: int = 0) -> bool:
    """Whether a column is text, a number that may be a label, or a list or struct of such; an extension is neither."""
    pa = _pyarrow()
    if depth > _MAX_DEPTH:
        return False
    if pa.types.is_struct(kind):
        return all(_is_plain(field.type, depth + 1) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return not _is_number(kind.value_type) and _is_plain(kind.value_type, depth + 1)  # a vector is no text
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return _is_text(kind) or _is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def _is_text(kind: Any) -> bool:
    types = _pyarrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    types = _pyarrow().types
    return bool(types.is_integer(kind) or types.is_floating(kind))


def columns_of(path: Path) -> Columns:
    """What a file has, by its footer or its schema. Raises BadInput."""
    with open_regular(path) as file:
        if path.suffix.lower() == ".parquet":
            parquet = _parquet(path, file)
            return Columns(path, parquet.schema_arrow, parquet.metadata.num_rows)
        return Columns(path, _ipc(path, file, None).schema, None)


def column_records(path: Path) -> Iterator[Record]:
    """The records of a file, a few decoded at a time. Raises BadInput, or what pyarrow raises."""
    columns = columns_of(path)
    with open_regular(path) as file:
        for batch in _batches(path, file, columns.read):
            for first in range(0, batch.num_rows, _AT_ONCE):
                for record in batch.slice(first, _AT_ONCE).to_pylist():
                    yield Record(record, len(json.dumps(record, ensure_ascii=False)))


def _batches(path: Path, file: BinaryIO, columns: Sequence[str]) -> Iterator[Any]:
    if path.suffix.lower() == ".parquet":
        yield from _parquet(path, file).iter_batches(batch_size=_AT_ONCE, columns=list(columns), use_threads=False)
        return
    schema = _ipc(path, file, None).schema
    reader = _ipc(path, file, [schema.get_field_index(name) for name in columns])
    streamed = hasattr(reader, "read_next_batch")
    for batch in reader if streamed else map(reader.get_batch, range(reader.num_record_batches)):
        batch.validate(full=True)  # offsets that point elsewhere would be followed
        yield batch


@cache
def _pyarrow() -> Any:
    """pyarrow on one thread, with memory from the C library: its pools and arenas take address space for nothing."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    pa.set_memory_pool(pa.system_memory_pool())
    return pa


def _parquet(path: Path, file: BinaryIO) -> Any:
    _expect(path, file, b"PAR1", "Parquet")
    pa = _pyarrow()
    return pa.parquet.ParquetFile(pa.PythonFile(file, "r"), memory_map=False, pre_buffer=False)


def _ipc(path: Path, file: BinaryIO, fields: list[int] | None) -> Any:
    """Of a file or of a stream, which is what `datasets` saves."""
    pa = _pyarrow()
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
    if _begins(file, b"ARROW1"):
        return pa.ipc.open_file(pa.PythonFile(file, "r"), options=options)
    _expect(path, file, b"\xff\xff\xff\xff", "Arrow")
    return pa.ipc.open_stream(pa.PythonFile(file, "r"), options=options)


def _expect(path: Path, file: BinaryIO, magic: bytes, kind: str) -> None:
    if not _begins(file, magic):
        raise BadInput(f"{path} is no {kind} file by its first bytes; give it the name of what it is")


def _begins(file: BinaryIO, magic: bytes) -> bool:
    file.seek(0)
    head = file.read(len(magic))
    file.seek(0)
    return head == magic
