"""Records of JSONL, JSON, CSV, Parquet and Arrow files, one after another: every line, cell and document is bounded.

A record that cannot be read comes as `Unreadable`, and the others are read on. A file that is something else by its
first bytes, is neither UTF-8 nor marked as UTF-16, or is out of bounds raises BadInput. What a file says about how it
is to be understood (metadata of `datasets`, extension types, pickles) is not looked at: no such column is read, and
nothing is opened, fetched or written. Its parsers run where `confined` limits them.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from io import BufferedReader
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tunesmith.memory.errors import BadInput

TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Endings of text files that hold records."""
ASKED = ("prompt", "question", "query", "user", "input", "message", "text", "instruction", "source")
"""Names of columns that hold a message, the likeliest first."""
PREVIEW_RECORDS = 3
"""Records that a plan shows as they would be taken: no message of theirs is blind to its user any more."""
_FENCE = "```"
"""Around lines that were copied out of an assistant's answer; no JSON begins so."""
MAX_LINE_BYTES = 8 << 20
MAX_JSON_BYTES = 64 << 20
MAX_CELL_CHARS = 1_000_000
"""A whole line, document or cell is in memory at once, several times over as objects of Python."""
MAX_CELL_LINES = 2_000
"""Of a CSV cell: a text of more lines is one that a quote has swallowed."""
_DELIMITERS, _HEADER_CHARS = ",;\t|", 10_000
"""What may part cells; and of the header so much tells which does."""
_EXCEL_MARK = "sep="
"""What Excel writes and reads before the header: the next character parts the cells."""
_OTHER_KINDS = (
    (b"\x1f\x8b", "a gzip file; unpack it"), (b"PK\x03\x04", "a zip file; unpack it"),
    (b"BZh", "a bzip2 file; unpack it"), (b"\xfd7zXZ", "an xz file; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it"), (b"PAR1", "a Parquet file; name it .parquet"),
    (b"ARROW1", "an Arrow file; name it .arrow"), (b"\x80", "a pickle, or no text at all; write it as JSONL"),
)  # fmt: skip


class Unreadable(NamedTuple):
    """What stands where a record should; `lines` says how many lines of the file it takes."""

    reason: str
    lines: int = 1


class Record(NamedTuple):
    """One record as the file has it, or why there is none, and the bytes that it took."""

    value: object
    bytes: int
    at: int = 0
    """Of several files, the place of the one that it lies in."""


def open_regular(path: Path) -> BufferedReader:
    """A regular file, open for reading; nothing is waited for. Raises BadInput."""
    try:
        # Non-blocking, so that a pipe that took the file's place is refused instead of waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadInput(f"{path} is not a regular file; write its rows into one")
    return os.fdopen(fd, "rb")


def strict_json(text: str | bytes) -> Any:
    """A JSON value in which every number is finite. Raises ValueError or RecursionError."""

    def refuse(name: str) -> float:
        raise ValueError(f"{name} is no number in JSON")

    def finite(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits[:20])

    return json.loads(text, parse_constant=refuse, parse_float=finite)


def text_records(path: Path) -> Iterator[Record]:
    """The records of a text file: of a CSV file by its name, of one document or of lines by what it holds."""
    suffix = path.suffix.lower()
    with open_regular(path) as file:
        head = file.read(8)  # the longest of the marks above, ARROW1, has six
        file.seek(0)
        if kind := next((kind for magic, kind in _OTHER_KINDS if head.startswith(magic)), ""):
            raise BadInput(f"{path} is {kind}")
        if suffix not in (".csv", ".tsv") and _is_document(path, file, named=suffix == ".json"):
            yield from _json(path, file)
            return
        width = 2 if _is_utf_16(file) else 1  # what is counted of a line are its characters
        tabs = "\t" if suffix == ".tsv" else ""
        lined = _csv(path, file, tabs) if suffix in (".csv", ".tsv") else _jsonl(path, file)
        yield from (Record(record.value, width * record.bytes) for record in lined)


def _is_document(path: Path, file: BinaryIO, *, named: bool) -> bool:
    """Whether a JSON file is one document: by its name or as a list; not where its first line is a whole of its own."""
    head = ""
    try:
        lines = (line for line in _lines(path, file) if line.strip())
        head = next(lines, "")
        if not named and not head.lstrip().startswith("["):
            return False
        strict_json(head)
        return not next(lines, "")
    except (BadInput, ValueError, RecursionError):  # what is wrong with it is said as it is read
        return named or head.lstrip().startswith("[")
    finally:
        file.seek(0)


def _lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """The lines of a text file, each bounded. Raises BadInput, naming the line."""
    wide = _is_utf_16(file)
    text = io.TextIOWrapper(file, "utf-16", newline="\n") if wide else None
    try:
        for number in count(1):
            read = (text or file).readline(MAX_LINE_BYTES + 1)
            if not read:
                return
            if len(read) > MAX_LINE_BYTES:
                raise BadInput(
                    f"{path}: line {number} has over {MAX_LINE_BYTES >> 20} MB, the most that a record may have; "
                    "write one record a line"
                )
            yield read if isinstance(read, str) else read.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        # UTF-16 is decoded ahead of its lines
        where = f"{path} is marked as UTF-16 and is" if wide else f"{path}: line {number} is"
        raise BadInput(f"{where} no {'such' if wide else 'UTF-8'} text; save it as UTF-8") from None
    finally:
        if text:
            text.detach()  # else it would close the file


