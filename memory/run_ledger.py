"""Runs, as far as one needs no step to tell of them.

A run is listed once it follows a written plan or a step of it began. One that a price alone has opened is nobody's run
yet, and serves the next price.
"""

from __future__ import annotations

import time

from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import ASIDE_RUNS, DONE, RUNNING, WAITING, Refusal, Run, StepCounts, planned_stages
from tunesmith.memory.store_file import StoreFile
from tunesmith.memory.views import IS_LISTED


class RunLedger(StoreFile):
    """The life of runs."""

    def new_run(self, name: str, *, goal: str = "", plan: dict[str, object] | None = None) -> str:
        """Open a run and return its id."""
        values = {
            "name": name,
            "goal": goal,
            "plan": self.places.to_json(plan or {}),
            "stages": planned_stages(plan or {}),
            "status": RUNNING,
            "created_at": time.time(),
        }
        with self.write() as conn:
            return self._insert(conn, "runs", values)

    def run_for_a_price(self, name: str) -> str:
        """A run in which nothing has begun, under this name: the newest that was opened by a price alone, or a new one.

        A model that was only asked about leaves no run behind for each time.
        """
        aside = ", ".join(f"'{other}'" for other in ASIDE_RUNS)
        rows = self.read(
            f"SELECT run FROM runs r WHERE NOT {IS_LISTED} AND (name = ?1 OR (?1 NOT IN ({aside}) AND name NOT IN"
            f" ({aside}))) ORDER BY rowid DESC LIMIT 1",
            name,
        )
        run = str(rows[0]["run"]) if rows else self.new_run(name)
        with self.write() as conn:
            conn.execute(
                "UPDATE runs SET name = ?, status = ?, created_at = ? WHERE run = ?", (name, WAITING, time.time(), run)
            )
        return run

    def set_run_status(self, run: str, status: str) -> None:
        """Record where a run stands; an end also gets its time."""
        ended = None if status == RUNNING else time.time()
        with self.write() as conn:
            conn.execute("UPDATE runs SET status = ?, finished_at = ? WHERE run = ?", (status, ended, run))

    def run(self, run: str) -> Run:
        """The run with this id. Raises NotFound, naming the newest ones."""
        rows = self.read("SELECT * FROM runs WHERE run = ?", run)
        if not rows:
            known = ", ".join(r.id for r in self.runs()[:5]) or "none yet"  # a line; the newest are what is meant
            raise NotFound(f"no run {run!r}; the newest are: {known}")
        return Run.of(rows[0], self.places)

    def runs(self) -> list[Run]:
        """All runs that follow a plan or have begun, the newest first."""
        rows = self.read(f"SELECT r.* FROM runs r WHERE {IS_LISTED} ORDER BY r.rowid DESC")
        return [Run.of(row, self.places) for row in rows]

    def step_counts(self, run: str) -> StepCounts:
        """How many steps of a run are done, and of how many."""
        rows = self.read("SELECT steps_done, steps FROM v_runs WHERE run = ?", run)
        return StepCounts(*rows[0]) if rows else StepCounts(0, 0)

    def refusal(self, run: str) -> Refusal | None:
        """The gate's refusal that ended a run's plan; None for another end, and once the plan was carried out."""
        rows = self.read(
            "SELECT json_extract(e.data, '$.stage') AS stage, json_extract(e.data, '$.reason') AS reason FROM events e"
            " JOIN v_runs v ON v.run = e.run AND v.status = ? AND v.steps_done < v.steps"
            " WHERE e.run = ? AND e.event = 'gate.refused' ORDER BY e.id DESC LIMIT 1",
            DONE,
            run,
        )
        return Refusal(*rows[0]) if rows else None

    def status_words(self, run: Run) -> str:
        """Where a run stands, as people are told."""
        refusal = self.refusal(run.id)
        return f"{run.status}, {refusal.brief}" if refusal else run.status

    def newest_run(self) -> Run | None:
        """The run that is meant where none is named; the one that fetched the driver is nobody's work."""
        return next((run for run in self.runs() if run.name not in ASIDE_RUNS), None)
