"""Plans that wait for the machine, as rows: added once, begun once, and kept after their end.

A plan's run is opened in the transaction that marks the plan as begun, so that no kill between the two begins it twice.
The budget that the plans are carried out under is a row too: a later start goes on with what is left of it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import DONE, FAILED, RUNNING, WAITING, planned_stages
from tunesmith.memory.store import Store

REMOVED = "removed"
"""Status of a plan that a person took off the queue before it began."""


@dataclass(frozen=True, slots=True)
class QueuedPlan:
    """A plan of the queue."""

    id: int
    plan: Mapping[str, object]
    status: str
    """`waiting`, `running`, `done`, `failed` or `removed`."""
    run: str
    """Empty before it begins."""
    note: str
    """Why it waits or how it ended, in a sentence."""

    @property
    def name(self) -> str:
        """The name of the plan."""
        return str(self.plan.get("name", ""))

    @property
    def open(self) -> bool:
        """Whether there is work left in it."""
        return self.status in (WAITING, RUNNING)


@dataclass(frozen=True, slots=True)
class Budget:
    """What all plans of a queue may take together; None: no limit."""

    max_hours: float | None = None
    """Hours of work of their steps."""
    max_disk_bytes: int | None = None
    """Bytes of what their steps make."""
    id: int = 0
    """Row of an agreed budget; 0 before the yes."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the steps of a budget's runs took so far."""

    seconds: float
    disk_bytes: int


def add(store: Store, plan: Mapping[str, object]) -> int:
    """Append a plan; its number in the queue."""
    values = (store.places.to_json(dict(plan)), WAITING, time.time())
    with store.write() as conn:
        return conn.execute("INSERT INTO queue (plan, status, added_at) VALUES (?, ?, ?)", values).lastrowid or 0


def entries(store: Store) -> list[QueuedPlan]:
    """All plans that were ever added, in their order."""
    return [_entry(store, row) for row in store.read("SELECT * FROM queue ORDER BY id")]


def entry(store: Store, number: int) -> QueuedPlan:
    """A plan by its number. Raises NotFound."""
    rows = store.read("SELECT * FROM queue WHERE id = ?", number)
    if not rows:
        raise NotFound(f"the queue has no plan {number}; `tunesmith queue list` shows those it has")
    return _entry(store, rows[0])


def remove(store: Store, number: int) -> QueuedPlan:
    """Take a plan that has not begun off the queue. Raises NotFound, BadInput for one that has begun."""
    found = entry(store, number)
    with store.write() as conn:
        changed = conn.execute(
            "UPDATE queue SET status = ?, ended_at = ? WHERE id = ? AND status = ? AND run IS NULL",
            (REMOVED, time.time(), number, WAITING),
        ).rowcount
    if changed:
        return entry(store, number)
    if found.status == REMOVED:
        return found
    raise BadInput(
        f"plan {number} of the queue has begun as {found.run}; `tunesmith jobs stop STEP` ends its step, and its "
        "records stay"
    )


def begin(store: Store, queued: QueuedPlan, budget: Budget) -> str:
    """Open the run of a plan and mark the plan as begun, in one transaction; the run that it has already, else."""
    plan = dict(queued.plan)
    values = {
        "name": queued.name,
        "goal": str(plan.get("goal", "")),
        "plan": store.places.to_json(plan),
        "stages": planned_stages(plan),
        "status": RUNNING,
        "created_at": time.time(),
    }
    with store.write() as conn:
        row = conn.execute("SELECT run FROM queue WHERE id = ?", (queued.id,)).fetchone()
        run = row["run"] or store._insert(conn, "runs", values)
        conn.execute(
            "UPDATE queue SET status = ?, run = ?, budget = ? WHERE id = ?", (RUNNING, run, budget.id, queued.id)
        )
    return str(run)


def leave(store: Store, number: int, status: str, note: str = "") -> None:
    """Record how a plan was left: done, failed, or waiting for the reason in `note`."""
    ended = time.time() if status in (DONE, FAILED) else None
    with store.write() as conn:
        conn.execute("UPDATE queue SET status = ?, note = ?, ended_at = ? WHERE id = ?", (status, note, ended, number))


def agreed_budget(store: Store) -> Budget | None:
    """The budget that was agreed to last, while plans that it was agreed to for are left."""
    rows = store.read("SELECT * FROM queue_budgets WHERE ended_at IS NULL ORDER BY id DESC LIMIT 1")
    return Budget(rows[0]["max_hours"], rows[0]["max_disk_bytes"], rows[0]["id"]) if rows else None


def agree(store: Store, budget: Budget, by: str) -> Budget:
    """Keep a budget as agreed to, in the place of any before it."""
    now = time.time()
    with store.write() as conn:
        conn.execute("UPDATE queue_budgets SET ended_at = ? WHERE ended_at IS NULL", (now,))
        made = conn.execute(
            "INSERT INTO queue_budgets (max_hours, max_disk_bytes, agreed_by, agreed_at) VALUES (?, ?, ?, ?)",
            (budget.max_hours, budget.max_disk_bytes, by, now),
        )
    return Budget(budget.max_hours, budget.max_disk_bytes, made.lastrowid or 0)


def end_budget(store: Store, budget: Budget) -> None:
    """Let a budget end: no plan is left that it was agreed to for."""
    with store.write() as conn:
        conn.execute("UPDATE queue_budgets SET ended_at = ? WHERE id = ?", (time.time(), budget.id))


def spent(store: Store, budget: Budget) -> Spent:
    """What the steps of this budget's runs took: their own measured seconds, and the bytes of what they made.

    A step at work counts with its price. Clocks that are set change nothing.
    """
    mine = "run IN (SELECT run FROM queue WHERE budget = ?)"
    seconds = store.read(
        "SELECT coalesce(sum(coalesce(seconds, 0) + CASE WHEN status = ? THEN estimated_seconds ELSE 0 END), 0)"
        f" AS seconds FROM steps WHERE {mine}",
        RUNNING,
        budget.id,
    )
    made = store.read(f"SELECT coalesce(sum(bytes), 0) AS bytes FROM artifacts WHERE {mine}", budget.id)
    return Spent(float(seconds[0]["seconds"]), int(made[0]["bytes"]))


def _entry(store: Store, row: sqlite3.Row) -> QueuedPlan:
    plan = store.places.from_json(row["plan"])
    return QueuedPlan(row["id"], plan, row["status"], row["run"] or "", row["note"])