def _is_utf_16(file: BinaryIO) -> bool:
    return any(_begins(file, mark) for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _jsonl(path: Path, file: BinaryIO) -> Iterator[Record]:
    for line in _lines(path, file):
        if not line.strip() or line.lstrip().startswith(_FENCE):
            continue
        try:
            yield Record(strict_json(line), len(line))
        except (ValueError, RecursionError) as error:  # nested deeper than Python goes
            yield Record(Unreadable(f"it is no JSON ({str(error)[:80]})"), len(line))


def _json(path: Path, file: BinaryIO) -> Iterator[Record]:
    """The records of one JSON document: a list, or one list in an object."""
    encoding = "utf-16" if _is_utf_16(file) else "utf-8-sig"
    data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise BadInput(f"{path} has over {MAX_JSON_BYTES >> 20} MB; write it as JSONL, one record a line")
    try:
        records = _listed(json.loads(data.decode(encoding)))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}: line {line} is no {encoding[:6].upper()} text; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # nested deeper than Python goes
        raise BadInput(f"{path} is no JSON: {str(error)[:120]}; a file of one record a line is named .jsonl") from None
    mean = len(data) // max(1, len(records))
    for record in records:
        try:
            json.dumps(record, allow_nan=False)
            yield Record(record, mean)
        except (ValueError, RecursionError):  # a NaN cannot be written again; brackets in brackets outrun the stack
            yield Record(Unreadable("it holds a number that is none in JSON, or is nested too deeply"), mean)


def _listed(document: object) -> list[object]:
    """The records of a document: a list, or the one list in an object of a few fields ({"data": [...]})."""
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        # What a data set's file wraps its list in: a version, a licence. With more fields it is a record itself.
        document = lists[0] if len(lists) == 1 and len(document) <= 6 else [document]
    return document if isinstance(document, list) else [document]


def _csv(path: Path, file: BinaryIO, delimiter: str) -> Iterator[Record]:
    """A quote that is left open would swallow the records behind it: what it breaks is refused by its line.

    Without a `delimiter` the line that Excel writes for it names it, else it is the one that the header has most of.
    """
    csv.field_size_limit(MAX_CELL_CHARS)
    lines, blank = _lines(path, file), 0
    while (head := next(lines, "")) and not head.strip():
        blank += 1
    if head.lower().startswith(_EXCEL_MARK) and len(head.rstrip("\r\n")) == len(_EXCEL_MARK) + 1:
        delimiter, head, blank = head[len(_EXCEL_MARK)], next(lines, ""), blank + 1
    if "\r" in head.rstrip("\r\n"):
        raise BadInput(f"{path}: its lines end with a carriage return alone; save it as CSV with UTF-8")
    delimiter = delimiter or max(_DELIMITERS, key=lambda mark: _cells(head[:_HEADER_CHARS], mark))
    # strict: a quote that is never closed is an error, not a cell that swallows the rest of the file.
    reader = csv.reader(chain(repeat("\n", blank), [head], lines), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        begun = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if reader.line_num > begun:
                raise BadInput(
                    f"{path}: a quote that opens in line {begun} is not closed by line {reader.line_num} ({error}); "
                    "close it, or double the quotes inside the cell"
                ) from None
            yield Record(Unreadable(f"line {begun} is no CSV ({error})"), 1)
            continue
        if cells is None:
            return
        if columns is None:
            columns = _header(path, cells) if any(cells) else None
        elif cells:
            yield _row(columns, cells, begun, reader.line_num)


def _cells(header: str, mark: str) -> tuple[bool, int]:
    """Whether a mark parts all that a header has in quotes, which may hold any mark itself, and into how many cells."""
    count = len(next(csv.reader([header], delimiter=mark), ""))
    try:
        # Only strict refuses what stands between a closing quote and the next mark: then it is another mark.
        next(csv.reader([header], delimiter=mark, strict=True), "")
    except csv.Error:
        return False, count
    return True, count


def _header(path: Path, cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise BadInput(f"{path}: the column {twice[0][:60]!r} stands twice in the header; rename or remove one of them")
    return columns


def _row(columns: list[str], cells: list[str], first: int, last: int) -> Record:
    """A line of a CSV file as a record; one that a lost quote has swallowed is unreadable."""
    lines, size = last - first + 1, sum(map(len, cells))
    where = f"line {first}" if lines == 1 else f"lines {first} to {last}"
    if len(cells) > len(columns):
        return Record(Unreadable(f"{where}: {len(cells)} cells for {len(columns)} columns", lines), size)
    if lines > MAX_CELL_LINES:
        why = f"{where}: one record of {lines:,} lines; a quote may be missing in line {first}"
        return Record(Unreadable(why, lines), size)
    # shorter rows are complete: spreadsheets leave out empty cells at the end
    return Record({name: cell for name, cell in zip(columns, cells, strict=False) if name}, size)


_AT_ONCE = 32
"""Rows decoded together: one value repeated costs its file nothing, and memory each time."""
_MAX_DEPTH, _MAX_COLUMNS = 8, 1_000
"""Of a schema: all of it is looked at before the first row is read."""


class Columns:
    """The columns of a file that are read, those that are not, and how many records it says it has."""

    def __init__(self, path: Path, schema: Any, records: int | None) -> None:
        twice = [name for name, count in Counter(schema.names).items() if count > 1]
        if twice:
            raise BadInput(f"{path}: the column {twice[0][:60]!r} stands twice in it; rename or remove one of them")
        if len(schema.names) > _MAX_COLUMNS:
            raise BadInput(f"{path} has {len(schema.names):,} columns; at most {_MAX_COLUMNS:,} are looked at")
        self.read = [field.name for field in schema if _is_plain(field.type)]
        # a type of many fields is a page
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
    """The batches of a file, on one thread: those of Arrow are checked before anything in them is followed."""
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
