"""Files and folders that a stranger's rows come from, and every row of them; `hub_source` is where the hub's come from.

A source names regular files of known kinds, within bounds, and no link in a folder. Files are read in a confined
child: it parses, converts and counts; what reaches the caller's process is rows within bounds, and nothing of a file
that is none. `look` and `take` are the child's side; `inspect_files` and `rows_of` start it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.memory.confined import Limits, OverLimits, confined, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.core.record_files import TEXT, Record, column_records, columns_of, open_regular, text_records
from tunesmith.tools.imports.formats import Inspection, Problem, convert_one, in_words, inspect_records

COLUMNAR = (".parquet", ".arrow")
KINDS = (*TEXT, *COLUMNAR)
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What `datasets` writes beside the rows of a saved data set."""
MAX_SOURCE_BYTES = 16 << 30
MAX_FILES, _MAX_ENTRIES, _MAX_DEPTH = 1_000, 50_000, 8
"""What has more than any of these is a folder that was named by mistake."""
_HASHED_BYTES = 256 << 20
"""Up to here a source is pinned by its bytes; above, by names, sizes and times: to hash it would take minutes."""
_NOT_A_DATA_SET = ("/", "/etc", "/proc", "/sys", "/dev", "/usr", "/var", "/boot", "/run", "/home", "/root", "/tmp")


class SourceFiles(NamedTuple):
    """The files of a source, in the order of their names."""

    files: tuple[Path, ...]
    bytes: int
    links_left_out: int = 0
    """Symbolic links in the folder: what they lead to was not named, or is read under its own name."""


def is_rows_file(name: str) -> bool:
    """Whether a file of this name can hold rows."""
    return Path(name).suffix.lower() in KINDS and Path(name).name not in NOT_ROWS


