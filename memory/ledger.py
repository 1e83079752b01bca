"""Runs, their steps, and the approvals that steps are started with.

Many processes write at once (the REPL, a worker, a second terminal): every write is one short IMMEDIATE
transaction in WAL mode with `synchronous=FULL`, so what was reported is on disk. An id (`r3`, `s17`, `a5`, `p9`)
is never used twice. What is newest is what was written last (its row), never what bears the latest time: clocks are
set.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.memory import migrations
from tunesmith.memory.errors import ApprovalPending, BadInput, NotFound
from tunesmith.memory.files import make_private
from tunesmith.memory.records import (
    APPROVED,
    DECLINED,
    DONE,
    DRIVER_RUN,
    ENDED,
    FAILED,
    PLANNED,
    RUNNING,
    Run,
    Step,
)

if TYPE_CHECKING:
    from sqlite_utils import Database

_BUSY_TIMEOUT_S = 30.0
_KEYS = {
    "runs": ("run", "r"),
    "steps": ("step", "s"),
    "approvals": ("approval", "p"),
    "artifacts": ("artifact", "a"),
}


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Keep sqlite-utils from importing these wherever they are installed: for types that no column here has."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


class Ledger:
    """The open database, and the life of runs and steps in it; safe to share between the threads of one process."""

    def __init__(self, home: Path) -> None:
        """Open (and where needed create or migrate) `home/tunesmith.db`."""
        make_private(home)
        self.home = home
        self.path = home / "tunesmith.db"
        self._lock = threading.RLock()
        self._conn = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
        self._conn.row_factory = sqlite3.Row
        self._conn.execute("PRAGMA synchronous=FULL")
        self._conn.execute("PRAGMA foreign_keys=ON")
        if self._conn.execute("PRAGMA user_version").fetchone()[0] < migrations.LATEST:
            self._migrate()

    def _migrate(self) -> None:
        with (self.home / ".migrate.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._switch_to_wal()
            with self.write() as conn:  # one transaction: a reading one that wants to write later does not wait either
                if conn.execute("PRAGMA user_version").fetchone()[0] < migrations.LATEST:
                    migrations.apply(self.db)

    def _switch_to_wal(self) -> None:
        """WAL is a property of the file. SQLite switches only while nobody else reads it, and waits for nobody here."""
        deadline = time.monotonic() + _BUSY_TIMEOUT_S
        while True:
            try:
                self._conn.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @property
    def db(self) -> Database:
        """The same connection through sqlite-utils; imported on first use, for it takes 0.2–0.4 s."""
        with _hidden("pandas", "numpy"):
            from sqlite_utils import Database

        return Database(self._conn, recursive_triggers=False)

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: all of it is on disk afterwards, or none."""
        with self._lock:
            self._conn.execute("BEGIN IMMEDIATE")
            try:
                yield self._conn
            except BaseException:
                self._conn.rollback()
                raise
            self._conn.commit()

    def read(self, sql: str, *args: Any) -> list[sqlite3.Row]:
        """Rows of a query of our own; questions from outside go through `memory.questions`."""
        with self._lock:
            return self._conn.execute(sql, args).fetchall()

    def _insert(self, conn: sqlite3.Connection, table: str, values: dict[str, Any]) -> str:
        """Insert a row under the table's next id and return that id."""
        key, letter = _KEYS[table]
        taken = conn.execute(f"SELECT max(CAST(substr({key}, 2) AS INTEGER)) FROM {table}").fetchone()[0]
        values = {key: f"{letter}{(taken or 0) + 1}", **values}
        names = ", ".join(values)
        conn.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", [*values.values()])
        return str(values[key])

    # Runs

    def new_run(self, name: str, *, goal: str = "", plan: dict[str, Any] | None = None) -> str:
        """Open a run and return its id."""
        values = {
            "name": name,
            "goal": goal,
            "plan": to_json(plan or {}),
            "status": RUNNING,
            "created_at": time.time(),
        }
        with self.write() as conn:
            return self._insert(conn, "runs", values)

    def set_run_status(self, run: str, status: str) -> None:
        """Record where a run stands; an end also gets its time."""
        ended = None if status == RUNNING else time.time()
        with self.write() as conn:
            conn.execute("UPDATE runs SET status = ?, finished_at = ? WHERE run = ?", (status, ended, run))

    def run(self, run: str) -> Run:
        """The run with this id. Raises NotFound, naming the newest ones."""
        rows = self.read("SELECT * FROM runs WHERE run = ?", run)
        if not rows:
            known = ", ".join(r.id for r in self.runs()[:5]) or "none yet"
            raise NotFound(f"no run {run!r}; the newest are: {known}")
        return Run.of(rows[0])

    def runs(self) -> list[Run]:
        """All runs, the newest first."""
        return [Run.of(row) for row in self.read("SELECT * FROM runs ORDER BY rowid DESC")]

    def newest_run(self) -> Run | None:
        """The run that is meant where none is named; the one that fetched the driver is nobody's work."""
        return next((run for run in self.runs() if run.name != DRIVER_RUN), None)

    # Steps: propose → decide → claim → finish or fail

    def propose(self, run: str, stage: str, **values: Any) -> str:
        """Record a priced plan that waits for a decision, and return the step's id.

        `values` are columns of `steps`; `request`, `plan` and `inputs` are given as dicts.
        """
        for name in ("request", "plan", "inputs"):
            values[name] = to_json(values.get(name, {}))
        row = {"run": run, "stage": stage, "status": PLANNED, "created_at": time.time(), **values}
        with self.write() as conn:
            return self._insert(conn, "steps", row)

    def decide(self, step: str, decision: str, *, by: str, reason: str, price: dict[str, Any]) -> str:
        """Record a yes or a no for the plan that `step` holds now, and return the approval's id.

        Raises BadInput where the step no longer waits for one: somebody else decided meanwhile.
        """
        with self.write() as conn:
            row = conn.execute("SELECT stage, plan_hash, status FROM steps WHERE step = ?", (step,)).fetchone()
            if row["status"] != PLANNED:
                raise BadInput(_decided_elsewhere(step, row["status"]))
            values = {
                "step": step,
                "stage": row["stage"],
                "plan_hash": row["plan_hash"],
                "decision": decision,
                "decided_by": by,
                "reason": reason,
                "price": to_json(price),
                "decided_at": time.time(),
            }
            approval = self._insert(conn, "approvals", values)
            status = APPROVED if decision == "yes" else DECLINED
            conn.execute("UPDATE steps SET status = ?, approval = ? WHERE step = ?", (status, approval, step))
        return approval

    def claim(
        self,
        step: str,
        *,
        needs_approval: bool,
        pid: int,
        pid_started: float,
        boot_id: str,
        pid_ticks: int | None = None,
    ) -> None:
        """Make this process the step's worker, using up its approval. Raises ApprovalPending.

        The one place where a step becomes `running`: in a single transaction the approval must say yes to the
        plan that the step still holds, and must not have been used. A step that needs none is taken once, too: raises
        BadInput.
        """
        with self.write() as conn:
            row = conn.execute(
                "SELECT s.status, s.plan_hash, a.decision, a.plan_hash AS agreed, a.used_at, a.approval FROM steps s"
                " LEFT JOIN approvals a ON a.approval = s.approval WHERE s.step = ?",
                (step,),
            ).fetchone()
            if row is None:
                raise NotFound(f"no step {step!r}")
            if needs_approval:
                if row["decision"] != "yes" or row["agreed"] != row["plan_hash"]:
                    raise ApprovalPending(f"step {step} has no yes for its plan {row['plan_hash'][:12]}")
                if row["used_at"] is not None or row["status"] != APPROVED:
                    raise ApprovalPending(f"the yes for step {step} was used already; approve it again")
                conn.execute("UPDATE approvals SET used_at = ? WHERE approval = ?", (time.time(), row["approval"]))
            elif row["status"] != PLANNED:
                raise BadInput(_decided_elsewhere(step, row["status"]))
            conn.execute(
                "UPDATE steps SET status = ?, pid = ?, pid_started = ?, boot_id = ?, pid_ticks = ?, started_at = ?,"
                " finished_at = NULL, error = NULL, announced = 0 WHERE step = ?",
                (RUNNING, pid, pid_started, boot_id, pid_ticks, time.time(), step),
            )

    def reopen(self, step: str) -> None:
        """Put a step that failed or was stopped back to `planned`, so that it can be approved again.

        Raises BadInput for one that runs or is done.
        """
        with self.write() as conn:
            row = conn.execute("SELECT status FROM steps WHERE step = ?", (step,)).fetchone()
            if row["status"] in (RUNNING, DONE):
                raise BadInput(_decided_elsewhere(step, row["status"]))
            conn.execute("UPDATE steps SET status = ?, approval = NULL WHERE step = ?", (PLANNED, step))

    def progress(self, step: str, done: float, total: float, note: str) -> None:
        """How far a step has come, in its own units."""
        with self.write() as conn:
            conn.execute(
                "UPDATE steps SET done = ?, total = ?, note = ?, moved_at = ? WHERE step = ?",
                (done, total, note, time.time(), step),
            )

    def last_sign(self, step: str) -> float:
        """When the store last heard of a step: its start, its progress, an event or a point of a curve. 0.0: never."""
        row = self.read(
            "SELECT max(coalesce(started_at, 0), coalesce(moved_at, 0),"
            " coalesce((SELECT max(at) FROM events e WHERE e.step = s.step), 0),"
            " coalesce((SELECT max(at) FROM metrics m WHERE m.step = s.step), 0)) FROM steps s WHERE step = ?",
            step,
        )
        return float(row[0][0]) if row else 0.0

    def peak(self, step: str, rss_bytes: int, vram_bytes: int | None) -> None:
        """Raise the recorded memory peaks of a step."""
        with self.write() as conn:
            conn.execute(
                "UPDATE steps SET peak_rss_bytes = max(coalesce(peak_rss_bytes, 0), ?),"
                " peak_vram_bytes = max(coalesce(peak_vram_bytes, 0), coalesce(?, peak_vram_bytes, 0)) WHERE step = ?",
                (rss_bytes, vram_bytes, step),
            )

    def finish(self, step: str, result: dict[str, Any]) -> None:
        """Record that a step reached its end; one that ended already stays as it ended."""
        self._end(step, DONE, result=to_json(result), error=None)

    def fail(self, step: str, error: str, *, status: str = FAILED, ended_at: float | None = None) -> None:
        """Record that a step ended without reaching its end, why, and when if that was before now.

        One that ended already stays as it ended.
        """
        self._end(step, status, result=None, error=error, at=ended_at)

    def _end(self, step: str, status: str, *, result: str | None, error: str | None, at: float | None = None) -> None:
        at = time.time() if at is None else at
        with self.write() as conn:
            conn.execute(
                "UPDATE steps SET status = ?, finished_at = ?, result = ?, error = ?,"
                " seconds = coalesce(seconds, 0) + max(? - coalesce(started_at, ?), 0)"
                f" WHERE step = ? AND status NOT IN ({', '.join('?' * len(ENDED))})",
                (status, at, result, error, at, at, step, *ENDED),
            )

    def step(self, step: str) -> Step:
        """The step with this id. Raises NotFound."""
        rows = self.read("SELECT * FROM steps WHERE step = ?", step)
        if not rows:
            raise NotFound(f"no step {step!r}; `tunesmith jobs` lists them")
        return Step.of(rows[0])

    def steps(self, run: str | None = None, *, status: str | None = None) -> list[Step]:
        """Steps in the order they were planned, of one run or of all."""
        rows = self.read(
            "SELECT * FROM steps WHERE (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR status = ?2) ORDER BY rowid",
            run,
            status,
        )
        return [Step.of(row) for row in rows]

    def unannounced(self) -> list[Step]:
        """Steps that ended while nobody watched, marked as told by this call."""
        ended = (DONE, FAILED)
        steps = [Step.of(r) for r in self.read("SELECT * FROM steps WHERE announced = 0 AND status IN (?, ?)", *ended)]
        self.announce([step.id for step in steps])
        return steps

    def announce(self, steps: Sequence[str]) -> None:
        """Mark steps as told to the user."""
        with self.write() as conn:
            conn.executemany("UPDATE steps SET announced = 1 WHERE step = ?", [(step,) for step in steps])


def _decided_elsewhere(step: str, status: str) -> str:
    if status == RUNNING:
        return f"step {step} runs already; `tunesmith jobs attach {step}` follows it"
    return f"step {step} is {status} already, so there is nothing to decide; `tunesmith jobs list` shows what waits"


def to_json(value: Any) -> str:
    """The JSON text that the store keeps of a value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
