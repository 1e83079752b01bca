"""129 attacks on the SQL that `runs sql` takes: nothing is written, run or read beside the store; each ends soon."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.demo_run import tunesmith
from tunesmith.memory.errors import BadInput
from tunesmith.memory.question_process import ask_in_process
from tunesmith.memory.questions import DEADLINE_S
from tunesmith.memory.store import Store
from tunesmith.memory.views import VIEWS

pytestmark = pytest.mark.heavy

N = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n{limit}) "
ENDLESS, FEW = N.format(limit=""), N.format(limit=" LIMIT {few}")
BIG = "hex(zeroblob(400000))"

WRITES = [
    "DELETE FROM runs", "UPDATE runs SET name = 'x'", "INSERT INTO runs (run) VALUES ('r9')", "DROP TABLE runs",
    "REPLACE INTO runs (run) VALUES ('r1')", "ALTER TABLE runs ADD COLUMN x", "CREATE TABLE mine (x)", "REINDEX",
    "DELETE FROM runs RETURNING run", "WITH d AS (SELECT 1) DELETE FROM runs", "ANALYZE",
]  # fmt: skip
FILES = [
    "ATTACH DATABASE '{out}' AS o", "ATTACH ':memory:' AS o", "VACUUM INTO '{out}'", "VACUUM", "DETACH main",
    "SELECT load_extension('/tmp/x.so')", "SELECT readfile('/etc/passwd')", "SELECT writefile('{out}', 'x')",
    "SELECT edit('x')", "SELECT fts3_tokenizer('simple')", "CREATE VIRTUAL TABLE t USING fts5(x)",
    "CREATE VIRTUAL TABLE t USING csv(filename='/etc/passwd')", "CREATE VIRTUAL TABLE t USING rtree(a, b, c)",
    "SELECT * FROM dbstat", "SELECT data FROM sqlite_dbpage", "SELECT * FROM fsdir('/')", "SELECT * FROM sqlite_stmt",
    "SELECT lsmode('/')", "CREATE TEMP TABLE mine (x)", "CREATE TRIGGER t AFTER INSERT ON runs BEGIN SELECT 1; END",
]  # fmt: skip
PRAGMAS = [
    "PRAGMA query_only=OFF", "PRAGMA writable_schema=ON", "PRAGMA journal_mode=DELETE", "PRAGMA user_version=99",
    "SELECT * FROM pragma_database_list", "PRAGMA temp_store_directory='/tmp'", "PRAGMA mmap_size=1099511627776",
    "PRAGMA trusted_schema=ON", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA database_list", "PRAGMA key='x'",
]  # fmt: skip
MULTI = [
    "SELECT 1; DELETE FROM runs", "SELECT 1; SELECT 2", "; DELETE FROM runs", "SELECT 1;\0DELETE FROM runs", "BEGIN",
    "COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "BEGIN IMMEDIATE", "EXPLAIN DELETE FROM runs", "", " ", "--",
    "/*", "not sql", "SELECT \ud800", "ＤＥＬＥＴＥ FROM runs", "DELETE\u00a0FROM runs", "SELECT 1 FROM \u202e runs",
]  # fmt: skip
PRIVATE = [
    "SELECT prompt FROM rows", "SELECT content FROM conversations", "SELECT output FROM eval_results",
    "WITH v_runs AS (SELECT prompt FROM rows) SELECT * FROM v_runs", "SELECT (SELECT prompt FROM rows) FROM v_runs",
    "SELECT * FROM v_runs, rows", "SELECT * FROM v_runs UNION SELECT prompt FROM rows", "SELECT * FROM sqlite_master",
    "SELECT * FROM v_runs WHERE EXISTS (SELECT 1 FROM conversations WHERE content LIKE 'a%')",
    "SELECT * FROM main.rows", "SELECT sql FROM sqlite_schema", "SELECT * FROM v_steps JOIN conversations",
    "SELECT plan FROM runs",
    "SELECT * FROM (SELECT content AS run FROM conversations) AS v_runs", "SELECT max(content) FROM conversations",
]  # fmt: skip
CODE = [
    f"{ENDLESS}SELECT count(*) FROM n", f"{ENDLESS}SELECT max(x) FROM n", f"{ENDLESS}SELECT x FROM n ORDER BY x",
    f"{ENDLESS}SELECT x FROM n WHERE x < 0", f"{ENDLESS}SELECT sum(random()) FROM n", f"{ENDLESS}SELECT x % 2 FROM n "
    "GROUP BY 1", f"{FEW.format(few=4000)}SELECT count(*) FROM n a, n b, n c", f"{ENDLESS}SELECT DISTINCT 1 FROM n",
]  # fmt: skip
LONG = [
    *(f"SELECT {BIG} LIKE '{'%a' * times}%b'" for times in (4, 12, 24, 1000, 9000)),
    *(f"SELECT count(*) FROM sqlite_master WHERE {' OR '.join([f'{BIG} LIKE {pattern!r}'] * 30)}" for pattern in
      ("%0%0%0%0%1", "%_%_%_%1", "%0_%0_%1")),
    f"SELECT instr({BIG}, substr({BIG}, 2) || '1')", f"SELECT replace({BIG}, '0', '00')",
    f"SELECT replace(replace({BIG}, '0', 'ab'), 'a', 'bc')", f"SELECT rtrim({BIG} || '1', '{'ab' * 400}0')",
    f"SELECT trim({BIG}, {BIG})", f"SELECT ltrim({BIG}, {BIG})", f"SELECT {BIG} GLOB '{'*0' * 20}*1'",
    f"SELECT {BIG} GLOB '{'*[0-9]' * 200}x'", f"SELECT upper(lower({BIG})) LIKE '{'%0' * 300}%x'",
    f"SELECT printf('%.*c', 2000000000, 'x') LIKE '{'%x' * 300}y'",
    f"SELECT hex(randomblob(900000)) LIKE '{'%0' * 500}z'",
]  # fmt: skip
MEMORY = [
    *(f"{FEW.format(few=few)}SELECT json_group_array({BIG}) FROM n" for few in (300, 3000)),
    f"{FEW.format(few=3000)}SELECT group_concat({BIG}, x) FROM n",
    *(f"{ENDLESS}SELECT {', '.join(['zeroblob(900000)'] * columns)} FROM n" for columns in (100, 500, 1900)),
    *(f"{ENDLESS}SELECT {', '.join([BIG] * columns)} FROM n" for columns in (100, 500, 1000)),
    *(f"SELECT {', '.join(['randomblob(900000)'] * columns)}" for columns in (200, 1000, 1990)),
    *(f"{FEW.format(few=few)}SELECT x, {BIG} FROM n ORDER BY random()" for few in (1000, 100_000)),
    *(f"{FEW.format(few=few)}SELECT DISTINCT {BIG} || x FROM n" for few in (1000, 100_000)),
    f"{ENDLESS}SELECT json_group_object(x, {BIG}) FROM n", "SELECT zeroblob(2000000000)",
    f"{ENDLESS}SELECT string_agg({BIG}, '') FROM n", f"{ENDLESS}SELECT {BIG} AS k FROM n GROUP BY k || x",
    "SELECT printf('%2000000000d', 1)", f"WITH a AS MATERIALIZED ({ENDLESS}SELECT {BIG} AS b FROM n) SELECT * FROM a",
    f"{ENDLESS}SELECT {BIG}, sum(x) OVER (ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM n",
    f"{ENDLESS}SELECT json_array({', '.join([BIG] * 20)}) FROM n", f"SELECT json_valid(replace({BIG}, '0', '['))",
]  # fmt: skip
ATTACKS = {
    "writes": WRITES, "files": FILES, "pragmas": PRAGMAS, "multi": MULTI, "private": PRIVATE, "code": CODE,
    "long": LONG, "memory": MEMORY,
}  # fmt: skip
COSTLY, QUICK_S = ("code", "long", "memory"), 0.4
"""Of these every fourth is in the quick part, with this deadline: they take the whole of their seconds."""
EACH = [
    pytest.param(kind, number, marks=[pytest.mark.slow] if kind in COSTLY and number % 4 else [])
    for kind, attacks in ATTACKS.items()
    for number in range(len(attacks))
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("home"))
    step = store.propose(store.new_run("test"), "train", plan_hash="h")
    with store.write() as conn:
        conn.execute("INSERT INTO conversations (conversation, at, role, content) VALUES ('c', 1, 'user', 'secret')")
        conn.execute("INSERT INTO rows (run, step, row_id, origin, prompt, completion) VALUES"
                     " ('r1', ?, 'row', 'generated', 'secret', '')", (step,))  # fmt: skip
    store.finish(step, {})
    store.close()
    return store.path


def files(home: Path) -> list[str]:
    """All but those that SQLite keeps beside an open file of this kind."""
    return sorted(path.name for path in home.iterdir() if not path.name.endswith(("-wal", "-shm")))


def test_there_are_129_attacks() -> None:
    assert {kind: len(attacks) for kind, attacks in ATTACKS.items()} == {
        "writes": 11, "files": 20, "pragmas": 11, "multi": 20, "private": 15, "code": 8, "long": 19, "memory": 25,
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "number"), EACH)
def test_an_attack_changes_and_takes_nothing(path: Path, tmp_path: Path, kind: str, number: int) -> None:
    out = tmp_path / "out"
    sql = ATTACKS[kind][number].replace("{out}", str(out))
    before, listed = hashlib.sha256(path.read_bytes()).digest(), files(path.parent)
    try:
        deadline_s = QUICK_S if kind in COSTLY and number % 4 == 0 else DEADLINE_S
        answer = ask_in_process(path, sql, only=VIEWS if kind == "private" else None, deadline_s=deadline_s)
    except BadInput as refused:
        assert "\n" not in str(refused) and len(str(refused)) < 1000
    else:
        assert kind in ("memory", "long", "code", "multi", "files"), f"{sql[:80]} was answered: {answer.rows[:1]}"
        assert "secret" not in str(answer) and len(str(answer)) < 10 << 20
    assert hashlib.sha256(path.read_bytes()).digest() == before and not out.exists()
    assert files(path.parent) == listed


_PEAK = """
import resource, sys
from pathlib import Path
from tunesmith.memory.question_process import ask_in_process
try:
    ask_in_process(Path(sys.argv[1]), sys.argv[2])
except Exception:
    pass
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize("number", [1, 5])
def test_no_attack_takes_more_than_200_megabytes(path: Path, number: int) -> None:
    command = [sys.executable, "-c", _PEAK, str(path), MEMORY[number]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200 * 1024


def test_the_command_refuses_in_one_line_with_valid_json_and_code_2(path: Path) -> None:
    for sql in (WRITES[0], FILES[1], CODE[0], MULTI[4]):
        done = tunesmith(path.parent, "runs", "sql", sql, "--json")
        assert done.returncode == 2 and json.loads(done.stdout)["exit_code"] == 2, done.stderr
    infinite = tunesmith(path.parent, "runs", "sql", "SELECT 1e999 AS a, -1e999 AS b", "--json")
    assert json.loads(infinite.stdout, parse_constant=pytest.fail), infinite.stdout


def test_honest_questions_are_answered(path: Path) -> None:
    assert ask_in_process(path, "SELECT run, count(*) AS steps FROM v_steps GROUP BY run").rows == (("r1", 1),)
    assert ask_in_process(path, "SELECT name FROM v_runs WHERE name LIKE '%te%st%'").rows == (("test",),)
