"""What outlives the store, a record of each step and a journal of what people said, and how a store takes it back.

The record is written once the step is done: its rows of the store, beside the folders and files that it sealed. Steps
keep their ids, for no store gives one anew that a folder bears; artifacts and approvals get new ones. A yes comes back
as a used one, which starts nothing.

A journal gets each row of a table of people's words as a line, after its commit and after each change: marks and
ratings in the folder of their run, conversations in the home. In it an artifact is named by step, digest and place. A
row comes back under its id, and only where the line knows more of it than the store: the same lines again add nothing.
A line is trusted as a record is: who can write into the home can write what a person said there.

Not covered: approvals of a step that is not whole, words whose line could not be written, words and approvals of before
this version, and the queue.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tunesmith.memory.bundles import Records, as_records, new_records, odd_column, put_back, renamed
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import append, atomic_write, read_manifest, sha256_file, verify
from tunesmith.memory.json_values import as_list, as_object
from tunesmith.memory.ledger import add_event, to_json
from tunesmith.memory.numbering import folders
from tunesmith.memory.records import DONE, WAITING
from tunesmith.memory.store import Store
from tunesmith.memory.store_file import Values, insert, new_id

RECORD = "record.json.gz"
RECOVERED = "step.recovered"
"""The event that says of which store a step was, and which id each of its artifacts had there."""
_RECORD_BYTES = 1 << 28
"""Of a record as it is read: a step of 100,000 rows stays below it."""
_OF_A_STEP = ("runs", "approvals", "steps", "artifacts", "events", "metrics", "eval_results", "rows")
_OF_ANOTHER_STORE = ("approval", "pid", "pid_started", "boot_id", "pid_ticks", "host", "pid_namespace")
_MARK = " (recovered)"
_SAME_EVENT = "SELECT 1 FROM events WHERE run = :run AND step IS :step AND at = :at AND event = :event"
_ARTIFACTS = ("first_artifact", "last_artifact", "training")
_NAMES = "SELECT step || ' ' || sha256 || ' ' || path AS name, artifact FROM artifacts"
_NO_ROW = (ValueError, TypeError, OverflowError, RecursionError, sqlite3.IntegrityError, sqlite3.ProgrammingError)
"""What a line raises that was cut off or changed, or that holds something else."""
_CLOSED = "(The store was lost since. An id in this conversation may be another step's or artifact's by now.)"
"""Stands for the turns of a conversation that came back, as a summary does: nothing in it waits for a yes any more."""
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
    records["approvals"] = [dict(row) for row in store.read("SELECT * FROM approvals WHERE step = ?", step)]
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
        whole = {*records, "approvals"} == {*_OF_A_STEP} and len(records["steps"]) == len(records["runs"]) == 1
        own = all(one["step"] == folder.name for one in records.get("approvals", ()))  # an earlier version kept none
        if not whole or not own or (row["run"], row["step"], row["status"]) != (run, folder.name, DONE):
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
    for row in left.records.get("approvals", ()):
        used = row["used_at"] or (row["decided_at"] if row["decision"] == "yes" else None)
        decided = store._insert(conn, "approvals", {**row, "used_at": used})
        unknown |= {"approval": decided} if row["approval"] == step["approval"] else {}
    artifacts = {}
    for row in left.records["artifacts"]:
        there = str(row["artifact"])
        parents = [one for one in as_list(json.loads(str(row["parents"]))) if one in ids]
        values = _renamed({**row, "parents": to_json(parents)}, ids)
        artifacts[there] = ids[there] = store._insert(conn, "artifacts", values)
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


def say(store: Store, table: str, row: Values) -> int:
    """Add a row of a person's words to the store, and then to its journal; its id."""
    with store.write() as conn:
        rows = insert(conn, table, {"id": new_id(conn, table), **row})
    keep_words(store, table, rows)
    return int(rows[0]["id"])


def keep_words(store: Store, table: str, rows: Sequence[sqlite3.Row]) -> None:
    """Append rows of one run to its journal, to a new one all that there are; one that takes nothing is told once."""
    if not rows:
        return
    run = dict(rows[0]).get("run", "")
    if not (file := _journal(store, table, run)).exists():
        rows = store.read(f"SELECT * FROM {table} WHERE {'run' if run else '?1'} = ?1 ORDER BY id", run)
    lines, names = [*map(dict, rows)], {row["artifact"]: row["name"] for row in store.read(_NAMES)}
    for line in lines:
        line |= {name: names.get(line[name], line[name]) for name in _ARTIFACTS if name in line}
    try:
        append(file, map(to_json, lines))
    except OSError as error:
        store.tell(f"{file} takes nothing ({error.strerror}): what you say is in {store.path} alone; keep a copy of it")
        store.tell = lambda line: None


def _journal(store: Store, table: str, run: str) -> Path:
    return (store.home / "runs" / run if run else store.home) / f"{table}.jsonl"


def bring_back(store: Store, runs: Sequence[str]) -> tuple[set[tuple[str, object]], set[tuple[str, object, str]]]:
    """Put what was said of these runs, and each conversation, back where the store does not have it.

    What came back by its kind, and what did not with the reason; a line that is no row is of the kind `lines`.
    """
    back: set[tuple[str, object]] = set()
    missed: set[tuple[str, object, str]] = set()
    known = {row["name"]: row["artifact"] for row in store.read(_NAMES)}
    with store.write() as conn:
        for table, run in [*product(("marks", "ratings"), runs), ("conversations", "")]:
            file, row = _journal(store, table, run), dict[str, object]()
            for number, line in enumerate(filter(None, file.read_bytes().split(b"\n")) if file.is_file() else ()):
                try:
                    row = as_object(json.loads(line))
                    if _put_words(conn, table, run, row, known):
                        back.add((table, row.get("conversation", row["id"])))
                except KeyError as lost:
                    missed.add((table, row["id"], f"{str(lost.args[0]).partition(' ')[0]} is not whole"))
                except _NO_ROW:
                    missed.add(("lines", (file, number), f"damaged, in {file.name}"))
        for conversation in (one for table, one in back if table == "conversations"):
            closed = {"conversation": conversation, "at": 0.0, "role": "summary", "content": _CLOSED}
            insert(conn, "conversations", {"id": new_id(conn, "conversations"), **closed})
    return back, missed


def _put_words(conn: sqlite3.Connection, table: str, run: str, row: Values, known: Mapping[str, str]) -> bool:
    """Whether a line tells of its row what is not there. Raises KeyError for a name that is not known here."""
    found = conn.execute(f"SELECT * FROM {table} WHERE id = ?", (row.get("id"),))
    columns, here = {column[0] for column in found.description}, found.fetchone()
    if type(row.get("id")) is not int or row.get("run", "") != run or not set(row) <= columns:
        raise ValueError
    names = {one: known[str(row[one])] for one in _ARTIFACTS if one in row}
    if new := here is None or [*here].count(None) > [*row.values()].count(None):
        put_back(conn, table, {**row, **names})
    return new
