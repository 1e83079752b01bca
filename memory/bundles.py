"""What the store holds of one step, taken to a store on another machine, and what the step made there, brought back.

A store is never shared: what goes are the records that a step can ask for, as a document; what comes back is what it
made. Both are in the words of the tables, paths by their place in the home. Whoever brings a document back proves its
bytes; here it is held to the step that it is for, and a document that was applied is not applied again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.json_values import as_float, as_list, as_object
from tunesmith.memory.ledger import add_event, to_json
from tunesmith.memory.records import APPROVED, DONE, PLANNED, Step
from tunesmith.memory.store import Store
from tunesmith.memory.store_file import insert

Records = dict[str, list[dict[str, object]]]
"""Table → its rows."""

_NEEDED = """
WITH RECURSIVE needed(artifact) AS (
    SELECT artifact FROM artifacts WHERE run = ?1
    UNION SELECT value FROM steps, json_each(steps.inputs) WHERE step = ?2
    UNION SELECT parent.value FROM needed JOIN artifacts a USING (artifact), json_each(a.parents) parent
)
SELECT a.* FROM artifacts a JOIN needed USING (artifact) ORDER BY a.rowid
"""
_OF_THE_RUN = ("events", "rows", "eval_results")
_TELLING = ("eval_results", "rows", "ratings")
_PACKED = ("runs", "approvals", "steps", "artifacts", "events", "metrics", *_TELLING)
_KEYS = {"runs": "run", "steps": "step", "approvals": "approval", "artifacts": "artifact"}
_UNIQUE = {"rows": ("step", "row_id"), "eval_results": ("step", "arm", "case_id", "repeat")}
_UNIQUE |= dict.fromkeys(("marks", "ratings", "conversations"), ("id",))
RETURNED = "step.returned"
"""The event that says from where, and by which submission, what a step made was brought back."""


def as_records(document: object) -> Records:
    """The records of a document that came from elsewhere. Raises TypeError for another one."""
    return {table: [as_object(row) for row in as_list(rows)] for table, rows in as_object(document).items()}


def records_for(store: Store, step: Step) -> Records:
    """The records that a step may ask for: its run's, and of every artifact that its own were made from."""
    artifacts = _rows(store, _NEEDED, step.run, step.id)
    records: Records = {"artifacts": artifacts}
    for table in _OF_THE_RUN:
        records[table] = _without_ids(_rows(store, f"SELECT * FROM {table} WHERE run = ? ORDER BY id", step.run))
    makers = {artifact["step"] for artifact in artifacts}
    steps = _rows(store, "SELECT * FROM steps ORDER BY rowid")
    records["steps"] = [row for row in steps if row["run"] == step.run or row["step"] in makers]
    approvals = {row["approval"] for row in records["steps"] if row["approval"]}
    runs = {row["run"] for row in records["steps"]}
    records["approvals"] = [row for row in _rows(store, "SELECT * FROM approvals") if row["approval"] in approvals]
    records["runs"] = [row for row in _rows(store, "SELECT * FROM runs") if row["run"] in runs]
    records["marks"] = _rows(store, "SELECT * FROM marks ORDER BY id")
    for row in records["steps"]:
        if row["step"] == step.id:  # it waits for its worker there
            status = APPROVED if row["approval"] else PLANNED
            row["plan"] = to_json({**json.loads(str(row["plan"])), "on": ""})  # where it goes it is at home
            row |= {"status": status, "pid": None, "pid_started": None, "finished_at": None, "error": None}
    for row in records["approvals"]:
        if row["step"] == step.id:
            row["used_at"] = None
    return records


_OF_A_RUN = """
WITH RECURSIVE needed(artifact) AS (
    SELECT artifact FROM artifacts WHERE run = ?1
    UNION SELECT a.artifact FROM artifacts a, events e
        WHERE e.event = 'blind.opened' AND a.sha256 = json_extract(e.data, '$.model')
    UNION SELECT parent.value FROM needed JOIN artifacts a USING (artifact), json_each(a.parents) parent
)
SELECT a.* FROM artifacts a JOIN needed USING (artifact) ORDER BY a.rowid
"""