def find_files(source: Path) -> SourceFiles:
    """A file itself, or the files of known kinds in a folder. Raises BadInput for all else, and beyond the bounds."""
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise BadInput(f"cannot read {source}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        named = _in_folder(source)
    elif not is_rows_file(source.name):
        raise BadInput(f"{source} is no file of rows by its name; rows are read from {', '.join(KINDS)}")
    elif not stat.S_ISREG(mode):
        raise BadInput(f"{source} is not a regular file; write its rows into one")
    else:
        named = SourceFiles((source.absolute(),), source.stat().st_size)
    if named.bytes > MAX_SOURCE_BYTES:
        raise BadInput(
            f"{source} has {named.bytes / 1e9:,.0f} GB; at most {MAX_SOURCE_BYTES / 1e9:,.0f} GB are read: name a part "
            "of it"
        )
    return named


def _in_folder(folder: Path) -> SourceFiles:
    """The files of a folder that can hold rows. Raises BadInput where it is no folder of rows."""
    real = Path(os.path.realpath(folder))
    if str(real) in _NOT_A_DATA_SET or Path.home().resolve().is_relative_to(real):
        raise BadInput(f"{folder} holds far more than rows; name the folder, or the file, that the rows lie in")
    files, links, entries = [], 0, 0
    for path in _below(real, folder):
        entries += 1
        if entries > _MAX_ENTRIES:
            raise BadInput(f"{folder} holds over {_MAX_ENTRIES:,} files; name a folder of nothing but the rows")
        if not is_rows_file(path.name):
            continue
        if path.is_symlink():
            links += 1
        elif path.is_file():
            files.append(path)
    if len(files) > MAX_FILES:
        raise BadInput(
            f"{folder} holds {len(files):,} files of rows; at most {MAX_FILES:,} are read: name a part of it"
        )
    if not files:
        beside = f" of its own ({links} links are not followed: name those files themselves)" if links else ""
        raise BadInput(f"{folder} holds no {', '.join(KINDS)} file{beside}")
    return SourceFiles(tuple(sorted(files)), sum(file.stat().st_size for file in files), links)


def _below(real: Path, named: Path) -> Iterator[Path]:
    """The files below a folder; links to folders are not followed, and what is hidden is not looked into."""
    for where, folders, names in os.walk(real):
        # In place: os.walk goes on by this very list.
        folders[:] = [name for name in folders if not name.startswith(".")]
        if folders and len(Path(where).relative_to(real).parts) >= _MAX_DEPTH:
            raise BadInput(f"{named} is over {_MAX_DEPTH} folders deep; name the folder that the rows lie in")
        yield from (Path(where, name) for name in names if not name.startswith("."))


def digest_of(files: Sequence[Path]) -> str:
    """What files hold, for a plan to pin: of one small file its sha256."""
    small = sum(file.stat().st_size for file in files) <= _HASHED_BYTES
    digests = [_sha256(file) if small else f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return digests[0] if small and len(files) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# What files hold

LOOKED_AT, _LOOKED_AT_BYTES = 200, 16 << 20
"""Records that a plan is made by, and their bytes at most: a person waits for it."""
MAX_IMPORT_BYTES = 256 << 20
"""Of text that one import takes, about 60 million tokens: all of it is in memory while it is written."""
CHILD_BYTES = 1 << 30
"""Address space of the child; a JSON document of the most that is read takes about half of it."""
_BASE_S, _S_PER_MB = 20.0, 0.5
"""CPU time that the child is given to start, and for each megabyte: against files that are built to be slow."""
_REMEDY = "take fewer records with --limit, or write the rows as JSONL, one record a line"


class Look(NamedTuple):
    """What the first records of a source look like, and how much the whole of it comes to."""

    inspection: Inspection
    records: int
    """In all files, as far as a limit lets them be read: counted by a footer, else by the size of the first ones."""
    read_bytes: int
    """Of these, decoded."""
    row_bytes: int
    """Of their rows."""
    left_out: tuple[str, ...] = ()
    """Columns that are not read."""


class Totals(NamedTuple):
    """What came of a whole source."""

    format: str
    records: int
    lines: int
    """Records, where one that swallowed others counts as all of them."""
    more: bool = False
    """Whether the files hold records beyond the limit."""


class NewFile(NamedTuple):
    """What the rows behind it lie in, of a source of several files."""

    name: str
    records: int
    """Those of the files before it."""


class Stopped(BadInput):
    """The rows of a source cannot be taken as its first records look now."""


def unclear(inspection: Inspection) -> str:
    """What is said where columns have to be named: those that their names propose, else how they are named."""
    if inspection.mapping:
        return f"Which columns? Run again with --map {shlex.join(map('='.join, inspection.mapping.items()))}"
    # A name of many words is a cell: the file has no header.
    first_line = any(len(name.split()) > 3 for name in inspection.columns)
    return (
        f"cannot tell which of the columns {in_words(inspection.columns)} is the message and which the answer; say "
        f"--map user=COLUMN assistant=COLUMN{' (the first line is taken as their names)' if first_line else ''}"
    )


def inspect_files(files: Sequence[Path], bytes_: int, mapping: Mapping[str, str], limit: int) -> Look:
    """Look at the first records. Raises BadInput for what cannot be read, is empty, or costs too much to look at."""
    first = files[0]
    argument = {"files": list(map(str, files)), "mapping": dict(mapping)}
    with _remedied():
        answer = confined_answer(look, argument, f"the beginning of {first}", Limits(_BASE_S, CHILD_BYTES))
    problems = tuple(Problem(**problem) for problem in answer["inspection"].pop("problems"))
    inspection = Inspection(**answer["inspection"], problems=problems)
    mean = answer["bytes"] / answer["looked_at"]
    by_size = max(answer["looked_at"], bytes_ / mean)
    # The footer is the first file's: the others are taken to hold as many a byte.
    by_footer = (answer["records"] or 0) * max(1.0, bytes_ / max(1, first.stat().st_size))
    records = min(limit, round(by_size if answer["records"] is None else by_footer))
    mean_row_bytes = answer["row_bytes"] / answer["looked_at"]
    return Look(inspection, records, int(records * mean), int(records * mean_row_bytes), tuple(answer["left_out"]))


def rows_of(
    files: Sequence[Path], mapping: Mapping[str, str], limit: int, most_bytes: int
) -> Iterator[TrainingRow | Problem | Totals]:
    """Every row of the files and every record that is none, as they are read, and at last what came of it.

    Their ids are as the records give them. Raises Stopped where the first records are not READY, BadInput for files
    that cannot be read or hold more than `most_bytes`.
    """
    argument = {"files": list(map(str, files)), "mapping": dict(mapping), "limit": limit, "most_bytes": most_bytes}
    limits = Limits(_BASE_S + most_bytes / 1e6 * _S_PER_MB, CHILD_BYTES)
    what = str(files[0]) if len(files) == 1 else f"one of the {len(files)} files beside {files[0]}"
    with _remedied():
        items = typed_items(confined(take, argument, what, limits))
        yield from (one for one in items if not isinstance(one, NewFile))


def typed_items(items: Iterable[Any]) -> Iterator[TrainingRow | Problem | NewFile | Totals]:
    """What `take` gives, typed. Raises Stopped."""
    for kind, *values in items:
        if kind == "stopped":
            raise Stopped(values[0])
        if kind == "row":
            name, prompt, completion, attributes = values
            yield TrainingRow(name, "imported", prompt, completion, RowAttributes.of(attributes))
        else:
            yield {"problem": Problem, "file": NewFile, "end": Totals}[kind](*values)


@contextmanager
def _remedied() -> Iterator[None]:
    """Adds to what was ended by its limits what to try."""
    try:
        yield
    except OverLimits as error:
        raise OverLimits(f"{error}; {_REMEDY}") from None


# In the child


def look(argument: Mapping[str, Any]) -> Iterator[object]:
    """What the first records of files look like."""
    files = list(map(Path, argument["files"]))
    columns = columns_of(files[0]) if files[0].suffix.lower() in COLUMNAR else None
    records = _first(_records_of(files))
    if not records:
        beside = f", nor do the {len(files) - 1} files beside it" if len(files) > 1 else ""
        raise BadInput(f"{files[0]} holds no records{beside}")
    values = [record.value for record in records]
    inspection = inspect_records(values, argument["mapping"], _heads(files), Path(os.path.commonpath(files)).name)
    problems = tuple(_placed(inspection.problems, records, file_names(files)))
    rows = [convert_one(value, 1, inspection.format, inspection.mapping) for value in values]
    yield {
        "inspection": asdict(replace(inspection, problems=problems)),
        "looked_at": len(records),
        "bytes": max(1, sum(record.bytes for record in records)),
        "row_bytes": sum(_bytes(row) for row in rows if isinstance(row, TrainingRow)),
        "records": columns.records if columns else None,
        "left_out": columns.left_out if columns else [],
    }


def take(argument: Mapping[str, Any]) -> Iterator[object]:
    """Every row and problem of files, until a limit; the first item that is neither says how they were read."""
    files = list(map(Path, argument["files"]))
    names, every = file_names(files), _records_of(files)
    records = islice(every, argument["limit"])
    first = _first(records)
    values = [record.value for record in first]
    inspection = inspect_records(values, argument["mapping"], _heads(files), Path(os.path.commonpath(files)).name)
    if inspection.status != "READY":
        why = "; ".join(map(str, _placed(inspection.problems[:3], first, names))) or "there are no records"
        yield "stopped", unclear(inspection) if inspection.status == "NEEDS MAPPING" else f"INCOMPATIBLE: {why}"
        return
    at, before = 0, 0
    count = lines = read = row_bytes = 0
    for count, record in enumerate(chain(first, records), 1):
        if record.at != at:
            at, before = record.at, count - 1
            yield "file", names[at], before
        read += record.bytes
        row = convert_one(record.value, count, inspection.format, inspection.mapping)
        if isinstance(row, Problem):
            lines += row.weight
            yield "problem", row.number - before, row.reason, row.weight, names[at]
        else:
            lines += 1
            row_bytes += _bytes(row)
            yield "row", row.row_id, row.prompt, row.completion, row.attributes.as_json()
        for what, bytes_, most in (("", read, argument["most_bytes"]), (" of rows", row_bytes, MAX_IMPORT_BYTES)):
            if bytes_ > most:
                raise BadInput(
                    f"the first {count:,} records hold over {most / 1e6:,.0f} MB{what}, the most that is taken here; "
                    f"take fewer with --limit {max(1, count - 1)}, or split the file"
                )
    yield "end", inspection.format, count, lines, next(every, None) is not None


def file_names(files: Sequence[Path]) -> list[str]:
    """What each file of a source is called, from the folder on that all lie in; nothing where there is one."""
    if len(files) == 1:
        return [""]
    common = os.path.commonpath([file.parent for file in files])
    return [os.path.relpath(file, common) for file in files]


def _placed(problems: Iterable[Problem], records: Sequence[Record], names: Sequence[str]) -> Iterator[Problem]:
    """Problems of the first records by their files, each counted from the first record of its own."""
    # reversed: the first record of each file stays
    begun = {record.at: place for place, record in reversed([*enumerate(records)])}
    for problem in problems:
        at = records[problem.number - 1].at
        yield replace(problem, number=problem.number - begun[at], file=names[at])


def _first(records: Iterator[Record]) -> list[Record]:
    """The records that a source is looked at by: fewer where they are large."""
    first: list[Record] = []
    while len(first) < LOOKED_AT and sum(record.bytes for record in first) < _LOOKED_AT_BYTES:
        if (record := next(records, None)) is None:
            break
        first.append(record)
    return first


def _heads(files: Sequence[Path]) -> Iterator[object]:
    """The first record of every file."""
    return (record.value for file in files for record in islice(_records_of([file]), 1))


def _records_of(files: Sequence[Path]) -> Iterator[Record]:
    """The records of all files, one after another."""
    for at, path in enumerate(files):
        for record in column_records(path) if path.suffix.lower() in COLUMNAR else text_records(path):
            yield record._replace(at=at)


def _bytes(row: TrainingRow) -> int:
    text = json.dumps([row.prompt, row.completion, row.attributes.as_json()], ensure_ascii=False)
    return len(text.encode(errors="surrogatepass"))
