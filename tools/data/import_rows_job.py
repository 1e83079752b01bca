"""import at work: every record of a source as a row of the store, and the file that the later stages read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import sha256_file
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.local_paths import expanded, is_there
from tunesmith.tools.data.behaviour import load_behaviour, pins_of
from tunesmith.tools.data.import_formats import Problem, convert, inspect_records
from tunesmith.tools.data.import_rows import ImportRequest, ImportResult
from tunesmith.tools.data.import_sources import COLUMNAR, Unreadable, files_of, plain_records
from tunesmith.tools.data.row_file import read_rows, write_rows

_LOOKED_AT, _PART = 200, 2_000
_PROBLEMS_TOLD = 50


def run(job: Job[ImportRequest]) -> ImportResult:
    """Take the rows, record them, publish them beside those that were there."""
    request = job.request
    sha256 = ""
    if request.behaviour:
        sha256 = pins_of(load_behaviour(request.behaviour), ())["behaviour"]
        job.agreed("behaviour", sha256)
    before = read_rows(job.verified("rows").path / "rows.jsonl") if "rows" in job.inputs else []
    records = _records(job)
    first = list(islice(records, _LOOKED_AT))
    inspection = inspect_records(first, request.mapping)
    if inspection.status != "READY":
        why = _why(inspection.problems) or ", ".join(inspection.columns)
        raise StepFailed(f"{inspection.status}: {why}; see the plan of this step")
    rows, problems, count = _taken(job, first, records, inspection.format, inspection.mapping)
    job.store.add_rows(job.run, job.step.id, [*before, *rows])
    folder = job.dir / "rows"
    write_rows(folder / "rows.jsonl", [*before, *rows])
    meta = {"rows": len(before) + len(rows), "behaviour": request.behaviour, "behaviour_sha256": sha256}
    if not request.behaviour and "rows" in job.inputs:
        meta |= {name: job.inputs["rows"].meta[name] for name in ("behaviour", "behaviour_sha256")}
    artifact = job.publish("rows", folder, meta=meta)
    return ImportResult(
        artifact=artifact.id,
        path=str(artifact.path),
        format=inspection.format,
        records=count,
        rows=len(rows),
        rows_before=len(before),
        turns=sum(message["role"] == "assistant" for row in rows for message in row.completion),
        with_system=sum(row.prompt[0]["role"] == "system" for row in rows),
        with_tools=sum("tools" in row.attributes for row in rows),
        incompatible=len(problems),
        problems=tuple(f"record {problem.number}: {problem.reason}" for problem in problems[:_PROBLEMS_TOLD]),
    )


def _taken(
    job: Job[ImportRequest], first: list[Any], records: Iterator[Any], name: str, mapping: dict[str, str]
) -> tuple[list[TrainingRow], list[Problem], int]:
    """The rows of all records, the records that are none, and how many there were."""
    rows: list[TrainingRow] = []
    problems: list[Problem] = []
    taken: dict[str, int] = {}
    count, part = 0, first
    while part:
        converted, odd = convert((_told(record) for record in part), name, mapping, count + 1)
        for row in converted:  # ids are told apart within a part; over the parts here
            taken[row.row_id] = taken.get(row.row_id, 0) + 1
            again = f"{row.row_id}~{count}" if taken[row.row_id] > 1 else row.row_id
            rows.append(TrainingRow(again, row.origin, row.prompt, row.completion, row.attributes))
        problems += odd
        count += len(part)
        job.progress(count, job.request.limit, "reading")
        part = list(islice(records, _PART))
    if not rows:
        raise StepFailed(f"none of {count} records is a row; {_why(tuple(problems))}")
    return rows, problems, count


def _told(record: Any) -> Any:
    return record.reason if isinstance(record, Unreadable) else record


def _why(problems: tuple[Problem, ...]) -> str:
    return "; ".join(f"record {problem.number}: {problem.reason}" for problem in problems[:3])


def _records(job: Job[ImportRequest]) -> Iterator[Any]:
    request = job.request
    path = expanded(request.source)
    if not is_there(path):
        return islice(_hub(request), request.limit)
    files = files_of(path)
    if len(files) == 1 and "source" in job.plan.pins:
        job.agreed("source", sha256_file(files[0]))
    return islice((record for file in files for record in _of_file(file)), request.limit)


def _of_file(path: Path) -> Iterator[Any]:
    if path.suffix.lower() not in COLUMNAR:
        yield from plain_records(path)
        return
    from datasets import Dataset

    kind = Dataset.from_parquet if path.suffix.lower() == ".parquet" else Dataset.from_file
    try:
        yield from kind(str(path))
    except Exception as error:  # pyarrow and datasets have no common base
        raise StepFailed(f"cannot read {path}: {type(error).__name__}: {str(error)[:200]}") from None


def _hub(request: ImportRequest) -> Iterator[Any]:
    """A data set of the hub, streamed; never with code of its own."""
    from datasets import load_dataset

    try:
        yield from load_dataset(request.source, split=request.split, streaming=True, trust_remote_code=False)
    except Exception as error:
        raise StepFailed(f"cannot read {request.source}: {type(error).__name__}: {str(error)[:200]}") from None
