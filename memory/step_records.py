"""What a step leaves of its records in its own folder, and how a store that lost them takes them back.

The record is written once the step is done: its rows of the store, beside the folders and files that it sealed. Steps
keep their ids, for no store gives one anew that a folder bears; artifacts get new ones. Not covered: what was said
after the step ended (marks, ratings, conversations), and approvals, whose rows stay with the store that had them.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.bundles import Records, as_records, new_records, odd_column, put_back, renamed
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write, read_manifest, sha256_file, verify
from tunesmith.memory.json_values import as_list, as_object
from tunesmith.memory.ledger import add_event, to_json
from tunesmith.memory.numbering import folders
from tunesmith.memory.records import DONE, WAITING
from tunesmith.memory.store import Store

RECORD = "record.json.gz"
RECOVERED = "step.recovered"
"""The event that says of which store a step was, and which id each of its artifacts had there."""
_RECORD_BYTES = 1 << 28
"""Of a record as it is read: a step of 100,000 rows stays below it."""
_OF_A_STEP = ("runs", "steps", "artifacts", "events", "metrics", "eval_results", "rows")
_OF_ANOTHER_STORE = ("approval", "pid", "pid_started", "boot_id", "pid_ticks", "host", "pid_namespace")
_MARK = " (recovered)"
_SAME_EVENT = "SELECT 1 FROM events WHERE run = :run AND step IS :step AND at = :at AND event = :event"
_DOCUMENTS = ("request", "plan", "inputs", "result", "parents", "meta", "data")


@dataclass(frozen=True, slots=True)
class LeftStep:
    """A folder of a step that the store does not know."""

    run: str
    step: str
    folder: Path
    kinds: tuple[str, ...] = ()
    """Of the sealed folders in it."""
    plan: str = ""
    """The hash of the plan that they were sealed for."""
    store: str = ""
    records: Records | None = None
    why_not: str = ""
    """What keeps it from being taken back; empty: nothing that a look without hashing finds."""

    @property
    def bytes(self) -> int:
        """What of it has to be hashed, as its record says."""
        return sum(int(str(row["bytes"])) for row in (self.records or {}).get("artifacts", ()))


def keep_record(store: Store, step: str, folder: Path) -> None:
    """Write what the store holds of a step that is done into the step's folder. Raises OSError."""
    record = store.step(step)
    records = new_records(store, record, {})
    records["runs"] = [dict(row) for row in store.read("SELECT * FROM runs WHERE run = ?", record.run)]
    of_the_run = store.read("SELECT run, step, at, event, data FROM events WHERE run = ? AND step IS NULL", record.run)
    records["events"] += [dict(row) for row in of_the_run]  # such as that its blind cases were opened
    document = to_json({"store": store.identity, "records": records})
    atomic_write(folder / RECORD, gzip.compress(document.encode(), compresslevel=5, mtime=0))


def left_steps(store: Store) -> list[LeftStep]:
    """Steps that the store does not know and that left something whole, by their numbers; nothing is hashed."""
    known = {row["step"] for row in store.read("SELECT step FROM steps")}
    runs = folders(store.home / "runs", "r")
    left = [_left(run.name, folder) for run in runs for folder in folders(run, "s") if folder.name not in known]
    return sorted((one for one in left if one.kinds or one.records), key=lambda one: int(one.step[1:]))


def _left(run: str, folder: Path) -> LeftStep:
    seals = [manifest for path in sorted(folder.iterdir()) if (manifest := read_manifest(path)) is not None]
    kinds = tuple(str(seal.get("kind", "")) for seal in seals)
    plan, store = (str(seals[0].get(name, "")) if seals else "" for name in ("plan", "store"))
    try:
        with gzip.open(folder / RECORD) as file:
            document = as_object(json.loads(file.read(_RECORD_BYTES)))  # what is cut off there is no JSON
        store, records = str(document["store"]), as_records(document["records"])
        row = records["steps"][0]
        whole = set(records) == set(_OF_A_STEP) and len(records["steps"]) == len(records["runs"]) == 1
        if not whole or (row["run"], row["step"], row["status"]) != (run, folder.name, DONE):
            raise ValueError
        return LeftStep(run, folder.name, folder, kinds, str(row["plan_hash"]), store, records)
    except FileNotFoundError:
        why = "no record lies beside it: the step did not end, or an earlier version made it"
    except (OSError, EOFError, zlib.error, ValueError, KeyError, IndexError, TypeError):
        why = f"its {RECORD} is damaged"
    return LeftStep(run, folder.name, folder, kinds, plan, store, why_not=why)


