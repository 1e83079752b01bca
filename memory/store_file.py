"""The file behind the store: opened, brought up to date, written in whole transactions and read.

Refused in one line: a file that is damaged, that a newer version wrote, or that is from before the first release.
Before its schema is changed the whole file is copied to HOME/backups and the copy is checked; while a step is at work
it is not changed at all.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory import migrations
from tunesmith.memory.damage import StoreDamaged, damaged, find_damage, is_damage, is_damaged_text, last_copy
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import sync_folder
from tunesmith.memory.locks import is_locked, lock_file
from tunesmith.memory.numbering import highest_number
from tunesmith.memory.places import Places
from tunesmith.memory.privacy import make_private
from tunesmith.memory.records import RUNNING
from tunesmith.memory.unwritable import open_to_read

if TYPE_CHECKING:
    from sqlite_utils import Database

Values = Mapping[str, object]
BUSY_TIMEOUT_S = 30.0
"""Writes take milliseconds: who waits longer waits for a migration, or a disk that is fully used."""
_BACKUPS_MAX = 3
"""Copies from before a migration, each as large as the store: enough to go back a few versions."""
_KEYS = {
    "runs": ("run", "r"),
    "steps": ("step", "s"),
    "approvals": ("approval", "p"),
    "artifacts": ("artifact", "a"),
}


def insert(conn: sqlite3.Connection, table: str, row: Values, how: str = "INSERT", then: str = "") -> list[sqlite3.Row]:
    """Insert a row; that row as it is then, or none where one that is there stays as it is."""
    into = f"{how} INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
    return conn.execute(f"{into} {then} RETURNING *", [*row.values()]).fetchall()


def new_id(conn: sqlite3.Connection, table: str) -> int:
    """The next id of a table: the time in microseconds, or what follows its last one.

    So a new store gives none that a lost one gave, and what came back is named by its id as before.
    """
    last = conn.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0
    return max(last + 1, time.time_ns() // 1000)


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Keep sqlite-utils from importing these wherever they are installed: for types that no column here has."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python's word for "not there"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]  # who imports them by name is to find them


class StoreFile:
    """The open database; safe to share between the threads of one process."""

    def __init__(self, home: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S, unwritable: str = "") -> None:
        """Open (and where needed create or migrate) `home/tunesmith.db`. Raises BadInput for one it cannot work with.

        A write waits up to `busy_timeout_s` for another process to end its own. `unwritable` says why nothing can be
        written there, for the user to read: the store is then opened to be read, and every write raises it.
        """
        self.home = home
        self.places = Places(home)
        self.path = home / "tunesmith.db"
        """The file that is read, which is a copy elsewhere where the home itself allows no reading."""
        self.unwritable = unwritable
        self.tell: Callable[[str], None] = lambda line: None
        """Says to the user what no caller has to know."""
        self.is_new = False
        """Whether this opening made the file."""
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()
        if unwritable:
            self._conn, self.path = open_to_read(self.path, migrations.LATEST, timeout_s=busy_timeout_s)
        else:
            make_private(home)
            self._refuse_lone_log()
            # every use holds `_lock`
            self._conn = sqlite3.connect(self.path, timeout=busy_timeout_s, check_same_thread=False)
        try:
            with self._damage_told():
                self._open()
        except BaseException as error:  # a Ctrl-C too: the file must not stay open
            self._conn.close()
            if isinstance(error, StoreDamaged):
                raise BadInput(str(error)) from None
            raise

    def _open(self) -> None:
        self._conn.row_factory = sqlite3.Row
        self._conn.execute("PRAGMA synchronous=FULL")  # else a power cut may take back a commit, such as an approval
        self._conn.execute("PRAGMA foreign_keys=ON")
        version = self._version()
        self.is_new = not version
        if version > migrations.LATEST:
            raise BadInput(
                f"{self.path} was written by a newer tunesmith (schema {version}, this one knows {migrations.LATEST}); "
                f"update tunesmith, set TUNESMITH_HOME to another folder, or go back to {last_copy(self.home)}"
            )
        if 0 < version < migrations.FIRST:
            raise BadInput(
                f"{self.path} is from before the first release (schema {version}, this tunesmith knows "
                f"{migrations.FIRST} and later); set TUNESMITH_HOME to another folder"
            )
        if version < migrations.LATEST:
            self._migrate_copy(version) if self.unwritable else self._migrate()

    def _version(self) -> int:
        return int(self._conn.execute("PRAGMA user_version").fetchone()[0])

    def _refuse_lone_log(self) -> None:
        """SQLite would delete the log of a store that was moved away without it. Raises BadInput."""
        log = self.path.with_name(f"{self.path.name}-wal")  # looked at first: it is made after the file
        if log.exists() and log.stat().st_size and not (self.path.exists() and self.path.stat().st_size):
            raise BadInput(
                f"{self.path} is missing, and {log.name} beside it holds {log.stat().st_size:,} bytes of its last "
                "changes; put the file back, or move the log away, too"
            )

    @property
    def identity(self) -> str:
        """The name that no other store has."""
        return str(self.read("SELECT store FROM identity")[0]["store"])

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        """Whatever reads or writes the file meanwhile. Raises StoreDamaged where that meets damage."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if is_damage(error) or is_damaged_text(error):
                raise StoreDamaged(damaged(self.path, self.home, error)) from None
            raise

    def refuse_damage(self) -> None:
        """Look for damage that nothing has met yet; seconds for a large store. Raises StoreDamaged."""
        with self._lock:
            if found := find_damage(self._conn):
                raise StoreDamaged(damaged(self.path, self.home, found))

    def _migrate(self) -> None:
        with (self.home / ".migrate.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            version = self._version()  # again: another process may have migrated while this one waited
            if version >= migrations.LATEST:
                return
            if version:
                self._refuse_while_at_work()
                self._back_up(version)
            self._switch_to_wal()
            with self._transaction(None):  # one: a reading one that wants to write later does not wait either
                if version:
                    self._refuse_while_at_work()
                migrations.apply(self._db(), version)

    def _migrate_copy(self, version: int) -> None:
        """Nobody else has the copy, and what it was made from stays as it is."""
        with self._transaction(None):
            migrations.apply(self._db(), version)

    def _refuse_while_at_work(self) -> None:
        """A worker of the version that made the file goes on writing into it: its table must stay as it knows it."""
        for row in self._conn.execute("SELECT * FROM steps WHERE status = ?", (RUNNING,)).fetchall():
            if is_locked(lock_file(self.home, row["step"])):
                raise BadInput(
                    f"{self.path} is of an earlier version, and its step {row['step']} ({row['stage']}, pid "
                    f"{row['pid']}) is at work; it is brought up to date once that has ended or was stopped"
                )

    def _back_up(self, version: int) -> None:
        """Copy the file as it is, prove the copy whole, and keep the newest few. Raises BadInput where it cannot be."""
        folder = self.home / "backups"
        folder.mkdir(exist_ok=True, mode=0o700)  # its user's alone
        target = folder / f"tunesmith-schema{version}-{time.strftime('%Y%m%d-%H%M%S')}.db"
        partial = target.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(partial)) as copy:
                self._conn.backup(copy)
                verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
            if verdict != "ok":
                raise BadInput(f"{self.path} is damaged ({verdict}), so it is not brought up to date; restore a copy")
            partial.replace(target)
        except (sqlite3.Error, OSError) as error:  # no room, or damage that the copying met
            needed, free = self.path.stat().st_size, shutil.disk_usage(folder).free
            raise BadInput(
                f"{self.path} is not brought up to date, for no copy could be made of it first ({error}): it takes "
                f"{needed:,} bytes, {free:,} are free; make room"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(folder)
        # by time: their names say the schema, and not the age
        for old in sorted(folder.glob("tunesmith-schema*.db"), key=lambda path: path.stat().st_mtime)[:-_BACKUPS_MAX]:
            old.unlink(missing_ok=True)

    def _switch_to_wal(self) -> None:
        """WAL is a property of the file. SQLite switches only while nobody else reads it, and waits for nobody here.

        Where a file system lacks what WAL takes (shared memory, locks) SQLite stays in another mode and says so.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                mode = self._conn.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                if mode == "wal":
                    return
                raise BadInput(
                    f"the file system of {self.home} cannot hold a store that several processes write (SQLite stays in "
                    f"journal mode {mode}, not wal); set TUNESMITH_HOME to a folder on a local disk"
                )
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                # 10 ms, about what a switch to WAL takes; SQLite's own busy timeout does not count here.
                time.sleep(0.01)

    def _db(self) -> Database:
        """The same connection through sqlite-utils; imported on first use, for it takes 0.2–0.4 s."""
        with _hidden("pandas", "numpy"):
            from sqlite_utils import Database

        # Else sqlite-utils sets a pragma on our connection; the schema has no triggers.
        return Database(self._conn, recursive_triggers=False)

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()
        if self.path.parent != self.home:  # a copy that was made to be read
            shutil.rmtree(self.path.parent, ignore_errors=True)

    @contextmanager
    def write(self, *, wait_s: float | None = None) -> Iterator[sqlite3.Connection]:
        """One write transaction: all of it is on disk afterwards, or none.

        `wait_s` is how long to wait for another writer, where that is not as long as the store was opened with. Raises
        BadInput where nothing can be written, or another version has changed the file since it was opened.
        """
        if self.unwritable:
            raise BadInput(self.unwritable)
        with self._transaction(wait_s) as conn:
            if (version := self._version()) != migrations.LATEST:
                raise BadInput(
                    f"another version of tunesmith has changed {self.path} meanwhile (schema {version}, this one knows "
                    f"{migrations.LATEST}); end this one and start it anew"
                )
            yield conn

    @contextmanager
    def _transaction(self, wait_s: float | None) -> Iterator[sqlite3.Connection]:
        with self._lock, self._damage_told():  # threads share the connection, and a transaction is the connection's
            self._begin(wait_s)
            try:
                yield self._conn
                self._conn.commit()
            except BaseException:  # a Ctrl-C too: half a change must not stay
                self._conn.rollback()
                raise

    def _begin(self, wait_s: float | None) -> None:
        if wait_s is not None:
            self._conn.execute(f"PRAGMA busy_timeout={int(wait_s * 1000)}")  # milliseconds, as SQLite counts
        try:
            self._conn.execute("BEGIN IMMEDIATE")
        finally:
            if wait_s is not None:
                self._conn.execute(f"PRAGMA busy_timeout={int(self._busy_timeout_s * 1000)}")

    def read(self, sql: str, *args: object) -> list[sqlite3.Row]:
        """Rows of a query of our own; questions from outside go through `memory.questions`."""
        with self._lock, self._damage_told():
            return self._conn.execute(sql, args).fetchall()

    def _insert(self, conn: sqlite3.Connection, table: str, values: dict[str, object]) -> str:
        """Insert a row under the table's next id and return that id; no file of a store before has that id either."""
        key, letter = _KEYS[table]
        last_id = conn.execute(f"SELECT max(CAST(substr({key}, 2) AS INTEGER)) FROM {table}").fetchone()[0]
        values = {**values, key: f"{letter}{max(last_id or 0, highest_number(self.home, letter)) + 1}"}
        insert(conn, table, values)
        return str(values[key])
