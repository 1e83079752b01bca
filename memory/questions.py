"""Read-only questions over the history: SQL behind a guard, a run as one document, and what made what.

The guard is for SQL that a model or a stranger wrote: it cannot write, attach, load code, read another file, run
for ever or return without bounds. It does not hide anything by itself; pass `only` to keep a question to the views.
"""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tunesmith.memory.damage import damaged, is_damage
from tunesmith.memory.errors import BadInput
from tunesmith.memory.places import HOME_MARK
from tunesmith.memory.records import STOPPED, Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.memory.views import PATHS, VIEWS

MAX_ROWS = 200
"""More is no answer to a question, and would fill a model's context."""
DEADLINE_S = 2.0
"""Of processor time: enough for any look-up, while a join of large tables by mistake takes for ever."""
_MAX_ANSWER_BYTES = 4 << 20
"""Of all rows together, which are in memory here and in the process that asked."""
_MAX_CELL_BYTES = 1_000_000
"""SQLite's limit of a value: `zeroblob` and `group_concat` would else fill the memory in a single step."""
_CHECK_EVERY_OPCODES = 1000
"""Tens of microseconds of SQLite's work: the deadline holds, and looking at the clock costs nothing beside it."""
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "writefile", "readfile", "edit", "fts3_tokenizer"})

_RAW_TABLES = frozenset({"dbstat", "sqlite_dbpage", "sqlite_stmt"})
"""Pages of the file as they lie on the disk: what was deleted from the tables may still stand in them."""
_PURE_TABLES = frozenset({"json_each", "json_tree"})


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a question, and whether there were more than it returns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    truncated: bool = False


def ask_sql(
    path: Path,
    sql: str,
    *,
    max_rows: int = MAX_ROWS,
    deadline_s: float = DEADLINE_S,
    only: Collection[str] | None = None,
    home: Path | None = None,
) -> Answer:
    """Answer one SELECT over the store at `path`. Raises BadInput with the reason for anything else.

    The views show paths below `home`, which is where `path` lies unless that is a copy elsewhere. `only` limits it to
    these views or tables; what a view reads itself stays readable through it.
    """
    if not path.is_file():
        raise BadInput(f"there is no store at {path} yet; `tunesmith base` starts the first run")
    home = home or path.parent
    try:
        with closing(_guarded(path, home)) as conn:
            guard = _Guard(_read_by_views(conn, only) if only is not None else None)
            conn.set_authorizer(guard)
            # Of its own processor time: a machine that is busy with a training makes no question a longer one.
            deadline = time.thread_time() + deadline_s
            conn.set_progress_handler(lambda: time.thread_time() > deadline, _CHECK_EVERY_OPCODES)
            return _answer(conn, sql, max_rows)
    # what SQL from outside may raise: refused, too long, no text, a number too large
    except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError) as error:
        raise BadInput(damaged(path, home, error) if is_damage(error) else _why(error, deadline_s)) from None


def _guarded(path: Path, home: Path) -> sqlite3.Connection:
    # In WAL mode readers wait for nobody, except for moments while a log is recovered or removed.
    conn = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    conn.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL_BYTES)
    conn.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 20_000)  # a few pages: parsing is not interrupted
    for name in ("printf", "format"):
        conn.create_function(name, -1, _printf, deterministic=True)
    # Views and pragmas before the authorizer, which would refuse them.
    _show_present_paths(conn, str(home.absolute()))
    # Each for itself: nothing is written, a view of a hostile file calls nothing odd, a broken page is noticed.
    conn.execute("PRAGMA query_only=ON")
    conn.execute("PRAGMA trusted_schema=OFF")
    conn.execute("PRAGMA cell_size_check=ON")
    return conn


