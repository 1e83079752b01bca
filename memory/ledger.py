"""Runs, their steps, and the approvals that steps are started with.

Many processes write at once (the REPL, a worker, a second terminal): every write is one short IMMEDIATE
transaction in WAL mode with `synchronous=FULL`, so what was reported is on disk. An id (`r3`, `s17`, `a5`, `p9`)
is never used twice. What is newest is what was written last (its row), never what bears the latest time: clocks are
set.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from tunesmith.memory.errors import ApprovalPending, BadInput, NotFound
from tunesmith.memory.locks import Locked, is_locked, lock_file, take
from tunesmith.memory.records import (
    ABANDONED,
    APPROVED,
    BEGUN,
    DECLINED,
    DONE,
    ENDED,
    FAILED,
    PLANNED,
    RUNNING,
    STOPPED,
    WAITING,
    Step,
    Worker,
)
from tunesmith.memory.run_ledger import RunLedger
from tunesmith.memory.store_file import BUSY_TIMEOUT_S

_LAST_YES = (
    "(SELECT approval FROM approvals a WHERE a.step = steps.step AND a.decision = 'yes' ORDER BY a.rowid DESC LIMIT 1)"
)


class Ledger(RunLedger):
    """The life of runs and steps."""

    def __init__(self, home: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S, unwritable: str = "") -> None:
        """As `StoreFile`."""
        super().__init__(home, busy_timeout_s=busy_timeout_s, unwritable=unwritable)
        self._starting: dict[str, int] = {}  # step that was agreed to here → the lock that says so until it is claimed

    # Steps: propose → decide → claim → finish or fail

    def propose(self, run: str, stage: str, **values: object) -> str:
        """Record a priced plan that waits for a decision, and return the step's id.

        `values` are columns of `steps`; `request`, `plan` and `inputs` are given as dicts. An older price of the same
        step is abandoned by it.
        """
        for name in ("request", "plan", "inputs"):
            values[name] = self.places.to_json(values.get(name, {}))
        row = {"run": run, "stage": stage, "status": PLANNED, "created_at": time.time(), **values}
        with self.write() as conn:
            step = self._insert(conn, "steps", row)
            older = "run = ? AND stage = ? AND arm = ? AND step <> ?"
            self._abandon(
                conn, older, (run, stage, str(values.get("arm", "")), step), f"{step} was priced in its place"
            )
        return step

    def abandon(self, run: str, stages: Collection[str], why: str) -> None:
        """Take the open prices of these stages off what waits for a yes; who still sees one may answer it."""
        with self.write() as conn:
            marks = ", ".join("?" * len(stages))
            self._abandon(conn, f"run = ? AND stage IN ({marks})", (run, *stages), why)

    def abandon_step(self, step: str, why: str) -> None:
        """The same for one step, where its price is still open."""
        with self.write() as conn:
            self._abandon(conn, "step = ?", (step,), why)

    def _abandon(self, conn: sqlite3.Connection, condition: str, values: Sequence[str], why: str) -> None:
        status = f"status = '{PLANNED}'"
        open_ = conn.execute(
            f"SELECT step, run, plan_hash FROM steps WHERE {status} AND {condition}", values
        ).fetchall()
        for row in open_:
            conn.execute(
                f"UPDATE steps SET status = coalesce(ended_as, ?), approval = {_LAST_YES} WHERE step = ?",
                (ABANDONED, row["step"]),
            )
            data = to_json({"plan_hash": row["plan_hash"], "why": why})
            add_event(conn, row["run"], row["step"], "price.abandoned", data)

    def decide(self, step: str, decision: str, *, by: str, reason: str, price: dict[str, object]) -> str:
        """Record a yes or a no for the plan that `step` holds now, and return the approval's id.

        A no to go on with a step that had begun leaves it as it had ended. Raises BadInput where the step no longer
        waits for a decision: somebody else decided meanwhile. After a yes nobody else can withdraw it for as long as
        this process lives and has not let go of the step.
        """
        if decision == "yes":
            self._keep_for_start(step)
        try:
            return self._decide(step, decision, by=by, reason=reason, price=price)
        except BaseException:  # a Ctrl-C, too: a step that nobody starts must not hold its lock
            self.let_go(step)
            raise

    def _keep_for_start(self, step: str) -> None:
        self.let_go(step)
        try:
            self._starting[step] = take(lock_file(self.home, f"{step}-start"), holder=f"pid {os.getpid()}")
        except Locked:  # another process said yes, and starts it now
            raise BadInput(_decided_elsewhere(step, APPROVED)) from None

    def agreed_plans(self, step: str) -> set[str]:
        """Hashes of the plans that a step has had a yes for, and of the one it holds; a moved home changes them."""
        plans = "SELECT plan_hash FROM approvals WHERE step = ?1 AND decision = 'yes' UNION"
        return {row["plan_hash"] for row in self.read(f"{plans} SELECT plan_hash FROM steps WHERE step = ?1", step)}

    def let_go(self, step: str) -> None:
        """A step that this process agreed to was started, or will not be: whoever comes may decide about it anew."""
        if (fd := self._starting.pop(step, None)) is not None:
            os.close(fd)

    def _decide(self, step: str, decision: str, *, by: str, reason: str, price: dict[str, object]) -> str:
        with self.write() as conn:
            row = conn.execute(
                "SELECT stage, plan_hash, status, ended_as FROM steps WHERE step = ?", (step,)
            ).fetchone()
            # A price that was abandoned may still stand at a question in another terminal: its answer counts.
            if row["status"] not in (PLANNED, ABANDONED):
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
            if decision == "no" and row["ended_as"]:  # its work is as it was
                conn.execute(f"UPDATE steps SET status = ended_as, approval = {_LAST_YES} WHERE step = ?", (step,))
                return approval
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
        host: str | None = None,
        pid_namespace: str | None = None,
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
            elif row["status"] not in (PLANNED, ABANDONED):
                raise BadInput(_decided_elsewhere(step, row["status"]))
            conn.execute(
                "UPDATE steps SET status = ?, pid = ?, pid_started = ?, boot_id = ?, pid_ticks = ?, host = ?,"
                " pid_namespace = ?, started_at = ?, finished_at = NULL, error = NULL, announced = 0 WHERE step = ?",
                (RUNNING, pid, pid_started, boot_id, pid_ticks, host, pid_namespace, time.time(), step),
            )
        self.let_go(step)

    def close(self) -> None:
        """As `StoreFile`; what this process agreed to and has not started, whoever comes may decide about."""
        for step in [*self._starting]:
            self.let_go(step)
        super().close()

    def reopen(self, step: str, *, plan_hash: str | None = None) -> None:
        """Put a step that failed or was stopped back to `planned`, so that it can be approved again.

        `plan_hash` is that of its plan as it is read now, where that names paths and the home was moved since.

        Raises BadInput for one that runs or is done, and for one that another process agreed to and is starting now.
        """
        own = step in self._starting
        with self.write() as conn:
            row = conn.execute("SELECT status FROM steps WHERE step = ?", (step,)).fetchone()
            starting = row["status"] == APPROVED and not own and is_locked(lock_file(self.home, f"{step}-start"))
            if row["status"] in (RUNNING, DONE) or starting:
                raise BadInput(_decided_elsewhere(step, row["status"]))
            conn.execute(
                "UPDATE steps SET ended_as = CASE WHEN status IN (?, ?) THEN status ELSE ended_as END, status = ?,"
                " approval = NULL, plan_hash = coalesce(?, plan_hash) WHERE step = ?",
                (FAILED, STOPPED, PLANNED, plan_hash, step),
            )

    def progress(self, step: str, done: float, total: float, note: str, *, wait_s: float | None = None) -> None:
        """How far a whole step has come: seconds that count as done, of all that it will take."""
        with self.write(wait_s=wait_s) as conn:
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

    def peak(self, step: str, rss_bytes: int, vram_bytes: int | None, *, wait_s: float | None = None) -> None:
        """Raise the recorded memory peaks of a step."""
        with self.write(wait_s=wait_s) as conn:
            conn.execute(
                "UPDATE steps SET peak_rss_bytes = max(coalesce(peak_rss_bytes, 0), ?),"
                " peak_vram_bytes = max(coalesce(peak_vram_bytes, 0), coalesce(?, peak_vram_bytes, 0)) WHERE step = ?",
                (rss_bytes, vram_bytes, step),
            )

    def finish(self, step: str, result: dict[str, object], *, worker: Worker | None = None) -> bool:
        """Record that a step reached its end; whether it now counts as done.

        A `worker` that was taken for dead, and whose step nobody else has claimed since, delivers its result late: the
        step is done all the same. Where somebody has, the result is kept as an event. Without a worker a step that
        ended stays as it ended.
        """
        with self.write() as conn:
            row = conn.execute("SELECT * FROM steps WHERE step = ?", (step,)).fetchone()
            own = worker is None or worker == (row["pid"], row["pid_ticks"])
            if own and row["status"] not in ENDED and (worker is None or row["status"] == RUNNING):
                self._end(conn, step, DONE, result=self.places.to_json(result), error=None, at=time.time())
                return True
            if worker is None or row["status"] == DONE:
                return False
            # Of two results one counts; the other is kept for whoever asks what became of that work.
            event = "step.finished_late" if own else "step.finished_beside"
            add_event(conn, row["run"], step, event, self.places.to_json({"pid": worker.pid, "result": result}))
            if own:
                self._deliver_late(conn, row, self.places.to_json(result))
            return own

    def _deliver_late(self, conn: sqlite3.Connection, row: sqlite3.Row, result: str) -> None:
        """Make a step done whose worker was taken for dead; its time is counted from its start once."""
        counted = max((row["finished_at"] or row["started_at"]) - row["started_at"], 0) if row["started_at"] else 0
        conn.execute(
            "UPDATE steps SET seconds = max(coalesce(seconds, 0) - ?, 0) WHERE step = ?", (counted, row["step"])
        )
        self._end(conn, row["step"], DONE, result=result, error=None, at=time.time())
        conn.execute("UPDATE steps SET announced = 0 WHERE step = ?", (row["step"],))
        # Its run failed with it, and can go on now.
        conn.execute("UPDATE runs SET status = ? WHERE run = ? AND status = ?", (WAITING, row["run"], FAILED))

    def fail(
        self,
        step: str,
        error: str,
        *,
        status: str = FAILED,
        ended_at: float | None = None,
        worker: Worker | None = None,
    ) -> bool:
        """Record that a step ended without reaching its end, why, and when if that was before now; whether it was.

        One that ended already stays as it ended. With a `worker` only what that one claimed, and still works on, ends:
        somebody may have started the step anew since the caller looked at it.
        """
        with self.write() as conn:
            row = conn.execute("SELECT status, pid, pid_ticks FROM steps WHERE step = ?", (step,)).fetchone()
            if row["status"] in ENDED:
                return False
            if worker is not None and (row["status"] != RUNNING or worker != (row["pid"], row["pid_ticks"])):
                return False
            at = time.time() if ended_at is None else ended_at
            self._end(conn, step, status, result=None, error=self.places.stored(error), at=at)
        return True

    def _end(
        self, conn: sqlite3.Connection, step: str, status: str, *, result: str | None, error: str | None, at: float
    ) -> None:
        conn.execute(
            "UPDATE steps SET status = ?, finished_at = ?, result = ?, error = ?,"
            " seconds = coalesce(seconds, 0) + max(? - coalesce(started_at, ?), 0) WHERE step = ?",
            (status, at, result, error, at, at, step),
        )

    def step(self, step: str) -> Step:
        """The step with this id. Raises NotFound."""
        rows = self.read("SELECT * FROM steps WHERE step = ?", step)
        if not rows:
            raise NotFound(f"no step {step!r}; `tunesmith show RUN` lists those of a run")
        return Step.of(rows[0], self.places)

    def steps(self, run: str | None = None, *, status: str | None = None) -> list[Step]:
        """Steps in the order they were planned, of one run or of all: those that began, or all of one status."""
        rows = self.read(
            f"SELECT * FROM steps s WHERE (?1 IS NULL OR run = ?1) AND (status = ?2 OR (?2 IS NULL AND {BEGUN}))"
            " ORDER BY rowid",
            run,
            status,
        )
        return [Step.of(row, self.places) for row in rows]

    def broken_off(self, run: str) -> Step | None:
        """The newest step of a run where it failed or was stopped: it is what goes on."""
        newest = self.steps(run)[-1:]
        return newest[0] if newest and newest[0].status in (FAILED, STOPPED) else None

    def priced_steps(self, run: str | None = None) -> list[Step]:
        """Every step that was ever priced, whatever became of it, in that order."""
        rows = self.read("SELECT * FROM steps WHERE (?1 IS NULL OR run = ?1) ORDER BY rowid", run)
        return [Step.of(row, self.places) for row in rows]

    def stopped_by(self, step: str) -> str:
        """Who had the present attempt at a step stopped, as people are told."""
        of_attempt = "step = ?1 AND at >= (SELECT started_at FROM steps WHERE step = ?1)"
        rows = self.read(f"SELECT data FROM events WHERE event = 'step.stopped' AND {of_attempt} ORDER BY id", step)
        return str(json.loads(rows[-1]["data"])["by"]) if rows else "the user"

    def unannounced(self) -> list[Step]:
        """Steps that ended while nobody watched, marked as told by this call."""
        ended = (DONE, FAILED, STOPPED)
        rows = self.read("SELECT * FROM steps WHERE announced = 0 AND status IN (?, ?, ?)", *ended)
        steps = [Step.of(row, self.places) for row in rows]
        self.announce([step.id for step in steps])
        return steps

    def announce(self, steps: Sequence[str]) -> None:
        """Mark steps as told to the user."""
        with self.write() as conn:
            conn.executemany("UPDATE steps SET announced = 1 WHERE step = ?", [(step,) for step in steps])


def _decided_elsewhere(step: str, status: str) -> str:
    if status == RUNNING:
        return f"step {step} runs already; `tunesmith jobs attach {step}` follows it"
    if status == APPROVED:
        return f"step {step} has its yes from another terminal, which is starting it; `tunesmith jobs attach {step}`"
    return f"step {step} is {status} already, so there is nothing to decide; `tunesmith jobs list` shows what waits"


def add_event(conn: sqlite3.Connection, run: str | None, step: str | None, event: str, data: str) -> None:
    """Append to the history of what happened, `data` being JSON."""
    row = (run, step, time.time(), event, data)
    conn.execute("INSERT INTO events (run, step, at, event, data) VALUES (?, ?, ?, ?, ?)", row)


def to_json(value: object) -> str:
    """The JSON text that the store keeps of a value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
