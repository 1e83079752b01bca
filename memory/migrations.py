"""The schema of tunesmith.db, as named functions that are each applied once, in order.

Never edit one that was released: add another. `LATEST` is kept in `PRAGMA user_version` so that opening an
up-to-date store costs one pragma and no import of sqlite-utils.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.places import Places
from tunesmith.memory.records import planned_stages
from tunesmith.memory.views import VIEWS

if TYPE_CHECKING:
    from sqlite_utils import Database


_TABLES = """
CREATE TABLE runs (
    run TEXT PRIMARY KEY, name TEXT NOT NULL, goal TEXT NOT NULL DEFAULT '', plan TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL, created_at REAL NOT NULL, finished_at REAL
) STRICT;
CREATE TABLE steps (
    step TEXT PRIMARY KEY, run TEXT NOT NULL REFERENCES runs(run), stage TEXT NOT NULL,
    arm TEXT NOT NULL DEFAULT '', status TEXT NOT NULL, request TEXT NOT NULL, plan TEXT NOT NULL,
    plan_hash TEXT NOT NULL, inputs TEXT NOT NULL DEFAULT '{}',
    approval TEXT REFERENCES approvals(approval),
    estimated_seconds REAL NOT NULL DEFAULT 0, estimated_peak_bytes INTEGER NOT NULL DEFAULT 0,
    pid INTEGER, pid_started REAL, boot_id TEXT,
    created_at REAL NOT NULL, started_at REAL, finished_at REAL, seconds REAL,
    peak_rss_bytes INTEGER, peak_vram_bytes INTEGER,
    done REAL NOT NULL DEFAULT 0, total REAL NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT '',
    result TEXT, error TEXT, announced INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX steps_by_run ON steps(run, created_at);
CREATE TABLE approvals (
    approval TEXT PRIMARY KEY, step TEXT NOT NULL, stage TEXT NOT NULL, plan_hash TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('yes', 'no')), decided_by TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '', price TEXT NOT NULL, decided_at REAL NOT NULL, used_at REAL
) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, run TEXT, step TEXT, at REAL NOT NULL, event TEXT NOT NULL,
    data TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE TABLE metrics (
    id INTEGER PRIMARY KEY, step TEXT NOT NULL REFERENCES steps(step), name TEXT NOT NULL,
    x REAL NOT NULL, value REAL NOT NULL, at REAL NOT NULL
) STRICT;
CREATE INDEX metrics_by_step ON metrics(step, name, x);
CREATE TABLE artifacts (
    artifact TEXT PRIMARY KEY, run TEXT NOT NULL, step TEXT NOT NULL REFERENCES steps(step),
    kind TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    parents TEXT NOT NULL DEFAULT '[]', meta TEXT NOT NULL DEFAULT '{}', created_at REAL NOT NULL
) STRICT;
CREATE INDEX artifacts_by_run ON artifacts(run, kind, created_at);
CREATE TABLE eval_results (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, step TEXT NOT NULL REFERENCES steps(step),
    arm TEXT NOT NULL, block TEXT NOT NULL, case_id TEXT NOT NULL, repeat INTEGER NOT NULL DEFAULT 0,
    key_hash TEXT NOT NULL, output TEXT NOT NULL, tool_calls TEXT NOT NULL DEFAULT '[]',
    finish_reason TEXT NOT NULL DEFAULT '', passed INTEGER, score REAL, error TEXT,
    assertions TEXT NOT NULL DEFAULT '[]', prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0, latency_ms REAL NOT NULL DEFAULT 0, at REAL NOT NULL,
    UNIQUE (step, arm, case_id, repeat)
) STRICT;
CREATE INDEX eval_results_by_run ON eval_results(run, arm, block);
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, step TEXT NOT NULL REFERENCES steps(step),
    row_id TEXT NOT NULL, origin TEXT NOT NULL, split TEXT NOT NULL DEFAULT 'train',
    attributes TEXT NOT NULL DEFAULT '{}', prompt TEXT NOT NULL, completion TEXT NOT NULL,
    verdict TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', UNIQUE (step, row_id)
) STRICT;
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, at REAL NOT NULL, role TEXT NOT NULL,
    content TEXT NOT NULL
) STRICT;
"""


def m001_tables(db: Database) -> None:
    """Runs, their steps, and everything that a step leaves behind."""
    for statement in filter(str.strip, _TABLES.split(";")):
        db.execute(statement)


def m002_views(db: Database) -> None:
    """The views that questions are asked of."""
    for name, select in VIEWS.items():
        db.create_view(name, select, replace=True)


def m003_flips_of_finished_evaluations(db: Database) -> None:
    """`v_flips` no longer takes the answers of an evaluation that is still at work, or failed."""
    db.create_view("v_flips", VIEWS["v_flips"], replace=True)


def m004_flips_as_they_are_compared(db: Database) -> None:
    """`v_flips` pairs evaluations of one suite, and drops a repeat that erred instead of its case."""
    db.create_view("v_flips", VIEWS["v_flips"], replace=True)


def m005_signs_of_life(db: Database) -> None:
    """When a step's worker began, by a clock that nobody sets, and when it last said how far it is."""
    db.execute("ALTER TABLE steps ADD COLUMN pid_ticks INTEGER")
    db.execute("ALTER TABLE steps ADD COLUMN moved_at REAL")


