"""A store that cannot be written where it lies is read all the same: its disk is full, or mounted read-only.

SQLite cannot read a store in WAL mode where it can neither find nor make the shared memory file beside it. Then the
file and its log are read from a copy elsewhere; what the log holds was committed, so that it is never left out.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

from tunesmith.memory.errors import BadInput

_ATTEMPTS = 5
"""Who writes all the time is at work: a person may look later."""
_SPARE_BYTES = 1 << 20
"""For the files that SQLite makes beside the copy."""


def may_write(path: Path) -> bool:
    """Whether this user may change the store at `path`, and its disk is mounted so that anybody may."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def open_to_read(path: Path, schema: int, *, timeout_s: float) -> tuple[sqlite3.Connection, Path]:
    """The store at `path`, not to be written, and the file that is read: its own, or a copy that goes with the process.

    A store of another `schema` is copied, for the copy can be brought up to date. Raises BadInput where there is no
    room for it, OSError and sqlite3.Error where it cannot be read.
    """
    # check_same_thread: whoever uses it holds the store's lock.
    conn = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=timeout_s, check_same_thread=False)
    with suppress(sqlite3.OperationalError):  # no shared memory file: the copy is read
        if conn.execute("PRAGMA user_version").fetchone()[0] == schema:
            conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return conn, path
    conn.close()
    copy = _copied(path)
    return sqlite3.connect(copy, timeout=timeout_s, check_same_thread=False), copy  # as above: one lock holds all uses


def _copied(path: Path) -> Path:
    files = [part for part in (path, path.with_name(f"{path.name}-wal")) if part.exists()]
    folder = _room_for(path, sum(part.stat().st_size for part in files))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for _ in range(_ATTEMPTS):  # another user may write it meanwhile: file and log have to be of one moment
        before = [_state(part) for part in files]
        for part in files:
            shutil.copyfile(part, folder / part.name)
        if before == [_state(part) for part in files]:
            return folder / path.name
    raise BadInput(f"{path} is being written by another process, which leaves no room to read it; try again")


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _room_for(path: Path, bytes_: int) -> Path:
    places = ["/dev/shm"]
    with suppress(FileNotFoundError):  # no folder for temporary files takes one
        places.insert(0, tempfile.gettempdir())
    for place in places:
        if os.access(place, os.W_OK) and shutil.disk_usage(place).free > bytes_ + _SPARE_BYTES:
            return Path(tempfile.mkdtemp(prefix="tunesmith-", dir=place))
    raise BadInput(
        f"{path} can be read only from a copy of {bytes_:,} bytes, and there is no room for one in "
        f"{' or '.join(places)}; set TMPDIR to a folder that has some"
    )
