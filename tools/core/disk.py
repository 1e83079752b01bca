"""Why nothing can be written in a folder, in a sentence that names the disk, the number, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tunesmith.memory.errors import disk_is_full
from tunesmith.tools.core.format import size

_ALMOST_NOTHING = 1 << 20
"""With less than this free SQLite fails with an I/O error that does not say why: its shared memory file has no room."""
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
"""As libraries repeat it that write files themselves, in errors of their own."""
_MAY_BE_FULL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_OF_A_DISK = (*_MAY_BE_FULL, sqlite3.SQLITE_READONLY)
_ELSEWHERE = "the whole home to a disk that {has}, and set TUNESMITH_HOME to its new place"
MOVE_HOME = f"move {_ELSEWHERE.format(has='has some')}"
"""What is advised where a disk is full; of a step on another machine something else has to be."""


def trouble(folder: Path, error: BaseException | None = None, *, needed_bytes: int = 0) -> str:
    """What is wrong with the disk of the file that `error` names, else with that of `folder`; empty where nothing is.

    Looks at the disk, for the error itself often says less. `needed_bytes` is what the work takes in all, if known.
    """
    folder = _folder_of(error) or folder
    place = next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
    try:
        disk, free, mount = os.statvfs(place), shutil.disk_usage(place).free, _mount(place)
    except OSError:  # a disk that is gone says nothing of itself
        return ""
    if is_full(error) or (_of_sqlite(error, _MAY_BE_FULL) and free < _ALMOST_NOTHING):
        if disk.f_files and not disk.f_favail:
            return f"the disk of {folder} takes no more files (0 inodes free); remove some below {mount}"
        needed = f", about {size(needed_bytes)} needed in all" if needed_bytes else ""
        return f"the disk of {folder} is full ({size(free)} free{needed}); make room below {mount}, or {MOVE_HOME}"
    if any(getattr(one, "errno", None) == errno.EFBIG for one in _chain(error)):
        return f"a file in {folder} would be larger than this shell allows; `ulimit -f unlimited` lifts that"
    if disk.f_flag & os.ST_RDONLY:
        copied = f"copy {_ELSEWHERE.format(has='is not')}"
        return f"the disk of {folder} is mounted read-only at {mount}; mount it for writing, or {copied}"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"user {os.geteuid()} may not write in {place}, which belongs to user {place.stat().st_uid}"
    return ""


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that a disk or its quota is full, in its own way or in a library's words."""
    return disk_is_full(error) or any(words in str(one) for one in _chain(error) for words in _NO_SPACE)


def concerns_disk(error: BaseException) -> bool:
    """Whether an error may come from the state of a disk, so that it is worth a look at that."""
    codes = (errno.EROFS, errno.EFBIG, errno.EACCES)
    of_system = any(isinstance(one, OSError) and one.errno in codes for one in _chain(error))
    return is_full(error) or of_system or _of_sqlite(error, _OF_A_DISK)


def _of_sqlite(error: BaseException | None, codes: tuple[int, ...]) -> bool:
    # an extended code has the plain one in its low byte
    return any(getattr(one, "sqlite_errorcode", 0) & 0xFF in codes for one in _chain(error))


def _folder_of(error: BaseException | None) -> Path | None:
    """Of the file that could not be written; of a copy or a new name that is the second one."""
    for one in _chain(error):
        named = isinstance(one, OSError) and (one.filename2 or one.filename)
        if isinstance(named, str) and named.startswith("/"):
            path = Path(named)
            return path if path.is_dir() else path.parent
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _mount(place: Path) -> Path:
    """Where the disk of a folder is mounted."""
    here = place.resolve()
    return next((one for one in (here, *here.parents) if one.is_mount()), here)