def _show_present_paths(conn: sqlite3.Connection, home: str) -> None:
    """Put views of this connection over those whose paths the store names by their place in the home."""
    # Within a JSON column a path is escaped as JSON is, without quotes of its own.
    home_texts = {"text": home, "json": json.dumps(home, ensure_ascii=False)[1:-1]}
    quoted = {kind: text.replace("'", "''") for kind, text in home_texts.items()}
    for view, of_paths in PATHS.items():
        names = [row[0] for row in conn.execute("SELECT name FROM pragma_table_info(?, 'main')", (view,))]
        columns = [
            f"replace({name}, '{HOME_MARK}', '{quoted[of_paths[name]]}') AS {name}" if name in of_paths else name
            for name in names
        ]
        if columns:
            conn.execute(f"CREATE TEMP VIEW {view} AS SELECT {', '.join(columns)} FROM main.{view}")


def _printf(form: object = None, *values: object) -> str | None:
    """As SQLite's own, which answers NULL where its text passes the limit: an error, as of every other function."""
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL_BYTES + 1)
        # Behind a letter of ours no text is empty, for which its own is NULL too.
        placeholders = ", ?" * len(values)
        text: str | None = conn.execute(f"SELECT printf('.' || ?{placeholders})", (form, *values)).fetchone()[0]
    if text is None and form is not None:
        return " " * (_MAX_CELL_BYTES + 1)  # which SQLite refuses in its own words
    return text and text[1:]