def records_of_run(store: Store, run: str) -> Records:
    """The records of one run, and of other runs what its verdict counts: artifacts that its own were made from, and
    which trainings were asked blind cases."""
    artifacts = _rows(store, _OF_A_RUN, run)
    makers = {artifact["step"] for artifact in artifacts}
    steps = [
        row for row in _rows(store, "SELECT * FROM steps ORDER BY rowid") if row["run"] == run or row["step"] in makers
    ]
    approvals = {row["approval"] for row in steps if row["approval"]}
    runs = {row["run"] for row in steps} | {run}
    events = _rows(store, "SELECT * FROM events WHERE run = ? OR event = 'blind.opened' ORDER BY id", run)
    mine = {table: _rows(store, f"SELECT * FROM {table} WHERE run = ? ORDER BY id", run) for table in _TELLING}
    metrics = "SELECT * FROM metrics WHERE step IN (SELECT step FROM steps WHERE run = ?) ORDER BY id"
    return {
        "runs": [row for row in _rows(store, "SELECT * FROM runs ORDER BY rowid") if row["run"] in runs],
        "approvals": [row for row in _rows(store, "SELECT * FROM approvals") if row["approval"] in approvals],
        "steps": steps,
        "artifacts": artifacts,
        "events": _without_ids(events),
        "metrics": _without_ids(_rows(store, metrics, run)),
        **{table: _without_ids(rows) for table, rows in mine.items()},
    }


def put_run(store: Store, records: Records) -> None:
    """Write the records of a run into an empty store. Raises StepFailed for columns that it does not have."""
    _refuse_other_columns(store, records)
    with store.write() as conn:
        conn.execute("PRAGMA defer_foreign_keys=ON")
        for table in _PACKED:
            for row in records.get(table, []):
                _put(conn, table, row)


def put_down(store: Store, step: str, records: Records) -> None:
    """Write what was taken into the store of another machine, for its own worker to claim the step.

    What an earlier attempt recorded there stays; a yes that was used there stays used.
    """
    with store.write() as conn:
        conn.execute("PRAGMA defer_foreign_keys=ON")
        conn.execute("DELETE FROM artifacts WHERE step = ?", (step,))  # published again from the step's own folder
        conn.execute("DELETE FROM marks")
        for table in ("runs", "approvals", "steps", "artifacts", "marks", *_OF_THE_RUN):
            rows = records.get(table, [])
            if table == "events":
                known = conn.execute("SELECT count(*) FROM events").fetchone()[0]
                rows = [] if known else rows
            for row in rows:
                _put(conn, table, row)


