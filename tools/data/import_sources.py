"""The files that a source names: of known kinds, regular, within bounds, and no link in a named folder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from tunesmith.memory.errors import BadInput

TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
COLUMNAR = (".parquet", ".arrow")
KINDS = (*TEXT, *COLUMNAR)
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What `datasets` writes beside the rows of a saved data set."""
MAX_SOURCE_BYTES = 16 << 30
_MAX_FILES, _MAX_ENTRIES, _MAX_DEPTH = 1_000, 50_000, 8
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


def digest_of(files: Sequence[Path]) -> str:
    """What files hold, for a plan to pin: of one small file its sha256."""
    small = sum(file.stat().st_size for file in files) <= _HASHED_BYTES
    digests = [_sha256(file) if small else _stamp(file) for file in files]
    return digests[0] if small and len(files) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"
