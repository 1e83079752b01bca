"""The store's file: damaged or newer ones are refused in one line, and nothing is changed without a copy."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from tests.fixtures.old_homes import next_program
from tunesmith.memory import migrations
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    store.new_run("kept")
    store.close()
    return tmp_path


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be read" * 100])
def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tunesmith.db").write_bytes(content)
    if not content:
        Store(tmp_path).close()  # an empty file is a new store
        return
    with pytest.raises(BadInput, match="is damaged") as refused:
        Store(tmp_path)
    assert "\n" not in str(refused.value) and (tmp_path / "tunesmith.db").read_bytes() == content


def test_a_newer_store_is_refused_and_left_alone(home: Path) -> None:
    with sqlite3.connect(home / "tunesmith.db") as conn:
        conn.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
    with pytest.raises(BadInput, match=r"newer tunesmith.*update tunesmith"):
        Store(home)


def test_a_file_system_that_cannot_hold_it_is_told(home: Path) -> None:
    store = Store(home)
    store._conn = sqlite3.connect(":memory:")  # the one place where SQLite itself stays in another mode
    with pytest.raises(BadInput, match=r"stays in journal mode memory, not wal\); set TUNESMITH_HOME"):
        store._switch_to_wal()


def test_a_row_with_a_column_of_the_future_is_still_read(home: Path) -> None:
    """A process that was at work while a newer version changed the file."""
    store = Store(home)
    step = store.propose("r1", "train", plan_hash="h")
    with store.write() as conn:
        conn.execute("ALTER TABLE steps ADD COLUMN of_the_future TEXT")
    assert store.step(step).id == step


def test_before_a_migration_the_file_is_copied_and_the_copy_is_whole(home: Path) -> None:
    with next_program():
        Store(home).close()
    (copy,) = (home / "backups").iterdir()
    with sqlite3.connect(copy) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert conn.execute("PRAGMA user_version").fetchone()[0] == migrations.LATEST
        assert conn.execute("SELECT name FROM runs").fetchall() == [("kept",)]
    assert copy.stat().st_mode & 0o077 == 0 or (home / "backups").stat().st_mode & 0o077 == 0


def test_where_no_copy_can_be_made_nothing_is_changed(home: Path) -> None:
    (home / "backups").write_text("in the way")
    with next_program(), pytest.raises((BadInput, OSError)):
        Store(home)
    assert sqlite3.connect(home / "tunesmith.db").execute("PRAGMA user_version").fetchone()[0] == migrations.LATEST


def test_a_new_store_makes_no_copy(tmp_path: Path) -> None:
    Store(tmp_path / "new").close()
    assert not (tmp_path / "new" / "backups").exists()


def test_only_the_newest_copies_are_kept(home: Path) -> None:
    (home / "backups").mkdir()
    for number in range(5):
        path = home / "backups" / f"tunesmith-schema1-2026010{number}-000000.db"
        path.write_text("old")
        os.utime(path, (number, number))
    with next_program():
        Store(home).close()
    names = sorted(path.name for path in (home / "backups").iterdir())
    assert (
        len(names) == 3
        and names[0].startswith("tunesmith-schema1-20260103")
        and f"schema{migrations.LATEST}-" in names[-1]
    )
