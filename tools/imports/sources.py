"""Where a stranger's rows come from: files and folders, or a data set of the hub at a commit; and every row of them.

A source names regular files of known kinds, within bounds, and no link in a folder; or `hub:owner/name@COMMIT`, with
/folder behind the name for one folder of it. What is fetched is what was listed: by name, size and digest, over https,
as files and never as code; a server on this machine may be asked without (`HF_ENDPOINT`). Files are read in a confined
child: it parses, converts and counts; what reaches the caller's process is rows within bounds, and nothing of a file
that is none. `look` and `take` are the child's side; `inspect_files` and `rows_of` start it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tunesmith.memory.confined import Limits, OverLimits, confined, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.core.record_files import TEXT, Record, column_records, columns_of, open_regular, text_records
from tunesmith.tools.imports.formats import Inspection, Problem, convert_one, inspect_records
from tunesmith.tools.models.hub import HubFile, announced, hub_listing, is_commit, newest_commit
from tunesmith.tools.models.hub_download import Progress, download

COLUMNAR = (".parquet", ".arrow")
KINDS = (*TEXT, *COLUMNAR)
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What `datasets` writes beside the rows of a saved data set."""
MAX_SOURCE_BYTES = 16 << 30
_MAX_FILES, _MAX_ENTRIES, _MAX_DEPTH = 1_000, 50_000, 8
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
    if len(files) > _MAX_FILES:
        raise BadInput(
            f"{folder} holds {len(files):,} files of rows; at most {_MAX_FILES:,} are read: name a part of it"
        )
    if not files:
        beside = f" of its own ({links} links are not followed: name those files themselves)" if links else ""
        raise BadInput(f"{folder} holds no {', '.join(KINDS)} file{beside}")
    return SourceFiles(tuple(sorted(files)), sum(file.stat().st_size for file in files), links)


def _below(real: Path, named: Path) -> Iterator[Path]:
    """The files below a folder; links to folders are not followed, and what is hidden is not looked into."""
    for where, folders, names in os.walk(real):
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


# A data set of the hub

PREFIX = "hub:"
_NAMED = re.compile(r"hub:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(/[^@\s]+)?(?:@(.*))?")
_SPLITS = ("train", "test", "valid", "validation", "val", "dev", "eval")


class HubSource(NamedTuple):
    """Where on the hub rows come from."""

    name: str
    """owner/name"""
    folder: str
    """Of the repository; empty: all of it."""
    commit: str

    def __str__(self) -> str:
        return f"{self.name}{f'/{self.folder}' if self.folder else ''} at {self.commit[:12]}"


def at_commit(source: str) -> str:
    """A source at the commit that its data set has now, where it names a branch, a tag, or nothing; any other as it is.

    Raises BadInput where the hub has no such data set, or cannot be asked.
    """
    named = _NAMED.fullmatch(source)
    if named is None or is_commit(named[3]):
        return source
    return f"{source.partition('@')[0]}@{newest_commit(named[1], named[3] or '', 'datasets')}"


def parse_source(source: str) -> HubSource:
    """The data set that a source names. Raises BadInput, saying what to type."""
    named = _NAMED.fullmatch(source)
    if named is None:
        raise BadInput(f"{source[:200]!r} names no data set; type {PREFIX}owner/name@COMMIT")
    name, folder, commit = named[1], (named[2] or "").strip("/"), named[3] or ""
    if not is_commit(commit):
        given = f"{commit[:60]!r} is no commit, and may be another one tomorrow" if commit else "the commit is missing"
        raise BadInput(
            f"{given}: type {source.partition('@')[0][:200]}@COMMIT, 40 hex digits; "
            f"`git ls-remote https://huggingface.co/datasets/{name} HEAD` prints the newest"
        )
    return HubSource(name, folder, commit)


def list_files(source: HubSource, split: str) -> tuple[HubFile, ...]:
    """The files of a split, with sizes and digests; nothing of them is fetched.

    Raises BadInput where there are none, or several sets of them to choose from; StepFailed where the hub cannot be
    reached.
    """
    listing = hub_listing(source.name, source.commit, "datasets")
    if listing.get("sha") != source.commit:
        raise BadInput(f"the hub was asked for {source} and told of another commit; do not use it")
    listed = announced(listing, source.name, is_rows_file)
    below = [file for file in listed if not source.folder or file.name.startswith(f"{source.folder}/")]
    files = _of_split(source, below, split)
    folders = sorted({str(PurePosixPath(file.name).parent) for file in files})
    kinds = sorted({PurePosixPath(file.name).suffix for file in files})
    if len(folders) > 1 or len(kinds) > 1:
        several = folders if len(folders) > 1 else kinds
        raise BadInput(
            f"{source} holds rows in {', '.join(several[:8])}; name one folder, {PREFIX}{source.name}/FOLDER@"
            f"{source.commit}, or fetch the files that you want and import those"
        )
    size = sum(file.bytes for file in files)
    if size > MAX_SOURCE_BYTES or len(files) > _MAX_FILES:
        raise BadInput(
            f"{source} has {len(files):,} files of {size / 1e9:,.0f} GB; at most {_MAX_FILES:,} of "
            f"{MAX_SOURCE_BYTES / 1e9:,.0f} GB are fetched: name a folder of it"
        )
    return files


