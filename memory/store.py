"""tunesmith's memory: one SQLite file that holds every run, step, approval, number and artifact."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict

from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.ledger import Ledger, add_event, to_json
from tunesmith.memory.records import KEEP, Artifact, AssertionResult, EvalResult, TrainingRow, Verdict
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.memory.store_file import insert

_DROP = "drop"


class Store(Ledger):
    """The whole store: the ledger of steps, and what they leave behind."""

    def event(self, event: str, *, run: str | None = None, step: str | None = None, **data: object) -> None:
        """Append to the history of what happened."""
        with self.write() as conn:
            add_event(conn, run, step, event, self.places.to_json(data))

    def metric(self, step: str, name: str, x: float, value: float) -> None:
        """Append a point to a curve of a step, for example loss at optimiser step x."""
        self.add_metrics(step, [(name, x, value, time.time())])

    def add_metrics(
        self, step: str, points: Sequence[tuple[str, float, float, float]], *, wait_s: float | None = None
    ) -> None:
        """Append points (curve, x, value, time) in one transaction."""
        with self.write(wait_s=wait_s) as conn:
            conn.executemany(
                "INSERT INTO metrics (step, name, x, value, at) VALUES (?, ?, ?, ?, ?)",
                [(step, *point) for point in points],
            )

    def metrics(self, step: str, name: str) -> list[tuple[float, float]]:
        """A curve of a step as (x, value), by x; of a point measured twice (after a resume) the later one."""
        rows = self.read("SELECT x, value FROM metrics WHERE step = ? AND name = ? ORDER BY x, id", step, name)
        return list({row["x"]: (row["x"], row["value"]) for row in rows}.values())

    def add_artifact(self, artifact: Artifact) -> Artifact:
        """Record an artifact (its id is given here); the same path and digest again is the same artifact."""
        path = self.places.stored(str(artifact.path))
        same = self.read(
            "SELECT * FROM artifacts WHERE step = ? AND path = ? AND sha256 = ?", artifact.step, path, artifact.sha256
        )
        if same:
            return Artifact.of(same[0], self.places)
        values = picked(artifact, "run", "step", "kind", "sha256", "bytes") | {"path": path, "created_at": time.time()}
        values |= {"parents": to_json(list(artifact.parents)), "meta": self.places.to_json(artifact.meta)}
        with self.write() as conn:
            identity = self._insert(conn, "artifacts", values)
        return self.artifact(identity)

    def artifact(self, artifact: str) -> Artifact:
        """The artifact with this id. Raises NotFound."""
        rows = self.read("SELECT * FROM artifacts WHERE artifact = ?", artifact)
        if not rows:
            raise NotFound(f"no artifact {artifact!r}; `tunesmith runs show RUN` lists them")
        return Artifact.of(rows[0], self.places)

    def artifacts(self, run: str, kind: str | None = None) -> list[Artifact]:
        """Artifacts of a run, the oldest first."""
        rows = self.read(
            "SELECT * FROM artifacts WHERE run = ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY rowid",
            run,
            kind,
        )
        return [Artifact.of(row, self.places) for row in rows]

    def newest_of_kind(self, kind: str) -> list[Artifact]:
        """Artifacts of a kind, whatever run made them, the newest first."""
        rows = self.read("SELECT * FROM artifacts WHERE kind = ? ORDER BY rowid DESC", kind)
        return [Artifact.of(row, self.places) for row in rows]

    def copies_of(self, source: str, revision: str, kind: str | None = None) -> list[Artifact]:
        """Artifacts that were taken from one place (a folder, or a hub id at a revision), the oldest first."""
        rows = self.read(
            "SELECT * FROM artifacts WHERE json_extract(meta, '$.source') = ?1"
            " AND json_extract(meta, '$.revision') = ?2 AND (?3 IS NULL OR kind = ?3) ORDER BY rowid",
            self.places.stored(source),
            revision,
            kind,
        )
        return [Artifact.of(row, self.places) for row in rows]

    def ancestor(self, artifact: Artifact, kind: str) -> Artifact | None:
        """The nearest artifact of a kind that this one was made from, directly or not; None where there is none."""
        rows = self.read(
            "SELECT ancestor FROM v_lineage"
            " WHERE artifact = ? AND ancestor_kind = ? AND depth > 0 ORDER BY depth LIMIT 1",
            artifact.id,
            kind,
        )
        return self.artifact(rows[0]["ancestor"]) if rows else None

    def add_results(
        self, run: str, step: str, results: Sequence[EvalResult], *, replaces_other_keys: bool = False
    ) -> None:
        """Record answered cases in one transaction; a case that is there already replaces an error, nothing else.

        With `replaces_other_keys` it also replaces what was answered under another key: to another question, that is.
        """
        with self.write() as conn:
            for result in results:
                conn.execute(
                    "DELETE FROM eval_results"
                    " WHERE step = ? AND arm = ? AND case_id = ? AND repeat = ?"
                    " AND (passed IS NULL OR (? AND key_hash <> ?))",
                    (step, result.arm, result.case_id, result.repeat, replaces_other_keys, result.key_hash),
                )
                values = {name: getattr(result, name) for name in EvalResult.__dataclass_fields__}
                values["tool_calls"] = to_json(result.tool_calls)
                values["assertions"] = to_json([asdict(assertion) for assertion in result.assertions])
                values |= {"run": run, "step": step, "at": time.time()}
                insert(conn, "eval_results", values, how="INSERT OR IGNORE")

    def results(self, step: str, arm: str | None = None) -> list[EvalResult]:
        """The answered cases of a step, in the order they came."""
        rows = self.read(
            "SELECT * FROM eval_results WHERE step = ?1 AND (?2 IS NULL OR arm = ?2) ORDER BY id", step, arm
        )
        return [_eval_result(row) for row in rows]

    def add_rows(self, run: str, step: str, rows: Sequence[TrainingRow]) -> None:
        """Record candidate training rows, all or none; one that is there already (after a resume) is left alone.

        Raises BadInput where a row of that id holds another conversation: one of the two would be seen by nobody.
        """
        with self.write() as conn:
            for row in rows:
                talk = to_json(row.prompt), to_json(row.completion)
                values = {"run": run, "step": step, **picked(row, "row_id", "origin", "split")}
                values |= {"attributes": to_json(row.attributes.as_json()), "prompt": talk[0], "completion": talk[1]}
                values |= zip(("verdict", "kind", "reason"), _verdict_columns(row.verdict), strict=True)
                if not insert(conn, "rows", values, how="INSERT OR IGNORE"):
                    same = "SELECT prompt, completion FROM rows WHERE step = ? AND row_id = ?"
                    if tuple(conn.execute(same, (step, row.row_id)).fetchone()) != talk:
                        raise BadInput(
                            f"{step} has a row {row.row_id!r} already, with another text; run the step anew, so that "
                            "both get ids of their own"
                        )

    def judge_rows(self, step: str, rows: Sequence[TrainingRow]) -> None:
        """Record what critique decided about the rows of a generating step, and put right in them, all or nothing."""
        columns = "verdict = ?, kind = ?, reason = ?, split = ?, attributes = ?, completion = ?"
        with self.write() as conn:
            for row in rows:
                texts = row.split, to_json(row.attributes.as_json()), to_json(row.completion)
                values = (*_verdict_columns(row.verdict), *texts, step, row.row_id)
                conn.execute(f"UPDATE rows SET {columns} WHERE step = ? AND row_id = ?", values)

    def rows(self, step: str, *, verdict: str | None = None) -> list[TrainingRow]:
        """Rows of a generating step, in the order they were written."""
        records = self.read(
            "SELECT * FROM rows WHERE step = ?1 AND (?2 IS NULL OR verdict = ?2) ORDER BY id", step, verdict
        )
        return [
            TrainingRow(
                row_id=r["row_id"],
                origin=r["origin"],
                prompt=json.loads(r["prompt"]),
                completion=json.loads(r["completion"]),
                attributes=RowAttributes.of(json.loads(r["attributes"])),
                split=r["split"],
                verdict=_verdict(r),
            )
            for r in records
        ]


def _verdict_columns(verdict: Verdict | None) -> tuple[str, str, str]:
    """verdict, kind and reason, as the table keeps them: `keep` or `drop`, and what a row was dropped for."""
    if verdict is None:
        return "", "", ""
    return (KEEP, "", verdict.reason) if verdict.keeps else (_DROP, verdict.kind, verdict.reason)


def _verdict(row: sqlite3.Row) -> Verdict | None:
    return Verdict(row["kind"] or row["verdict"], row["reason"]) if row["verdict"] else None


def _eval_result(row: sqlite3.Row) -> EvalResult:
    values = {name: row[name] for name in EvalResult.__dataclass_fields__}
    values["passed"] = None if row["passed"] is None else bool(row["passed"])
    values["tool_calls"] = json.loads(row["tool_calls"])
    values["assertions"] = [
        AssertionResult(stored["type"], stored["passed"], stored["score"], stored["reason"])
        for stored in json.loads(row["assertions"])
    ]
    return EvalResult(**values)
