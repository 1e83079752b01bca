"""A stranger's files of rows, read in a confined child: what they look like, and then every row of them.

The child parses, converts and counts; what reaches the caller's process is rows within bounds, and nothing of a file
that is none. `look` and `take` are the child's side; `inspect_files` and `rows_of` start it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.memory.confined import Limits, OverLimits, confined, confined_answer
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.data.import_formats import Inspection, Problem, convert_one, inspect_records
from tunesmith.tools.data.import_records import Record, column_records, columns_of, text_records
from tunesmith.tools.data.import_sources import COLUMNAR

LOOKED_AT, _LOOKED_AT_BYTES = 200, 16 << 20
MAX_TAKEN_BYTES = 256 << 20
"""Of text that one import takes, about 60 million tokens: all of it is in memory while it is written."""
CHILD_BYTES = 1 << 30
"""Address space of the child; a JSON document of the most that is read takes about half of it."""
_BASE_S, _S_PER_MB = 20.0, 0.5
_REMEDY = "take fewer records with --limit, or write the rows as JSONL, one record a line"


class Look(NamedTuple):
    """What the first records of a source look like, and how much the whole of it comes to."""

    inspection: Inspection
    records: int
    """In all files, as far as a limit lets them be read: counted by a footer, else by the size of the first ones."""
    read_bytes: int
    """Of these, decoded."""
    taken_bytes: int
    """Of their rows."""
    left_out: tuple[str, ...] = ()
    """Columns that are not read."""


class Taken(NamedTuple):
    """What came of a whole source."""

    format: str
    records: int
    lines: int
    """Records, where one that swallowed others counts as all of them."""


class Stopped(BadInput):
    """The rows of a source cannot be taken as its first records look now."""


def inspect_files(files: Sequence[Path], bytes_: int, mapping: Mapping[str, str], limit: int) -> Look:
    """Look at the first records. Raises BadInput for what cannot be read, is empty, or costs too much to look at."""
    first = files[0]
    argument = {"file": str(first), "mapping": dict(mapping)}
    with _remedied():
        found = confined_answer(look, argument, f"the beginning of {first}", Limits(_BASE_S, CHILD_BYTES))
    inspection = Inspection(**{**found["inspection"], "problems": _problems(found["inspection"]["problems"])})
    mean = found["bytes"] / found["looked_at"]
    by_size = max(found["looked_at"], first.stat().st_size / mean)
    in_first = by_size if found["records"] is None else found["records"]
    records = min(limit, round(in_first * max(1.0, bytes_ / max(1, first.stat().st_size))))
    taken = found["taken"] / found["looked_at"]
    return Look(inspection, records, int(records * mean), int(records * taken), tuple(found["left_out"]))


def rows_of(
    files: Sequence[Path], mapping: Mapping[str, str], limit: int, most_bytes: int
) -> Iterator[TrainingRow | Problem | Taken]:
    """Every row of the files and every record that is none, as they are read, and at last what came of it.

    Their ids are as the records give them. Raises Stopped where the first records are not READY, BadInput for files
    that cannot be read or hold more than `most_bytes`.
    """
    argument = {"files": list(map(str, files)), "mapping": dict(mapping), "limit": limit, "most_bytes": most_bytes}
    limits = Limits(_BASE_S + most_bytes / 1e6 * _S_PER_MB, CHILD_BYTES)
    what = str(files[0]) if len(files) == 1 else f"one of the {len(files)} files beside {files[0]}"
    with _remedied():
        for kind, *values in confined(take, argument, what, limits):
            if kind == "stopped":
                raise Stopped(values[0])
            if kind == "row":
                name, prompt, completion, attributes = values
                yield TrainingRow(name, "imported", prompt, completion, RowAttributes.of(attributes))
            else:
                yield Problem(*values) if kind == "problem" else Taken(*values)


@contextmanager
def _remedied() -> Iterator[None]:
    """Adds to what was ended by its limits what to try."""
    try:
        yield
    except OverLimits as error:
        raise OverLimits(f"{error}; {_REMEDY}") from None


def _problems(problems: Sequence[Mapping[str, Any]]) -> tuple[Problem, ...]:
    return tuple(Problem(**problem) for problem in problems)


# In the child


def look(argument: Mapping[str, Any]) -> Iterator[object]:
    """What the first records of a file look like."""
    path = Path(argument["file"])
    columns = columns_of(path) if path.suffix.lower() in COLUMNAR else None
    records = _first(_records(path))
    if not records:
        raise BadInput(f"{path} holds no records")
    values = [record.value for record in records]
    inspection = inspect_records(values, argument["mapping"])
    rows = [convert_one(value, 1, inspection.format, inspection.mapping) for value in values]
    yield {
        "inspection": asdict(inspection),
        "looked_at": len(records),
        "bytes": max(1, sum(record.bytes for record in records)),
        "taken": sum(_bytes(row) for row in rows if isinstance(row, TrainingRow)),
        "records": columns.records if columns else None,
        "left_out": columns.left_out if columns else [],
    }


def take(argument: Mapping[str, Any]) -> Iterator[object]:
    """Every row and problem of files, until a limit; the first item that is neither says how they were read."""
    records = islice((r for name in argument["files"] for r in _records(Path(name))), argument["limit"])
    first = _first(records)
    inspection = inspect_records([record.value for record in first], argument["mapping"])
    if inspection.status != "READY":
        why = "; ".join(f"record {p.number}: {p.reason}" for p in inspection.problems[:3])
        yield "stopped", f"{inspection.status}: {why or ', '.join(inspection.columns) or 'there are no records'}"
        return
    count = lines = read = taken = 0
    for count, record in enumerate(chain(first, records), 1):
        read += record.bytes
        made = convert_one(record.value, count, inspection.format, inspection.mapping)
        if isinstance(made, Problem):
            lines += made.weight
            yield "problem", made.number, made.reason, made.weight
        else:
            lines += 1
            taken += _bytes(made)
            yield "row", made.row_id, made.prompt, made.completion, made.attributes.as_json()
        for what, bytes_, most in (("", read, argument["most_bytes"]), (" of rows", taken, MAX_TAKEN_BYTES)):
            if bytes_ > most:
                raise BadInput(
                    f"the first {count:,} records hold over {most / 1e6:,.0f} MB{what}, the most that is taken here; "
                    f"take fewer with --limit {max(1, count - 1)}, or split the file"
                )
    yield "end", inspection.format, count, lines


def _first(records: Iterator[Record]) -> list[Record]:
    """The records that a source is looked at by: fewer where they are large."""
    first: list[Record] = []
    while len(first) < LOOKED_AT and sum(record.bytes for record in first) < _LOOKED_AT_BYTES:
        if (record := next(records, None)) is None:
            break
        first.append(record)
    return first


def _records(path: Path) -> Iterator[Record]:
    return column_records(path) if path.suffix.lower() in COLUMNAR else text_records(path)


def _bytes(row: TrainingRow) -> int:
    return len(json.dumps([row.prompt, row.completion, row.attributes.as_json()], ensure_ascii=False))
