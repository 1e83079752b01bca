"""import at work: every record of a source as a row of the store, and the file that the later stages read."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.local_paths import expanded
from tunesmith.tools.data.behaviour import load_behaviour, pins_of
from tunesmith.tools.data.rows import read_rows, write_rows
from tunesmith.tools.imports import hub_source
from tunesmith.tools.imports.formats import Problem
from tunesmith.tools.imports.import_rows import (
    ImportRequest,
    ImportResult,
    is_on_hub,
    most_read_bytes,
    problem_list,
    too_many_unusable,
    too_much,
)
from tunesmith.tools.imports.sources import Stopped, Totals, digest_of, find_files, inspect_files, rows_of

_PROBLEMS_LISTED = 50
"""In the result, which is stored and shown."""


def run(job: Job[ImportRequest]) -> ImportResult:
    """Take the rows, record them, publish them beside those that were there."""
    request = job.request
    sha256 = ""
    if request.behaviour:
        sha256 = pins_of(load_behaviour(request.behaviour), ())["behaviour"]
        job.agreed("behaviour", sha256)
    before = read_rows(job.verified("rows").path / "rows.jsonl") if "rows" in job.inputs else []
    rows, problems, totals = _read_source(job, _files(job))
    _refuse_newer(job)
    before, rows = _with_ids(job, before, rows)
    job.store.add_rows(job.run, job.step.id, [*before, *rows])
    _refuse_others(job, len(before) + len(rows))
    folder = job.dir / "rows"
    write_rows(folder / "rows.jsonl", [*before, *rows])
    meta = {"rows": len(before) + len(rows), "behaviour": request.behaviour, "behaviour_sha256": sha256}
    if not request.behaviour and "rows" in job.inputs:
        meta |= {name: job.inputs["rows"].meta[name] for name in ("behaviour", "behaviour_sha256")}
    artifact = job.publish("rows", folder, meta=meta)
    shutil.rmtree(_hub_folder(job), ignore_errors=True)  # the commit says what they were
    return ImportResult(
        artifact=artifact.id,
        path=str(artifact.path),
        format=totals.format,
        records=totals.records,
        rows=len(rows),
        rows_before=len(before),
        turns=sum(message["role"] == "assistant" for row in rows for message in row.completion),
        with_system=sum(row.prompt[0]["role"] == "system" for row in rows),
        with_tools=sum(bool(row.attributes.tools) for row in rows),
        incompatible=len(problems),
        problems=tuple(map(str, problems[:_PROBLEMS_LISTED])),
    )


def _files(job: Job[ImportRequest]) -> Sequence[Path]:
    """The files to read, as they were when the plan was made; those of the hub fetched into the step's folder."""
    if not is_on_hub(job.request.source):
        named = find_files(expanded(job.request.source))
        job.agreed("source", digest_of(named.files))
        return named.files
    source = hub_source.parse_source(job.request.source)
    files = hub_source.list_files(source, job.request.split)
    job.agreed("source", hub_source.listing_digest(files))
    return hub_source.fetch(source, files, _hub_folder(job), job.progress)


def _hub_folder(job: Job[ImportRequest]) -> Path:
    return job.dir / "hub"


def _read_source(job: Job[ImportRequest], files: Sequence[Path]) -> tuple[list[TrainingRow], list[Problem], Totals]:
    """The rows of all records, the records that are none, and how many there were."""
    request = job.request
    rows: list[TrainingRow] = []
    problems: list[Problem] = []
    totals = Totals("", 0, 0)
    size = sum(file.stat().st_size for file in files)
    look = inspect_files(files, size, request.mapping, request.limit)
    for refusal in too_much(look):
        raise StepFailed(refusal)
    most_bytes = most_read_bytes(look, size if is_on_hub(request.source) else 0)
    try:
        for one in rows_of(files, request.mapping, request.limit, most_bytes):
            if isinstance(one, TrainingRow):
                rows.append(one)
            elif isinstance(one, Problem):
                problems.append(one)
            else:
                totals = one
            job.progress(len(rows) + len(problems), request.limit, "reading")
    except Stopped as error:
        raise StepFailed(str(error)) from None
    unusable = sum(problem.weight for problem in problems)
    if wrong := too_many_unusable(unusable, totals.lines, request.max_unusable_share, problem_list(problems)):
        raise StepFailed(wrong)
    if not rows:
        raise StepFailed(f"none of {totals.records} records is a row; {problem_list(problems)}")
    return rows, problems, totals


def _with_ids(
    job: Job[ImportRequest], before: Sequence[TrainingRow], rows: Sequence[TrainingRow]
) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """Rows under ids that no other row of the run has; those of before keep theirs, unless two share one.

    What this step itself recorded before it was killed is left aside: it gets the same ids again.
    """
    recorded = job.store.read("SELECT DISTINCT row_id FROM rows WHERE run = ? AND step <> ?", job.run, job.step.id)
    ids = RowIds([*(row.row_id for row in before), *(row["row_id"] for row in recorded)])
    seen: set[str] = set()
    renumbered = []
    for row in before:
        renumbered.append(replace(row, row_id=ids.new(row.row_id.removeprefix("i-"))) if row.row_id in seen else row)
        seen.add(row.row_id)
    return renumbered, [replace(row, row_id=ids.new(row.row_id)) for row in rows]


def _refuse_newer(job: Job[ImportRequest]) -> None:
    """The run's rows are those that the plan was made beside: others would be left out of what this publishes."""
    others = [artifact for artifact in job.store.artifacts(job.run, "rows") if artifact.step != job.step.id]
    beside = job.inputs.get("rows")
    if job.request.beside and others and (beside is None or others[-1].id != beside.id):
        newest = others[-1]
        raise StepFailed(f"{newest.step} made rows ({newest.id}) since this was planned; import again to add to them")


def _refuse_others(job: Job[ImportRequest], count: int) -> None:
    """What a killed attempt recorded of other files is in the table, and not in the file."""
    recorded = job.store.read("SELECT count(*) AS rows FROM rows WHERE step = ?", job.step.id)[0]["rows"]
    if recorded != count:
        raise StepFailed(f"{job.step.id} has {recorded:,} rows recorded, {count:,} were read now; import them anew")


_NUMBERED = re.compile(r"i-(\d{1,12})")


class RowIds:
    """Ids of imported rows: none is given twice, whatever a data set calls its own."""

    def __init__(self, used: Iterable[str] = ()) -> None:
        self._used = set(used)
        self._number = max((int(m[1]) for name in self._used if (m := _NUMBERED.fullmatch(name))), default=0)
        self._again: Counter[str] = Counter()

    def new(self, name: str = "") -> str:
        """An id for a row that its data set calls `name`; without one it is numbered on from those that there are."""
        row_id = f"i-{name}" if name else self._numbered()
        while row_id in self._used:
            self._again[name] += bool(name)
            row_id = f"i-{name}~{self._again[name] + 1}" if name else self._numbered()
        self._used.add(row_id)
        return row_id

    def _numbered(self) -> str:
        self._number += 1
        return f"i-{self._number:06d}"