def m006_verdicts_in_two_parts(db: Database) -> None:
    """A row's verdict is a kind and a reason; what stood before the first colon of the text is the kind."""
    db.execute("ALTER TABLE rows ADD COLUMN kind TEXT NOT NULL DEFAULT ''")
    db.execute(
        "UPDATE rows SET kind = trim(substr(reason, 1, instr(reason, ':') - 1)),"
        " reason = trim(substr(reason, instr(reason, ':') + 1))"
        " WHERE verdict = 'drop' AND instr(reason, ':') > 1"
    )
    db.execute("UPDATE rows SET kind = trim(reason), reason = '' WHERE verdict = 'drop' AND kind = ''")


def m007_where_a_worker_is(db: Database) -> None:
    """The host and the PID namespace that a worker's pid counts in."""
    db.execute("ALTER TABLE steps ADD COLUMN host TEXT")
    db.execute("ALTER TABLE steps ADD COLUMN pid_namespace TEXT")


def m008_flips_by_one_rule(db: Database) -> None:
    """`v_flips` pairs evaluations by the very rule that comparisons go by: whole keys, and what was made from what."""
    db.create_view("v_flips", VIEWS["v_flips"], replace=True)


_MARKS = """
CREATE TABLE marks (
    id INTEGER PRIMARY KEY, behaviour TEXT NOT NULL, run TEXT NOT NULL, step TEXT NOT NULL, row_id TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('keep', 'drop', 'relabel', 'edit')), message TEXT NOT NULL,
    answer TEXT NOT NULL, was TEXT NOT NULL, at REAL NOT NULL
) STRICT
"""


def m009_marks_of_rows(db: Database) -> None:
    """What a person said of training rows, by the behaviour's name: it outlives the runs."""
    db.execute(_MARKS)
    db.execute("CREATE INDEX marks_by_behaviour ON marks(behaviour, id)")


_JSON_COLUMNS = (
    ("runs", "plan"), ("steps", "request"), ("steps", "plan"), ("steps", "result"), ("artifacts", "meta"),
    ("events", "data"),
)  # fmt: skip


def m010_paths_by_their_place_in_the_home(db: Database, home: Path) -> None:
    """What lies in the home is named by its place in it, so that a home can be moved; also one that was moved before.

    A step's artifacts lie in HOME/runs/RUN/STEP and copies of models in HOME/models, so that their records say what
    the home was called when they were made.
    """
    places = Places(home, _earlier_homes(db))
    for table, column in (("artifacts", "path"), ("steps", "error")):
        _rewrite(db, table, column, f"{column} LIKE '%/%'", places.stored)
    for table, column in _JSON_COLUMNS:
        _rewrite(db, table, column, f"{column} LIKE '%/%'", partial(_document, places))
    condition = "role IN ('draft', 'description') AND content LIKE '%/%'"
    _rewrite(db, "conversations", "content", condition, partial(_document, places))


def _earlier_homes(db: Database) -> set[str]:
    homes = set()
    for path, run, step in db.execute("SELECT path, run, step FROM artifacts").fetchall():
        before, of_step, _ = f"{path}/".rpartition(f"/runs/{run}/{step}/")
        if of_step:
            homes.add(before)
        elif Path(path).parent.name == "models":
            homes.add(str(Path(path).parent.parent))
    return {name for name in homes if name.startswith("/")}


def _document(places: Places, text: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:  # one record that nobody can read does not close the whole home
        return text
    return text if (stored := places.stored(document)) == document else json.dumps(stored, ensure_ascii=False)


def _rewrite(db: Database, table: str, column: str, where: str, change: Callable[[str], str]) -> None:
    for rowid, text in db.execute(f"SELECT rowid, {column} FROM {table} WHERE {where}").fetchall():
        if (changed := change(text)) != text:
            db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, rowid))


_OLDER_PRICES = """
UPDATE steps SET status = 'abandoned' WHERE status = 'planned' AND started_at IS NULL AND EXISTS (
    SELECT 1 FROM steps n WHERE n.run = steps.run AND n.stage = steps.stage AND n.arm = steps.arm
                                AND n.rowid > steps.rowid)
"""


