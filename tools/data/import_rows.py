"""import: take a user's own rows from a file, a folder or a hub data set, as conversations that can be trained on.

The plan says READY, NEEDS MAPPING or INCOMPATIBLE from the first records, shows three rows as they would be taken, and
names the records that cannot be. What is taken goes through the same critique as generated rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import sha256_file
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.local_paths import expanded, is_there, local_path
from tunesmith.tools.core.stage import Facts, Inputs, Plan, Request, Result, Stage, expected, pinned
from tunesmith.tools.data.behaviour import load_behaviour, pins_of
from tunesmith.tools.data.import_formats import PARTS, Inspection, inspect_records
from tunesmith.tools.data.import_sources import COLUMNAR, files_of, plain_records

_LOOKED_AT = 200
_SECONDS_PER_MB = 0.15
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


class ImportRequest(Request):
    """Where the rows come from, and how their columns are read."""

    source: Annotated[str, local_path(maybe=True)] = Field(
        min_length=1,
        max_length=1000,
        description="A .jsonl, .json, .csv or .parquet file, a folder of such files, or a hub data set (owner/name).",
    )
    mapping: dict[str, str] = Field(
        default_factory=dict,
        description="Column of the message (user), of the answer (assistant) and of the system prompt (system), for a "
        "format of its own.",
    )
    behaviour: Annotated[str, local_path("demo")] = Field(
        default="", description="The behaviour whose rules and tests the rows are held to; empty: none."
    )
    split: str = Field(default="train", pattern=r"^[\w-]+$", max_length=60, description="Of a hub data set.")
    limit: int = Field(default=100_000, ge=1, le=1_000_000, description="Records taken at most.")
    beside: bool = Field(default=True, description="Keep the run's rows that are there already beside the new ones.")


class ImportResult(Result):
    """What was taken."""

    artifact: str
    path: str
    format: str
    records: int
    rows: int
    rows_before: int
    """Of the run, kept beside them."""
    turns: int
    """Of the assistant in these rows, each with a loss."""
    with_system: int
    with_tools: int
    incompatible: int
    problems: tuple[str, ...] = ()
    """The first records that are no rows, by number, with the reason."""


@dataclass(frozen=True, slots=True)
class ImportContext:
    """What the first records of a source look like."""

    name: str
    bytes: int
    inspection: Inspection | None
    """None where only the worker can read it: Parquet, saved data sets, the hub."""
    pins: Mapping[str, str]
    there: int = 0
    """Rows of the run."""


def inspect_inputs(request: ImportRequest, inputs: Inputs) -> ImportContext:
    """Read the first records, so that what cannot be taken is told before anything starts. Raises BadInput."""
    if odd := next((part for part in request.mapping if part not in PARTS), None):
        raise BadInput(f"mapping names {odd!r}; it names columns for {', '.join(PARTS)}")
    pins = {}
    if request.behaviour:
        pins = {"behaviour": pins_of(load_behaviour(request.behaviour), ())["behaviour"]}
    rows = inputs.made("rows") if request.beside else None
    there = int(rows.meta["rows"]) if rows else 0
    path = expanded(request.source)
    if not is_there(path):
        if _HUB_ID.match(request.source):
            return ImportContext(request.source, 0, None, pins, there)
        raise BadInput(f"there is no {request.source}; name a file, a folder, or a hub data set as owner/name")
    files = files_of(path)
    size = sum(file.stat().st_size for file in files)
    if len(files) == 1 and size < 1 << 28:
        pins["source"] = sha256_file(files[0])
    if files[0].suffix.lower() in COLUMNAR:
        return ImportContext(Path(request.source).name, size, None, pins, there)
    records = list(islice(plain_records(files[0]), _LOOKED_AT))
    if not records:
        raise BadInput(f"{files[0]} holds no records")
    inspection = inspect_records(records, request.mapping)
    return ImportContext(Path(request.source).name, size, inspection, pins, there)


def expected_artifact(request: ImportRequest, artifacts: Mapping[str, Artifact]) -> Artifact:
    """At most as many rows as are taken."""
    return expected("rows", rows=min(request.limit, 1000), behaviour=request.behaviour)


def plan(request: ImportRequest, facts: Facts, context: ImportContext) -> Plan:
    """Reading costs little; what matters is how the rows are understood."""
    price = estimate(
        "import",
        facts,
        seconds=2 + context.bytes / 1e6 * _SECONDS_PER_MB + (60 if context.inspection is None else 0),
        ram_bytes=(300 << 20) + min(context.bytes * 4, 4 << 30),
        disk_bytes=context.bytes * 3,
    )
    rows = facts.artifacts.get("rows") if request.beside else None
    return Plan(
        stage="import",
        run=facts.run,
        summary=f"take the rows of {context.name}",
        steps=_told(context.inspection, context.name),
        request=request.model_dump(mode="json"),
        inputs=pinned(rows=rows),
        pins=dict(context.pins),
        estimate=price,
        writes=(f"at most {request.limit:,} candidate rows",),
        replaces=("the candidate rows of this run",) if "rows" in facts.artifacts and not request.beside else (),
        refusals=(*_refusals(context.inspection), *room(price, facts, remedy="a smaller limit")),
        notes=_problems(context.inspection),
    )


def _told(inspection: Inspection | None, name: str) -> tuple[str, ...]:
    if inspection is None:
        return (f"read {name} in a worker and tell the format there", "turn every record into a conversation")
    mapping = ", ".join(f"{part} = {column}" for part, column in inspection.mapping.items())
    kind = f"{inspection.format or 'columns of its own'}{f' ({mapping})' if mapping else ''}"
    shown = tuple(f"for example: {text}" for text in inspection.shown)
    return (f"{inspection.status}: {kind}, by its first {inspection.checked} records", *shown)


def _refusals(inspection: Inspection | None) -> tuple[str, ...]:
    if inspection is None or inspection.status == "READY":
        return ()
    if inspection.status == "NEEDS MAPPING":
        pairs = " ".join(f"{part}={column}" for part, column in inspection.mapping.items())
        return (
            f"NEEDS MAPPING: the columns are {', '.join(inspection.columns[:12])}; agree with --map {pairs}, or name "
            "others",
        )
    first = inspection.problems[0] if inspection.problems else None
    why = f"record {first.number}: {first.reason}" if first else "no record is a row"
    return (f"INCOMPATIBLE: {len(inspection.problems)} of {inspection.checked} records looked at are no rows; {why}",)


def _problems(inspection: Inspection | None) -> tuple[str, ...]:
    if inspection is None or not inspection.problems or inspection.status == "INCOMPATIBLE":
        return ()
    lines = "; ".join(f"record {problem.number}: {problem.reason}" for problem in inspection.problems[:5])
    return (
        f"{len(inspection.problems)} of the first {inspection.checked} records are no rows and are left out ({lines})",
    )


STAGE = Stage("import", ImportRequest, ImportResult, plan, inspect_inputs, expected_artifact)
