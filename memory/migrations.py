"""The schema of tunesmith.db, as named functions that are each applied once, in order.

Never edit one that was released: add another. `LATEST` is kept in `PRAGMA user_version` so that opening an
up-to-date store costs one pragma and no import of sqlite-utils.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunesmith.memory.views import VIEWS

if TYPE_CHECKING:
    from sqlite_utils import Database

FIRST = 15
"""The schema of the first release: a store of an earlier one is refused."""

_TABLES = """
CREATE TABLE runs (
    run TEXT PRIMARY KEY, name TEXT NOT NULL, goal TEXT NOT NULL DEFAULT '', plan TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL, created_at REAL NOT NULL, finished_at REAL, stages TEXT NOT NULL DEFAULT '[]'
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
    result TEXT, error TEXT, announced INTEGER NOT NULL DEFAULT 0,
    pid_ticks INTEGER, moved_at REAL, host TEXT, pid_namespace TEXT, ended_as TEXT
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
    verdict TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL DEFAULT '', UNIQUE (step, row_id)
) STRICT;
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, at REAL NOT NULL, role TEXT NOT NULL,
    content TEXT NOT NULL
) STRICT;
CREATE TABLE marks (
    id INTEGER PRIMARY KEY, behaviour TEXT NOT NULL, run TEXT NOT NULL, step TEXT NOT NULL, row_id TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('keep', 'drop', 'relabel', 'edit')), message TEXT NOT NULL,
    answer TEXT NOT NULL, was TEXT NOT NULL, at REAL NOT NULL
) STRICT;
CREATE INDEX marks_by_behaviour ON marks(behaviour, id);
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
) STRICT;
CREATE UNIQUE INDEX ratings_once ON ratings(run, first_artifact, last_artifact, digest) WHERE taken_back IS NULL;
CREATE INDEX ratings_by_message ON ratings(digest);
CREATE TABLE identity (store TEXT NOT NULL) STRICT;
INSERT INTO identity VALUES (lower(hex(randomblob(16))));
"""


def m015_first_release(db: Database) -> None:
    """Runs, their steps, everything that a step leaves behind, and the views that questions are asked of."""
    for statement in filter(str.strip, _TABLES.split(";")):
        db.execute(statement)
    for name, select in VIEWS.items():
        db.create_view(name, select)


_QUEUE = """
CREATE TABLE queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT, plan TEXT NOT NULL, status TEXT NOT NULL, run TEXT REFERENCES runs(run),
    budget INTEGER REFERENCES queue_budgets(id), note TEXT NOT NULL DEFAULT '', added_at REAL NOT NULL, ended_at REAL
) STRICT;
CREATE TABLE queue_budgets (
    id INTEGER PRIMARY KEY AUTOINCREMENT, max_hours REAL, max_disk_bytes INTEGER, agreed_by TEXT NOT NULL,
    agreed_at REAL NOT NULL, ended_at REAL
) STRICT;
"""


def m016_queue(db: Database) -> None:
    """Plans that wait for the machine, and the budgets that they are carried out under."""
    for statement in filter(str.strip, _QUEUE.split(";")):
        db.execute(statement)


MIGRATIONS: tuple[Callable[[Database], None], ...] = (m015_first_release, m016_queue)
"""The first makes a new store; each later one brings a store from one schema to the next."""
LATEST = FIRST - 1 + len(MIGRATIONS)


def apply(db: Database, version: int) -> None:
    """Bring a store of schema `version`, 0 for an empty one, to the newest; the caller holds the transaction."""
    from sqlite_utils.migrations import Migrations

    migrations = Migrations("tunesmith")
    for migration in MIGRATIONS[version and version - FIRST + 1 :]:
        migrations(name=migration.__name__)(migration)
    migrations.apply(db)
    db.execute(f"PRAGMA user_version = {LATEST}")
