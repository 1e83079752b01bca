"""A home of every released schema under this program, and this one's home under every older program."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from tests.fixtures.old_homes import contents, make_old_home
from tunesmith.memory import migrations
from tunesmith.memory.errors import BadInput
from tunesmith.memory.places import HOME_MARK
from tunesmith.memory.records import DONE, PLANNED, Verdict
from tunesmith.memory.store import Store
from tunesmith.memory.views import VIEWS
from tunesmith.tools.machine.processes import ProcessId

OLD = range(2, migrations.LATEST)
"""Schema 1 had no views yet; the first release had both."""


@pytest.mark.parametrize("version", OLD)
def test_a_home_of_before_keeps_all_that_it_held(tmp_path: Path, version: int) -> None:
    home = make_old_home(tmp_path / "home", version)
    before = contents(home / "tunesmith.db")
    assert before["runs"] and before["conversations"]
    with closing(Store(home)) as store:
        after = contents(store.path)
        for table, rows in before.items():
            for old, new in zip(rows, after[table], strict=True):
                for column, value in old.items():
                    if (table, column) != ("rows", "reason"):
                        kept = value.replace(str(home), HOME_MARK) if isinstance(value, str) else value
                        assert new[column] == kept, f"{table}.{column}"
        assert store.read("PRAGMA integrity_check")[0][0] == "ok"
        assert store.read("PRAGMA user_version")[0][0] == migrations.LATEST
        assert (store.step("s1").status, store.step("s2").status) == (DONE, PLANNED)
        expected = Verdict("duplicate", "of b")
        assert [row.verdict for row in store.rows("s1")] == [expected] or version >= 6
        for view in VIEWS:
            store.read(f"SELECT * FROM {view}")
        store.decide("s2", "yes", by="test", reason="", price={})
        store.claim("s2", needs_approval=True, pid=1, pid_started=1.0, boot_id="b")
        assert store.finish("s2", {}), "the work goes on"
    [copy] = (home / "backups").glob(f"tunesmith-schema{version}-*.db")
    assert contents(copy) == before


@pytest.mark.parametrize("called", ["", "/old/place of/home"])
@pytest.mark.parametrize("version", OLD)
def test_a_home_that_was_moved_before_finds_what_lies_in_it(tmp_path: Path, version: int, called: str) -> None:
    home = make_old_home(tmp_path / "home", version, called=called)
    with closing(Store(home)) as store:
        assert [made.path for made in store.artifacts("r1")] == [home / "runs/r1/s1/adapter", home / "models/m"]
        assert store.step("s2").request == {"model": str(home / "models/m"), "suites": ["/data/home/s.yaml"]}
        assert store.step("s2").error == f"see {home}/x."
        sources = [made.meta["source"] for made in store.artifacts("r1")]
        assert sources == [str(home / "models/m"), "/data/elsewhere/m"]


def test_a_base_alone_says_what_a_moved_home_was_called(tmp_path: Path) -> None:
    home = make_old_home(tmp_path / "home", 9, called="/old/place")
    with closing(sqlite3.connect(home / "tunesmith.db")) as conn:
        conn.execute("DELETE FROM artifacts WHERE kind = 'adapter'")
        conn.commit()
    with closing(Store(home)) as store:
        assert store.artifact("a2").path == home / "models/m"


@pytest.mark.parametrize("version", OLD)
def test_an_older_program_that_is_open_does_not_write_into_the_newer_home(tmp_path: Path, version: int) -> None:
    home = make_old_home(tmp_path / "home", version)
    with mock.patch.multiple(migrations, MIGRATIONS=migrations.MIGRATIONS[:version], LATEST=version):
        older = Store(home)
        older.event("before")
    Store(home).close()
    with mock.patch.multiple(migrations, MIGRATIONS=migrations.MIGRATIONS[:version], LATEST=version):
        before = contents(older.path)
        with pytest.raises(BadInput, match=r"another version of tunesmith has changed .* start it anew"):
            older.event("after")
        assert contents(older.path) == before and older.run("r1").name == "kept"
    older.close()


@pytest.mark.parametrize("version", OLD)
def test_an_older_program_leaves_a_newer_home_alone(tmp_path: Path, version: int) -> None:
    home = make_old_home(tmp_path / "home", migrations.LATEST)
    before = contents(home / "tunesmith.db")
    with (
        mock.patch.multiple(migrations, MIGRATIONS=migrations.MIGRATIONS[:version], LATEST=version),
        pytest.raises(BadInput, match=r"newer tunesmith.*go back to a copy of your own \(.*backups holds none\)"),
    ):
        Store(home)
    assert contents(home / "tunesmith.db") == before


@pytest.mark.parametrize("version", OLD)
def test_a_home_whose_worker_lives_is_not_changed_under_it(tmp_path: Path, version: int) -> None:
    home, me = make_old_home(tmp_path / "home", version), ProcessId.of(os.getpid())
    columns = {"status": "running", "pid": me.pid, "pid_started": me.started, "boot_id": me.boot_id}
    columns |= {"pid_ticks": me.ticks} if version >= 5 else {}
    with closing(sqlite3.connect(home / "tunesmith.db")) as conn:
        conn.execute(
            f"UPDATE steps SET {', '.join(f'{n} = ?' for n in columns)} WHERE step = 's2'", [*columns.values()]
        )
        conn.commit()
    before = contents(home / "tunesmith.db")
    with pytest.raises(BadInput, match=r"its step s2 .* is at work"):
        Store(home)
    assert contents(home / "tunesmith.db") == before
