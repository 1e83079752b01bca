"""A home of today under a program of the next schema, which is made up, and the home that this one leaves."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.old_homes import contents, make_old_home, next_program
from tests.fixtures.tables import table
from tunesmith.memory import migrations
from tunesmith.memory.errors import BadInput
from tunesmith.memory.locks import lock_file, locked, take
from tunesmith.memory.records import DONE, PLANNED, Verdict
from tunesmith.memory.store import Store
from tunesmith.memory.store_file import StoreFile
from tunesmith.memory.views import VIEWS

if TYPE_CHECKING:
    from sqlite_utils import Database


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_old_home(tmp_path / "home")


def test_a_home_of_before_keeps_all_that_it_held(home: Path) -> None:
    before = contents(home / "tunesmith.db")
    assert before["runs"] and before["conversations"]
    with next_program(), closing(Store(home)) as store:
        after = contents(store.path)
        for name, rows in before.items():
            kept = [{column: new[column] for column in old} for old, new in zip(rows, after[name], strict=True)]
            assert kept == rows, name
        assert store.read("PRAGMA integrity_check")[0][0] == "ok"
        assert store.read("PRAGMA user_version")[0][0] == migrations.LATEST
        assert (store.step("s1").status, store.step("s2").status) == (DONE, PLANNED)
        assert [row.verdict for row in store.rows("s1")] == [Verdict("duplicate", "of b")]
        for view in VIEWS:
            store.read(f"SELECT * FROM {view}")
        store.decide("s2", "yes", by="test", reason="", price={})
        store.claim("s2", needs_approval=True, pid=1, pid_started=1.0, boot_id="b")
        assert store.finish("s2", {}), "the work goes on"
    [copy] = (home / "backups").glob(f"tunesmith-schema{migrations.LATEST}-*.db")
    assert contents(copy) == before


def test_a_migration_is_applied_once_however_many_follow(home: Path) -> None:
    def further(db: Database) -> None:
        db.execute("CREATE TABLE further (name TEXT NOT NULL) STRICT")

    for later in ((), (), (further,)):  # a second time would add a column that is there
        with next_program(*later), closing(Store(home)) as store:
            assert [row["called"] for row in store.read("SELECT called FROM v_made_up")] == ["kept!", "kept too!"]
            assert bool(store.read("SELECT 1 FROM sqlite_master WHERE name = 'further'")) == bool(later)


def test_a_new_home_has_the_first_schema_and_every_migration(tmp_path: Path) -> None:
    with next_program(), closing(Store(tmp_path)) as store:
        assert store.read("PRAGMA user_version")[0][0] == migrations.LATEST
        assert store.read("SELECT called FROM v_made_up") == [] and len(store.identity) == 32


@table("version", [1, migrations.FIRST - 1])
def test_a_home_from_before_the_first_release_is_refused_and_left_alone(home: Path, version: int) -> None:
    with closing(sqlite3.connect(home / "tunesmith.db")) as conn:
        conn.execute(f"PRAGMA user_version = {version}")
    before = contents(home / "tunesmith.db")
    for unwritable in ("", "it is read-only"):
        with pytest.raises(BadInput, match=rf"before the first release \(schema {version}, .*set TUNESMITH_HOME to"):
            Store(home, unwritable=unwritable)
    assert contents(home / "tunesmith.db") == before and not (home / "backups").exists()


def test_an_older_program_that_is_open_does_not_write_into_the_newer_home(home: Path) -> None:
    older = Store(home)
    older.event("before")
    with next_program():
        Store(home).close()
    before = contents(older.path)
    with pytest.raises(BadInput, match=r"another version of tunesmith has changed .* start it anew"):
        older.event("after")
    assert contents(older.path) == before and older.run("r1").name == "kept"
    older.close()


def test_an_older_program_leaves_a_newer_home_alone(home: Path) -> None:
    with next_program():
        Store(home).close()
    (copy,) = (home / "backups").iterdir()
    for told in (str(copy), r"a copy of your own \(.*backups holds none\)"):
        before = contents(home / "tunesmith.db")
        with pytest.raises(BadInput, match=f"newer tunesmith.*go back to {told}"):
            Store(home)
        assert contents(home / "tunesmith.db") == before
        copy.unlink(missing_ok=True)


@table("name", ["s2", "another"])
def test_a_home_whose_worker_lives_is_not_changed_under_it(home: Path, name: str) -> None:
    with closing(sqlite3.connect(home / "tunesmith.db")) as conn:
        conn.execute("UPDATE steps SET status = 'running', pid = 1 WHERE step = 's2'")
        conn.commit()
    before = contents(home / "tunesmith.db")
    with next_program(), locked(lock_file(home, name)):
        if name == "another":  # nobody holds that of the step: its worker is dead
            Store(home).close()
            return
        with pytest.raises(BadInput, match=r"its step s2 .* is at work"):
            Store(home)
    assert contents(home / "tunesmith.db") == before and not (home / "backups").exists()


def test_a_step_that_began_while_the_copy_was_made_is_not_changed_under(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = StoreFile._back_up
    started: list[int] = []

    def back_up(store: StoreFile, version: int) -> None:
        copy(store, version)
        with closing(sqlite3.connect(home / "tunesmith.db")) as conn:
            conn.execute("UPDATE steps SET status = 'running', pid = 1 WHERE step = 's2'")
            conn.commit()
        started.append(take(lock_file(home, "s2")))

    monkeypatch.setattr(StoreFile, "_back_up", back_up)
    with next_program(), pytest.raises(BadInput, match=r"its step s2 .* is at work"):
        Store(home)
    os.close(*started)
    assert "made_up" not in contents(home / "tunesmith.db")