def damage(store: Store, left: LeftStep) -> str:
    """Why a step cannot be taken back, after every byte of its artifacts was hashed; empty where it can."""
    if left.records is None:
        return left.why_not
    if odd := odd_column(store, left.records):
        return f"its record holds {odd}"
    for row in left.records["artifacts"]:
        path, sha256 = store.places.path(str(row["path"])), str(row["sha256"])
        try:
            if path.is_dir():
                verify(path, sha256)
            elif sha256_file(path) != sha256:
                return f"{path} changed since it was recorded"
        except (StepFailed, OSError) as error:
            return str(error)
    return ""


def take_back(store: Store, whole: Sequence[LeftStep]) -> list[str]:
    """Record steps whose bytes were proven, in one transaction; the ids of those that were not there yet."""
    added = []
    with store.write() as conn:
        conn.execute("PRAGMA defer_foreign_keys=ON")
        for left in sorted(whole, key=lambda one: int(one.step[1:])):
            if not conn.execute("SELECT 1 FROM steps WHERE step = ?", (left.step,)).fetchone():
                _put_step(store, conn, left)
                added.append(left.step)
    return added


def _put_step(store: Store, conn: sqlite3.Connection, left: LeftStep) -> None:
    assert left.records is not None
    ids = dict(_earlier_ids(conn, left.store))
    (run,), (step,) = left.records["runs"], left.records["steps"]
    if not conn.execute("SELECT 1 FROM runs WHERE run = ?", (left.run,)).fetchone():
        name = str(run["name"]).removesuffix(_MARK) + _MARK
        put_back(conn, "runs", {**run, "name": name, "status": WAITING, "finished_at": None})
    inputs = {name: one for name, one in as_object(json.loads(str(step["inputs"]))).items() if one in ids}
    unknown = {**dict.fromkeys(_OF_ANOTHER_STORE), "inputs": to_json(inputs), "announced": 1, "note": "recovered"}
    artifacts = {}
    for row in left.records["artifacts"]:
        there = str(row["artifact"])
        parents = [one for one in as_list(json.loads(str(row["parents"]))) if one in ids]
        values = {name: value for name, value in row.items() if name != "artifact"} | {"parents": to_json(parents)}
        artifacts[there] = ids[there] = store._insert(conn, "artifacts", _renamed(values, ids))
    put_back(conn, "steps", _renamed({**step, **unknown}, ids))
    for table in ("events", "metrics", "eval_results", "rows"):
        for row in left.records[table]:
            if table != "events" or not conn.execute(_SAME_EVENT, row).fetchone():
                put_back(conn, table, _renamed(row, ids))
    add_event(conn, left.run, left.step, RECOVERED, to_json({"store": left.store, "artifacts": artifacts}))


def _earlier_ids(conn: sqlite3.Connection, store: str) -> Iterator[tuple[str, str]]:
    """Id of an artifact in another store → its id here, of what was taken back from that one."""
    for row in conn.execute("SELECT data FROM events WHERE event = ? ORDER BY id", (RECOVERED,)).fetchall():
        if (data := json.loads(row["data"]))["store"] == store:
            yield from data["artifacts"].items()


def _renamed(row: Mapping[str, object], ids: Mapping[str, str]) -> dict[str, object]:
    """A row in whose documents each artifact has its id here."""
    return {name: renamed(str(value), ids) if name in _DOCUMENTS and value else value for name, value in row.items()}