class _Guard:
    """SQLite's authorizer: reading, calling harmless functions and recursion are allowed, all else is not."""

    def __init__(self, readable: frozenset[tuple[str, str]] | None) -> None:
        self.readable = readable
        """(table, column) pairs that may be read; None: all of them."""

    def __call__(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        # Of a function SQLite gives the name as the second argument, of a table as the first.
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FORBIDDEN_FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and self._may_read(first or "", second or ""):
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    def _may_read(self, table: str, column: str) -> bool:
        if table.lower() in _RAW_TABLES:
            return False
        # An empty column is a row that is only counted.
        return self.readable is None or not column or table in _PURE_TABLES or (table, column) in self.readable


def _read_by_views(conn: sqlite3.Connection, only: Collection[str]) -> frozenset[tuple[str, str]]:
    """Every (table, column) that the allowed views and tables read, themselves included.

    Found by letting SQLite prepare them, rather than by trusting the view's name that it reports: a common table
    expression of the same name would be reported in just that way.
    """
    seen: set[tuple[str, str]] = set()

    def record(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            seen.add((first or "", second or ""))
        return sqlite3.SQLITE_OK

    for name in only:
        columns = conn.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
        seen.update((name, column) for (column,) in columns)
    conn.set_authorizer(record)
    for name in only:
        conn.execute(f'SELECT * FROM "{name}" LIMIT 0')
    return frozenset(seen)


def _answer(conn: sqlite3.Connection, sql: str, max_rows: int) -> Answer:
    cursor = conn.execute(sql)
    if cursor.description is None:
        raise ValueError("that is no SELECT")
    rows: list[tuple[object, ...]] = []
    size = 0
    for row in cursor:
        size += sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in row)  # 8: a number, as SQLite has it
        if len(rows) == max_rows or size > _MAX_ANSWER_BYTES:
            return Answer(_columns(cursor), tuple(rows), truncated=True)
        rows.append(tuple(_plain(cell) for cell in row))
    return Answer(_columns(cursor), tuple(rows))


def _plain(cell: object) -> object:
    """A cell as JSON can hold it: bytes in hexadecimal digits, a number without end by its name."""
    if isinstance(cell, bytes):
        return cell.hex()
    return str(cell) if isinstance(cell, float) and not math.isfinite(cell) else cell


def _columns(cursor: sqlite3.Cursor) -> tuple[str, ...]:
    """The names of the columns; the second of a name is numbered, as SQLite does it in a view, and hides none."""
    names: list[str] = []
    for name, *_ in cursor.description:
        numbered = (f"{name}:{number}" for number in itertools.count(1))
        names.append(next(one for one in itertools.chain([name], numbered) if one not in names))
    return tuple(names)


def _why(error: Exception, deadline_s: float) -> str:
    text = str(error)
    if text == "interrupted":
        return f"the question took more than {deadline_s:g} s of processor time; narrow it, or add LIMIT"
    if "not authorized" in text or "prohibited" in text or "readonly" in text:
        return f"only reading is allowed ({text}); the views are {', '.join(VIEWS)}"
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_TOOBIG:
        return (
            f"a value has over {_MAX_CELL_BYTES:,} bytes, the most that one may have here; ask for a shorter one, such "
            "as a part by substr, or leave it out"
        )
    if "one statement at a time" in text:
        return "one SELECT at a time"
    return f"SQLite says: {text}; the views are {', '.join(VIEWS)}"


class ArtifactShape(TypedDict):
    """An artifact, as documents show it."""

    artifact: str
    kind: str
    path: str
    sha256: str
    bytes: int


class StepShape(TypedDict):
    """A step, as documents show it."""

    step: str
    stage: str
    arm: str
    on: str
    """The other machine that carried it out; empty: this one."""
    status: str
    seconds: float | None
    estimated_seconds: float
    peak_rss_bytes: int | None
    peak_vram_bytes: int | None
    estimated_peak_bytes: int
    approval: str | None
    plan_hash: str
    request: dict[str, object]
    error: str | None
    stopped_by: str | None
    """Who had it stopped; None where nobody did."""
    artifacts: list[ArtifactShape]


class RunShape(TypedDict):
    """A run, as documents show it."""

    run: str
    name: str
    goal: str
    status: str
    refused: str | None
    """What the gate said that ended its plan."""
    created_at: float
    finished_at: float | None
    steps: list[StepShape]


class Ancestor(TypedDict):
    """An artifact that another one descends from, `depth` generations back, and the step that made it."""

    artifact: str
    kind: str
    run: str
    step: str
    stage: str
    depth: int
    sha256: str
    path: str


class Provenance(ArtifactShape):
    """An artifact, the step that made it, and its ancestors, the nearest first."""

    run: str
    step: str
    lineage: list[Ancestor]


def show_run(store: Store, run: str) -> RunShape:
    """A run as `tunesmith runs show --json` prints it. Raises NotFound."""
    record, refusal = store.run(run), store.refusal(run)
    return {
        "run": record.id,
        "name": record.name,
        "goal": record.goal,
        "status": record.status,
        "refused": refusal.reason if refusal else None,
        "created_at": record.created_at,
        "finished_at": record.finished_at,
        "steps": [step_shape(store, step) for step in store.steps(run)],
    }


def step_shape(store: Store, step: Step) -> StepShape:
    """A step with its artifacts, as documents show it."""
    artifacts = [artifact for artifact in store.artifacts(step.run) if artifact.step == step.id]
    return {
        "step": step.id,
        "stage": step.stage,
        "arm": step.arm,
        "on": step.on,
        "status": step.status,
        "seconds": step.seconds,
        "estimated_seconds": step.estimated_seconds,
        "peak_rss_bytes": step.peak_rss_bytes,
        "peak_vram_bytes": step.peak_vram_bytes,
        "estimated_peak_bytes": step.estimated_peak_bytes,
        "approval": step.approval,
        "plan_hash": step.plan_hash,
        "request": step.request,
        "error": step.error,
        "stopped_by": store.stopped_by(step.id) if step.status == STOPPED else None,
        "artifacts": [_artifact_shape(artifact) for artifact in artifacts],
    }


def _artifact_shape(artifact: Artifact) -> ArtifactShape:
    return {
        "artifact": artifact.id,
        "kind": artifact.kind,
        "path": str(artifact.path),
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
    }


def provenance_of(store: Store, artifact: str) -> Provenance:
    """An artifact with the step that made it and everything it descends from, the nearest first. Raises NotFound."""
    record = store.artifact(artifact)
    rows = store.read("SELECT * FROM v_lineage WHERE artifact = ? ORDER BY depth, ancestor", artifact)
    nearest: dict[str, Ancestor] = {}
    for row in rows:
        nearest.setdefault(
            row["ancestor"],
            {
                "artifact": row["ancestor"],
                "kind": row["ancestor_kind"],
                "run": row["made_by_run"],
                "step": row["made_by_step"],
                "stage": row["made_by_stage"],
                "depth": row["depth"],
                "sha256": row["sha256"],
                "path": str(store.places.path(row["path"])),
            },
        )
    return {**_artifact_shape(record), "run": record.run, "step": record.step, "lineage": list(nearest.values())}
