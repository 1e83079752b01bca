"""SQL from outside can read the history and do nothing else; runs and lineage come in their documented shape."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.questions import ask_sql, provenance_of, show_run
from tunesmith.memory.records import Artifact, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.memory.views import VIEWS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    run = store.new_run("demo")
    base, train = (
        store.propose(run, stage, plan_hash="h" * 64, estimated_seconds=2.0, estimated_peak_bytes=9)
        for stage in ("base", "train")
    )
    for step in (base, train):
        store.decide(step, "yes", by="test", reason="", price={})
    made = store.add_artifact(Artifact("", run, base, "base", tmp_path / "base", "b" * 64, 5))
    store.add_artifact(Artifact("", run, train, "adapter", tmp_path / "adapter", "a" * 64, 7, (made.id,)))
    row = TrainingRow("row1", "generated", [{"role": "user", "content": "secret"}], [])
    store.add_rows(run, train, [row])
    return store


def test_a_question_is_answered(store: Store) -> None:
    answer = ask_sql(store.path, "SELECT run, count(*) AS n FROM v_steps GROUP BY run")
    assert answer.columns == ("run", "n")
    assert answer.rows == (("r1", 2),)
    assert not answer.truncated


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM runs",
        "UPDATE runs SET name = 'x'",
        "INSERT INTO conversations (conversation, at, role, content) VALUES ('c', 1, 'user', 'x')",
        "DROP TABLE runs",
        "CREATE TABLE mine (x)",
        "CREATE TEMP TABLE mine (x)",
        "ATTACH DATABASE '/tmp/other.db' AS other",
        "VACUUM INTO '/tmp/stolen.db'",
        "PRAGMA query_only=OFF",
        "PRAGMA writable_schema=ON",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT readfile('/etc/passwd')",
        "SELECT 1; DELETE FROM runs",
        "BEGIN IMMEDIATE",
        "REINDEX",
        "ANALYZE",
        "EXPLAIN DELETE FROM runs",
        "SELECT zeroblob(2000000000)",
        "",
        "not sql at all",
    ],
)
def test_anything_but_reading_is_refused_and_changes_nothing(store: Store, sql: str) -> None:
    before = store.path.read_bytes(), [tuple(row) for row in store.read("SELECT * FROM runs")]
    with pytest.raises(BadInput):
        ask_sql(store.path, sql)
    assert (store.path.read_bytes(), [tuple(row) for row in store.read("SELECT * FROM runs")]) == before
    assert not Path("/tmp/stolen.db").exists()


@pytest.mark.heavy
def test_a_question_without_end_is_stopped(store: Store) -> None:
    with pytest.raises(BadInput, match=r"more than 0\.3 s"):
        ask_sql(
            store.path,
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
            deadline_s=0.3,
        )


def test_answers_are_bounded_in_rows_and_in_bytes(store: Store) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    answer = ask_sql(store.path, endless, max_rows=7)
    assert len(answer.rows) == 7 and answer.truncated
    wide = endless.replace("SELECT x FROM n", "SELECT hex(zeroblob(400000)) FROM n")
    answer = ask_sql(store.path, wide)
    assert len(answer.rows) < 10 and answer.truncated


BIG = "hex(zeroblob(400000))"


@table(
    "sql",
    [
        "SELECT printf('%.*c', 200000000, 'x')",
        "SELECT format('%2000000000d', 1)",
        "SELECT length(printf('%.*c', 1000001, 'x'))",
        f"SELECT printf('%s%s', {BIG}, {BIG})",
        "SELECT zeroblob(2000000000)",
        "SELECT hex(zeroblob(600000))",
        f"SELECT {BIG} || {BIG}",
        f"SELECT replace({BIG}, '0', '00')",
        f"SELECT group_concat({BIG}) FROM (SELECT 1 UNION SELECT 2)",
        f"SELECT quote(replace({BIG}, '0', ''''))",
        f"SELECT json_array({BIG}, {BIG})",
    ],
)
def test_a_value_over_the_bound_is_told_with_the_bound_and_never_as_nothing(
    tmp_path_factory: pytest.TempPathFactory, sql: str
) -> None:
    home = tmp_path_factory.mktemp("home")
    Store(home).close()
    with pytest.raises(BadInput, match=r"a value has over 1,000,000 bytes.* by substr, or leave it out"):
        ask_sql(home / "tunesmith.db", sql)


def test_printf_is_sqlites_own_below_the_bound(store: Store) -> None:
    own = sqlite3.connect(":memory:")
    calls = (
        "'%,d|%!.3f|%s|%q|%c', 1234567, 1.5, NULL, 'a''b', 'x'", "'%'", "'%d'", "5", "1.5", "NULL", "NULL, 3", "",
        "x'6162'", "'%s', x'6162'", "'%05d%%'", "'%.*c', 1000000, 'x'", "'ü%s', '💶'",
    )  # fmt: skip
    for call in calls:
        for name in ("printf", "format"):
            sql = f"SELECT {name}({call})"
            assert ask_sql(store.path, sql).rows[0][0] == own.execute(sql).fetchone()[0], sql


def test_only_the_views_can_be_asked_when_told_so(store: Store) -> None:
    for view in VIEWS:
        ask_sql(store.path, f"SELECT * FROM {view}", only=VIEWS)
    assert ask_sql(store.path, "SELECT ancestor FROM v_lineage WHERE artifact = 'a2' AND depth = 1", only=VIEWS).rows
    for sql in (
        "SELECT prompt FROM rows",
        "SELECT content FROM conversations",
        # A common table expression of a view's name is reported to the authorizer as that view.
        "WITH v_runs AS (SELECT prompt FROM rows) SELECT * FROM v_runs",
        "SELECT (SELECT prompt FROM rows) FROM v_runs",
        "SELECT output FROM eval_results",
    ):
        with pytest.raises(BadInput, match="only reading is allowed"):
            ask_sql(store.path, sql, only=VIEWS)


def test_a_store_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no store"):
        ask_sql(tmp_path / "none.db", "SELECT 1")
    assert not (tmp_path / "none.db").exists()


def test_a_question_does_not_wait_for_a_writer(store: Store) -> None:
    other = sqlite3.connect(store.path)
    other.execute("BEGIN IMMEDIATE")
    assert ask_sql(store.path, "SELECT count(*) FROM runs").rows == ((1,),)
    other.rollback()


def test_a_run_is_shown_in_its_documented_shape(store: Store) -> None:
    shown = show_run(store, "r1")
    assert {"run", "name", "status", "steps"} <= shown.keys()
    step = shown["steps"][1]
    assert {
        "step", "stage", "arm", "status", "seconds", "estimated_seconds", "peak_rss_bytes", "estimated_peak_bytes",
        "approval", "artifacts",
    } <= step.keys()  # fmt: skip
    assert {"kind", "path", "sha256", "bytes"} <= step["artifacts"][0].keys()
    with pytest.raises(NotFound):
        show_run(store, "r9")


def test_what_made_an_artifact_goes_back_to_its_base(store: Store) -> None:
    made = provenance_of(store, "a2")
    assert (made["kind"], made["step"], made["run"]) == ("adapter", "s2", "r1")
    assert [(link["artifact"], link["stage"], link["depth"]) for link in made["lineage"]] == [
        ("a2", "train", 0),
        ("a1", "base", 1),
    ]