def _put(conn: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    if table in ("runs", "steps", "artifacts"):
        insert(conn, table, row, then=_replaces([_KEYS[table]], row))
    else:
        insert(conn, table, row, how="INSERT OR IGNORE")


def new_records(store: Store, step: Step, before: Records) -> Records:
    """What a step that is done made: its own records, and the rows of its run that it changed."""
    known = {_key("rows", row): row for row in before.get("rows", [])}
    rows = _without_ids(_rows(store, "SELECT * FROM rows WHERE run = ? ORDER BY id", step.run))
    records = {
        table: _without_ids(_rows(store, f"SELECT * FROM {table} WHERE step = ? ORDER BY rowid", step.id))
        for table in ("steps", "artifacts", "events", "metrics", "eval_results")
    }
    records["events"] = [row for row in records["events"] if row not in before.get("events", [])]
    return {**records, "rows": [row for row in rows if known.get(_key("rows", row)) != row]}


def bring_back(store: Store, step: Step, records: Records, *, submission: str, later_s: float) -> dict[str, object]:
    """Record what a step made elsewhere, in one transaction, and return its result with its artifacts' ids here.

    `later_s` is how far the clock here is ahead of the one there. Raises StepFailed for records of anything else.
    """
    _refuse_others(step, records)
    _refuse_other_columns(store, records)
    ids: dict[str, str] = {}
    with store.write() as conn:
        done = conn.execute("SELECT data FROM events WHERE step = ? AND event = ?", (step.id, RETURNED)).fetchall()
        reported = next((data for row in done if (data := json.loads(row["data"]))["submission"] == submission), None)
        if reported is None:
            for row in records["artifacts"]:
                there = str(row.pop("artifact"))
                row["parents"] = to_json([ids.get(parent, parent) for parent in json.loads(str(row["parents"]))])
                row["meta"] = renamed(str(row["meta"]), ids)
                row["created_at"] = as_float(row["created_at"]) + later_s
                # The store's own way to a new id; `add_artifact` would make a record of now.
                ids[there] = store._insert(conn, "artifacts", row)
            for table in ("events", "metrics", "eval_results", "rows"):
                for row in records[table]:
                    changed: dict[str, object] = {"at": as_float(row["at"]) + later_s} if "at" in row else {}
                    changed |= {"data": renamed(str(row["data"]), ids)} if table == "events" else {}
                    put_back(conn, table, {**row, **changed})
            reported = {"submission": submission, "artifacts": ids}
            add_event(conn, step.run, step.id, RETURNED, to_json(reported))
    result = renamed(str(records["steps"][0]["result"] or "{}"), reported["artifacts"])
    return as_object(store.places.from_json(result))


def put_back(conn: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    """Insert a row; one that is there under the same key becomes what it was made there."""
    keys = _UNIQUE.get(table)
    insert(conn, table, row, then=_replaces(keys, row) if keys else "")


def _replaces(keys: Iterable[str], row: Iterable[str]) -> str:
    return f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in row)}"


def _refuse_others(step: Step, records: Records) -> None:
    """What comes back is of this step, and says that it was done. Raises StepFailed."""
    expected = {"steps", "artifacts", "events", "metrics", "eval_results", "rows"}
    own = [row for table, rows in records.items() if table != "rows" for row in rows]
    foreign = [row for row in own if row.get("step") != step.id]
    foreign += [row for row in (*records.get("rows", ()), *own) if row.get("run", step.run) != step.run]
    if set(records) != expected or foreign or [row["status"] for row in records["steps"]] != [DONE]:
        raise StepFailed(f"what came back for {step.id} holds records of something else; nothing of it was recorded")


def _refuse_other_columns(store: Store, records: Records) -> None:
    """The names in a document become part of a statement, so each has to be a column's. Raises StepFailed."""
    if odd := odd_column(store, records):
        raise StepFailed(f"what came back has {odd}; nothing of it was recorded")


def odd_column(store: Store, records: Records) -> str:
    """A name among records that is no column of its table, and that in words; empty where all are."""
    for table, rows in records.items():
        columns = {row["name"] for row in store.read("SELECT name FROM pragma_table_info(?)", table)}
        if odd := next((name for row in rows for name in row if name not in columns), None):
            return f"{odd[:40]!r}, which {table} do not have"
    return ""


def renamed(text: str, ids: Mapping[str, str]) -> str:
    """The JSON text of a document in which artifacts that another store recorded have their ids here."""
    return to_json(_renamed(json.loads(text), ids)) if ids else text


def _renamed(value: object, ids: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        return {name: _renamed(item, ids) for name, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, ids) for item in value]
    return ids.get(value, value) if isinstance(value, str) else value


def _key(table: str, row: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(row[name] for name in _UNIQUE[table])


def _rows(store: Store, sql: str, *values: object) -> list[dict[str, object]]:
    return [dict(row) for row in store.read(sql, *values)]


def _without_ids(rows: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """Without the numbers that each store gives for itself."""
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]