def _of_split(source: HubSource, files: Sequence[HubFile], split: str) -> tuple[HubFile, ...]:
    """The files whose name says the split; all, where no name says any."""
    if not files:
        raise BadInput(f"{source} holds no file of rows; its page lists what there is: datasets/{source.name}")
    chosen = [file for file in files if _says(file.name, split)]
    if not chosen and any(_says(file.name, other) for file in files for other in _SPLITS):
        names = ", ".join(file.name for file in files[:6])
        raise BadInput(f"{source} has no split {split!r} among {names}; give `tunesmith import --split` another")
    return tuple(sorted(chosen or files))


def _says(name: str, split: str) -> bool:
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(split.lower())}(?![a-z0-9])", name.lower()))


def listing_digest(files: Sequence[HubFile]) -> str:
    """What the hub lists, for a plan to pin."""
    return hashlib.sha256("\n".join(map(repr, files)).encode()).hexdigest()


def fetch(source: HubSource, files: Sequence[HubFile], folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Fetch listed files into a folder, under names that are ours but for the ending; raises as `download` does."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = {
        folder / f"{number:04d}{PurePosixPath(file.name).suffix.lower()}": file for number, file in enumerate(files, 1)
    }
    download(source.name, source.commit, targets, progress, kind="datasets")
    return tuple(targets)


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


class Stopped(BadInput):
    """The rows of a source cannot be taken as its first records look now."""


def inspect_files(files: Sequence[Path], bytes_: int, mapping: Mapping[str, str], limit: int) -> Look:
    """Look at the first records. Raises BadInput for what cannot be read, is empty, or costs too much to look at."""
    first = files[0]
    argument = {"file": str(first), "mapping": dict(mapping)}
    with _remedied():
        answer = confined_answer(look, argument, f"the beginning of {first}", Limits(_BASE_S, CHILD_BYTES))
    problems = tuple(Problem(**problem) for problem in answer["inspection"].pop("problems"))
    inspection = Inspection(**answer["inspection"], problems=problems)
    mean = answer["bytes"] / answer["looked_at"]
    by_size = max(answer["looked_at"], first.stat().st_size / mean)
    in_first = by_size if answer["records"] is None else answer["records"]
    records = min(limit, round(in_first * max(1.0, bytes_ / max(1, first.stat().st_size))))
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
        yield from taken(confined(take, argument, what, limits))


def taken(items: Iterable[Any]) -> Iterator[TrainingRow | Problem | Totals]:
    """What `take` gives, typed. Raises Stopped."""
    for kind, *values in items:
        if kind == "stopped":
            raise Stopped(values[0])
        if kind == "row":
            name, prompt, completion, attributes = values
            yield TrainingRow(name, "imported", prompt, completion, RowAttributes.of(attributes))
        else:
            yield Problem(*values) if kind == "problem" else Totals(*values)


@contextmanager
def _remedied() -> Iterator[None]:
    """Adds to what was ended by its limits what to try."""
    try:
        yield
    except OverLimits as error:
        raise OverLimits(f"{error}; {_REMEDY}") from None


# In the child


def look(argument: Mapping[str, Any]) -> Iterator[object]:
    """What the first records of a file look like."""
    path = Path(argument["file"])
    columns = columns_of(path) if path.suffix.lower() in COLUMNAR else None
    records = _first(_records(path))
    if not records:
        raise BadInput(f"{path} holds no records")
    values = [record.value for record in records]
    inspection = inspect_records(values, argument["mapping"])
    rows = [convert_one(value, 1, inspection.format, inspection.mapping) for value in values]
    yield {
        "inspection": asdict(inspection),
        "looked_at": len(records),
        "bytes": max(1, sum(record.bytes for record in records)),
        "row_bytes": sum(_bytes(row) for row in rows if isinstance(row, TrainingRow)),
        "records": columns.records if columns else None,
        "left_out": columns.left_out if columns else [],
    }


def take(argument: Mapping[str, Any]) -> Iterator[object]:
    """Every row and problem of files, until a limit; the first item that is neither says how they were read."""
    records = islice((r for name in argument["files"] for r in _records(Path(name))), argument["limit"])
    first = _first(records)
    inspection = inspect_records([record.value for record in first], argument["mapping"])
    if inspection.status != "READY":
        why = "; ".join(map(str, inspection.problems[:3]))
        yield "stopped", f"{inspection.status}: {why or ', '.join(inspection.columns) or 'there are no records'}"
        return
    count = lines = read = row_bytes = 0
    for count, record in enumerate(chain(first, records), 1):
        read += record.bytes
        row = convert_one(record.value, count, inspection.format, inspection.mapping)
        if isinstance(row, Problem):
            lines += row.weight
            yield "problem", row.number, row.reason, row.weight
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
    yield "end", inspection.format, count, lines


def _first(records: Iterator[Record]) -> list[Record]:
    """The records that a source is looked at by: fewer where they are large."""
    first: list[Record] = []
    while len(first) < LOOKED_AT and sum(record.bytes for record in first) < _LOOKED_AT_BYTES:
        if (record := next(records, None)) is None:
            break
        first.append(record)
    return first


def _records(path: Path) -> Iterator[Record]:
    return column_records(path) if path.suffix.lower() in COLUMNAR else text_records(path)


def _bytes(row: TrainingRow) -> int:
    return len(json.dumps([row.prompt, row.completion, row.attributes.as_json()], ensure_ascii=False))
