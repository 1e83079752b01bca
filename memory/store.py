"""tunesmith's memory: one SQLite file that holds every run, step, approval, number and artifact.

Many processes write at once (the REPL, a worker, a second terminal): every write is one short IMMEDIATE
transaction in WAL mode with `synchronous=FULL`, so what was reported is on disk. An id (`r3`, `s17`, `a5`, `p9`)
is never used twice.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.memory import migrations
from tunesmith.memory.errors import ApprovalPending, NotFound
from tunesmith.memory.records import (
    APPROVED,
    DECLINED,
    DONE,
    FAILED,
    PLANNED,
    RUNNING,
    Artifact,
    EvalResult,
    Run,
    Step,
    TrainingRow,
)

if TYPE_CHECKING:
    from sqlite_utils import Database

_KEYS = {
    "runs": ("run", "r"),
    "steps": ("step", "s"),
    "approvals": ("approval", "p"),
    "artifacts": ("artifact", "a"),
}


class Store:
    """An open store; safe to share between the threads of one process."""

    def __init__(self, home: Path) -> None:
        """Open (and where needed create or migrate) `home/tunesmith.db`."""
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.path = home / "tunesmith.db"
        self._lock = threading.RLock()
        self._conn = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
        self._conn.row_factory = sqlite3.Row
        self._conn.execute("PRAGMA journal_mode=WAL")
        self._conn.execute("PRAGMA synchronous=FULL")
        self._conn.execute("PRAGMA foreign_keys=ON")
        if self._conn.execute("PRAGMA user_version").fetchone()[0] < migrations.LATEST:
            self._migrate()

    def _migrate(self) -> None:
        with (self.home / ".migrate.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            migrations.apply(self.db)

    @property
    def db(self) -> Database:
        """The same connection through sqlite-utils; imported on first use, for it takes 0.2–0.4 s."""
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
            "plan": _json(plan or {}),
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
        return [Run.of(row) for row in self.read("SELECT * FROM runs ORDER BY created_at DESC, rowid DESC")]

    # Steps: propose → decide → claim → finish or fail

    def propose(self, run: str, stage: str, **values: Any) -> str:
        """Record a priced plan that waits for a decision, and return the step's id.

        `values` are columns of `steps`; `request`, `plan` and `inputs` are given as dicts.
        """
        for name in ("request", "plan", "inputs"):
            values[name] = _json(values.get(name, {}))
        row = {"run": run, "stage": stage, "status": PLANNED, "created_at": time.time(), **values}
        with self.write() as conn:
            return self._insert(conn, "steps", row)

    def decide(self, step: str, decision: str, *, by: str, reason: str, price: dict[str, Any]) -> str:
        """Record a yes or a no for the plan that `step` holds now, and return the approval's id."""
        with self.write() as conn:
            row = conn.execute("SELECT stage, plan_hash FROM steps WHERE step = ?", (step,)).fetchone()
            values = {
                "step": step,
                "stage": row["stage"],
                "plan_hash": row["plan_hash"],
                "decision": decision,
                "decided_by": by,
                "reason": reason,
                "price": _json(price),
                "decided_at": time.time(),
            }
            approval = self._insert(conn, "approvals", values)
            status = APPROVED if decision == "yes" else DECLINED
            conn.execute("UPDATE steps SET status = ?, approval = ? WHERE step = ?", (status, approval, step))
        return approval

    def claim(self, step: str, *, needs_approval: bool, pid: int, pid_started: float, boot_id: str) -> None:
        """Make this process the step's worker, using up its approval. Raises ApprovalPending.

        The one place where a step becomes `running`: in a single transaction the approval must say yes to the
        plan that the step still holds, and must not have been used.
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
            conn.execute(
                "UPDATE steps SET status = ?, pid = ?, pid_started = ?, boot_id = ?, started_at = ?,"
                " finished_at = NULL, error = NULL, announced = 0 WHERE step = ?",
                (RUNNING, pid, pid_started, boot_id, time.time(), step),
            )

    def reopen(self, step: str) -> None:
        """Put a step that failed or was stopped back to `planned`, so that it can be approved again."""
        with self.write() as conn:
            conn.execute("UPDATE steps SET status = ?, approval = NULL WHERE step = ?", (PLANNED, step))

    def progress(self, step: str, done: float, total: float, note: str) -> None:
        """How far a step has come, in its own units."""
        with self.write() as conn:
            conn.execute("UPDATE steps SET done = ?, total = ?, note = ? WHERE step = ?", (done, total, note, step))

    def peak(self, step: str, rss_bytes: int, vram_bytes: int | None) -> None:
        """Raise the recorded memory peaks of a step."""
        with self.write() as conn:
            conn.execute(
                "UPDATE steps SET peak_rss_bytes = max(coalesce(peak_rss_bytes, 0), ?),"
                " peak_vram_bytes = max(coalesce(peak_vram_bytes, 0), coalesce(?, peak_vram_bytes, 0)) WHERE step = ?",
                (rss_bytes, vram_bytes, step),
            )

    def finish(self, step: str, result: dict[str, Any]) -> None:
        """Record that a step reached its end."""
        self._end(step, DONE, result=_json(result), error=None)

    def fail(self, step: str, error: str, *, status: str = FAILED) -> None:
        """Record that a step ended without reaching its end, and why."""
        self._end(step, status, result=None, error=error)

    def _end(self, step: str, status: str, *, result: str | None, error: str | None) -> None:
        now = time.time()
        with self.write() as conn:
            conn.execute(
                "UPDATE steps SET status = ?, finished_at = ?, result = ?, error = ?,"
                " seconds = coalesce(seconds, 0) + (? - coalesce(started_at, ?)) WHERE step = ?",
                (status, now, result, error, now, now, step),
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
            "SELECT * FROM steps WHERE (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR status = ?2)"
            " ORDER BY created_at, rowid",
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

    # What a step leaves behind

    def event(self, event: str, *, run: str | None = None, step: str | None = None, **data: Any) -> None:
        """Append to the history of what happened."""
        with self.write() as conn:
            conn.execute(
                "INSERT INTO events (run, step, at, event, data) VALUES (?, ?, ?, ?, ?)",
                (run, step, time.time(), event, _json(data)),
            )

    def metric(self, step: str, name: str, x: float, value: float) -> None:
        """Append a point to a curve of a step, for example loss at optimiser step x."""
        with self.write() as conn:
            conn.execute(
                "INSERT INTO metrics (step, name, x, value, at) VALUES (?, ?, ?, ?, ?)",
                (step, name, x, value, time.time()),
            )

    def metrics(self, step: str, name: str) -> list[tuple[float, float]]:
        """A curve of a step as (x, value), by x; of a point measured twice (after a resume) the later one."""
        rows = self.read("SELECT x, value FROM metrics WHERE step = ? AND name = ? ORDER BY x, id", step, name)
        return list({row["x"]: (row["x"], row["value"]) for row in rows}.values())

    def add_artifact(self, artifact: Artifact) -> Artifact:
        """Record an artifact (its id is given here); the same path and digest again is the same artifact."""
        same = self.read(
            "SELECT * FROM artifacts WHERE step = ? AND path = ? AND sha256 = ?",
            artifact.step,
            str(artifact.path),
            artifact.sha256,
        )
        if same:
            return Artifact.of(same[0])
        values = {
            "run": artifact.run,
            "step": artifact.step,
            "kind": artifact.kind,
            "path": str(artifact.path),
            "sha256": artifact.sha256,
            "bytes": artifact.bytes,
            "parents": _json(list(artifact.parents)),
            "meta": _json(artifact.meta),
            "created_at": time.time(),
        }
        with self.write() as conn:
            identity = self._insert(conn, "artifacts", values)
        return self.artifact(identity)

    def artifact(self, artifact: str) -> Artifact:
        """The artifact with this id. Raises NotFound."""
        rows = self.read("SELECT * FROM artifacts WHERE artifact = ?", artifact)
        if not rows:
            raise NotFound(f"no artifact {artifact!r}; `tunesmith runs show RUN` lists them")
        return Artifact.of(rows[0])

    def artifacts(self, run: str, kind: str | None = None) -> list[Artifact]:
        """Artifacts of a run, the oldest first."""
        rows = self.read(
            "SELECT * FROM artifacts WHERE run = ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY created_at, rowid",
            run,
            kind,
        )
        return [Artifact.of(row) for row in rows]

    def add_result(self, run: str, step: str, result: EvalResult) -> None:
        """Record one answered case; the same case of the same step again replaces an error, nothing else."""
        with self.write() as conn:
            conn.execute(
                "DELETE FROM eval_results WHERE step = ? AND arm = ? AND case_id = ? AND repeat = ? AND passed IS NULL",
                (step, result.arm, result.case_id, result.repeat),
            )
            values = {name: getattr(result, name) for name in EvalResult.__dataclass_fields__}
            values |= {"tool_calls": _json(result.tool_calls), "assertions": _json(result.assertions)}
            values |= {"run": run, "step": step, "at": time.time()}
            names = ", ".join(values)
            conn.execute(
                f"INSERT OR IGNORE INTO eval_results ({names}) VALUES ({', '.join('?' * len(values))})",
                [*values.values()],
            )

    def results(self, step: str, arm: str | None = None) -> list[EvalResult]:
        """The answered cases of a step, in the order they came."""
        rows = self.read(
            "SELECT * FROM eval_results WHERE step = ?1 AND (?2 IS NULL OR arm = ?2) ORDER BY id", step, arm
        )
        return [_eval_result(row) for row in rows]

    def latest_results(self, run: str, arm: str) -> list[EvalResult]:
        """The cases of the newest finished evaluation of an arm in a run. Raises NotFound."""
        rows = self.read(
            "SELECT e.step FROM eval_results e JOIN steps s ON s.step = e.step"
            " WHERE e.run = ? AND e.arm = ? AND s.status = ? ORDER BY s.created_at DESC, s.rowid DESC LIMIT 1",
            run,
            arm,
            DONE,
        )
        if not rows:
            raise NotFound(f"run {run} has no finished evaluation of the arm {arm!r}; `tunesmith evaluate` makes one")
        return self.results(rows[0]["step"], arm)

    def add_rows(self, run: str, step: str, rows: Sequence[TrainingRow]) -> None:
        """Record candidate training rows; a row that is there already (after a resume) is left alone."""
        with self.write() as conn:
            conn.executemany(
                "INSERT OR IGNORE INTO rows (run, step, row_id, origin, split, attributes, prompt, completion,"
                " verdict, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (run, step, r.row_id, r.origin, r.split, _json(r.attributes), _json(r.prompt),
                     _json(r.completion), r.verdict, r.reason)
                    for r in rows
                ],
            )  # fmt: skip

    def judge_row(self, step: str, row_id: str, verdict: str, reason: str, split: str = "train") -> None:
        """Record what critique decided about a row of the generating step."""
        with self.write() as conn:
            conn.execute(
                "UPDATE rows SET verdict = ?, reason = ?, split = ? WHERE step = ? AND row_id = ?",
                (verdict, reason, split, step, row_id),
            )

    def rows(self, step: str, *, verdict: str | None = None) -> list[TrainingRow]:
        """Rows of a generating step, in the order they were written."""
        found = self.read(
            "SELECT * FROM rows WHERE step = ?1 AND (?2 IS NULL OR verdict = ?2) ORDER BY id", step, verdict
        )
        return [
            TrainingRow(
                row_id=r["row_id"],
                origin=r["origin"],
                prompt=json.loads(r["prompt"]),
                completion=json.loads(r["completion"]),
                attributes=json.loads(r["attributes"]),
                split=r["split"],
                verdict=r["verdict"],
                reason=r["reason"],
            )
            for r in found
        ]


def _eval_result(row: sqlite3.Row) -> EvalResult:
    values = {name: row[name] for name in EvalResult.__dataclass_fields__}
    values["passed"] = None if row["passed"] is None else bool(row["passed"])
    values |= {"tool_calls": json.loads(row["tool_calls"]), "assertions": json.loads(row["assertions"])}
    return EvalResult(**values)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
