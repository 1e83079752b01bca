"""A damaged store: how it is known, and the one sentence that tells it.

SQLite tells the damage that it meets. What it cannot know, such as a document cut short in the middle of a page, is
looked for once something fails that nothing explains.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_READ_CODES = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_DATA,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
    }
)
"""Errors of a disk that are about what is on it; the others may be over, or mean that it is full."""
_JSON = {
    "runs": ("plan", "stages"),
    "steps": ("request", "plan", "inputs", "result"),
    "approvals": ("price",),
    "artifacts": ("parents", "meta"),
    "events": ("data",),
    "eval_results": ("tool_calls", "assertions"),
    "rows": ("attributes", "prompt", "completion"),
}
"""Columns that hold documents of ours."""


class StoreDamaged(sqlite3.DatabaseError):
    """A read or a write met damage; the message is the whole sentence.

    No TunesmithError: what does without a part that cannot be told would do without this one, too.
    """


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that what it read is not what was written."""
    if isinstance(error, UnicodeDecodeError):  # of its own words, which quote what is damaged
        return True
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _CODES or code in _READ_CODES  # an extended code has its primary one in the low byte


def is_damaged_text(error: BaseException) -> bool:
    """Whether a text of the store is no UTF-8, which nothing here writes. Python gives that error no code."""
    return isinstance(error, sqlite3.OperationalError) and "Could not decode to UTF-8" in str(error)


def damaged(path: Path, home: Path, what: object) -> str:
    """The sentence of a damaged store at `path`, of which `what` is how it shows."""
    # The check of every page puts a heading on a line of its own.
    says = " ".join(str(what).split())
    return (
        f"{path} is damaged (SQLite says: {says}), and nothing here repairs it; move it and its -wal and -shm away, go "
        f"back to {last_copy(home)}, and `tunesmith runs recover` lists what else runs/ holds"
    )


def last_copy(home: Path) -> str:
    """Where the file as it was before it was last brought up to date lies."""
    folder = home / "backups"
    copies = sorted(folder.glob("tunesmith-*.db"), key=lambda path: path.stat().st_mtime)
    return str(copies[-1]) if copies else f"a copy of your own ({folder} holds none)"


def find_damage(conn: sqlite3.Connection) -> str:
    """How a store shows that it is damaged, every page, text and document of it read; empty where it does not."""
    try:
        verdict = str(conn.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if verdict != "ok":
            return verdict
        for table, columns in _JSON.items():
            for row in conn.execute(f"SELECT * FROM {table}"):
                for document in (row[column] for column in columns):
                    json.loads(document or "null")
    except (sqlite3.DatabaseError, ValueError, RecursionError) as error:
        return str(error)
    return ""