def m011_steps_that_began(db: Database) -> None:
    """`v_runs` and `v_steps` leave out prices that nobody agreed to; of each step only the newest open price waits."""
    db.execute("ALTER TABLE steps ADD COLUMN ended_as TEXT")
    db.execute(_OLDER_PRICES)
    for name in ("v_runs", "v_steps"):
        db.create_view(name, VIEWS[name], replace=True)


def m012_stages_of_a_plan(db: Database) -> None:
    """`v_runs` counts the stages of a written plan, and reads nothing else of what the user wrote in it."""
    db.execute("ALTER TABLE runs ADD COLUMN stages TEXT NOT NULL DEFAULT '[]'")
    for run, plan in db.execute("SELECT run, plan FROM runs").fetchall():
        try:
            stages = planned_stages(json.loads(plan))
        except ValueError:  # as above: it is listed by its steps
            continue
        db.execute("UPDATE runs SET stages = ? WHERE run = ?", (stages, run))
    db.create_view("v_runs", VIEWS["v_runs"], replace=True)


def m013_blind_cases_are_counted(db: Database, home: Path) -> None:
    """`v_flips` names no blind case; every suite's artifact names which ones those are, as its file says."""
    places = Places(home)
    suites = db.execute("SELECT artifact, path, meta FROM artifacts WHERE kind = 'suite'").fetchall()
    for artifact, path, meta in suites:
        try:
            cases = json.loads(Path(places.present(path)).read_text())["cases"]
            blind = [case["case_id"] for case in cases if case["metadata"].get("split") == "blind"]
            with_blind = json.dumps({**json.loads(meta), "blind": blind}, ensure_ascii=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # gone, or of another version
            continue
        db.execute("UPDATE artifacts SET meta = ? WHERE artifact = ?", (with_blind, artifact))
    db.create_view("v_flips", VIEWS["v_flips"], replace=True)


_RATINGS = """
CREATE TABLE ratings (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs(run),
    first_arm TEXT NOT NULL, first_artifact TEXT NOT NULL, last_arm TEXT NOT NULL, last_artifact TEXT NOT NULL,
    training TEXT NOT NULL, digest TEXT NOT NULL, message TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('typed', 'pasted', 'file', 'generated')),
    shown_first TEXT NOT NULL, first_answer TEXT, last_answer TEXT,
    first_cut INTEGER NOT NULL DEFAULT 0, last_cut INTEGER NOT NULL DEFAULT 0,
    first_right INTEGER, last_right INTEGER, rated_by TEXT NOT NULL DEFAULT '', rated_at REAL,
    added_at REAL NOT NULL, taken_back REAL,
    CHECK ((first_right IS NULL) = (last_right IS NULL))
) STRICT
"""


def m014_ratings_of_answers(db: Database) -> None:
    """What a person said of two models' answers to a message; of a pair of models each message once."""
    db.execute(_RATINGS)
    db.execute(
        "CREATE UNIQUE INDEX ratings_once ON ratings(run, first_artifact, last_artifact, digest)"
        " WHERE taken_back IS NULL"
    )
    db.execute("CREATE INDEX ratings_by_message ON ratings(digest)")


def m015_identity_of_the_store(db: Database) -> None:
    """A name that no other store has: what a step seals carries it."""
    db.execute("CREATE TABLE identity (store TEXT NOT NULL) STRICT")
    db.execute("INSERT INTO identity VALUES (lower(hex(randomblob(16))))")


MIGRATIONS: tuple[Callable[..., None], ...] = (
    m001_tables,
    m002_views,
    m003_flips_of_finished_evaluations,
    m004_flips_as_they_are_compared,
    m005_signs_of_life,
    m006_verdicts_in_two_parts,
    m007_where_a_worker_is,
    m008_flips_by_one_rule,
    m009_marks_of_rows,
    m010_paths_by_their_place_in_the_home,
    m011_steps_that_began,
    m012_stages_of_a_plan,
    m013_blind_cases_are_counted,
    m014_ratings_of_answers,
    m015_identity_of_the_store,
)
_OF_A_PLACE = (m010_paths_by_their_place_in_the_home, m013_blind_cases_are_counted)
LATEST = len(MIGRATIONS)


def apply(db: Database, home: Path) -> None:
    """Bring the store of `home` to the newest schema; the caller holds the migration lock."""
    from sqlite_utils.migrations import Migrations

    migrations = Migrations("tunesmith")
    for migration in MIGRATIONS:
        of_a_place = {"home": home} if migration in _OF_A_PLACE else {}
        migrations(name=migration.__name__)(partial(migration, **of_a_place))
    migrations.apply(db)
    db.execute(f"PRAGMA user_version = {LATEST}")
