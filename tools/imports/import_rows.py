"""import: take a user's own rows from a file, a folder or a hub data set, as conversations that can be trained on.

The plan says READY, NEEDS MAPPING or INCOMPATIBLE from the first records, shows three rows as they would be taken, and
names the records that cannot be. What is taken goes through the same critique as generated rows. Files of this machine
are free; a data set of the hub is downloaded, which is priced by its listed bytes and asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import estimate, recorded_bytes, room
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR, existing_path, expanded, local_path
from tunesmith.tools.core.stage import (
    Facts,
    Inputs,
    Plan,
    PlanQuestion,
    Request,
    Result,
    Settled,
    Stage,
    expected,
    pinned,
)
from tunesmith.tools.data.behaviour import load_behaviour, pins_of
from tunesmith.tools.imports.formats import Inspection, Problem, check_mapping, in_words
from tunesmith.tools.imports.hub_source import PREFIX, at_commit, list_files, listing_digest, parse_source
from tunesmith.tools.imports.sources import (
    CHILD_BYTES,
    MAX_IMPORT_BYTES,
    Look,
    SourceFiles,
    digest_of,
    find_files,
    inspect_files,
    unclear,
)

_TOKENS_PER_BYTE = 0.25
"""Of a row as JSON, whose names and marks are fewer tokens in a chat."""
_STARTS_S, _SECONDS_PER_MB, _BYTES_A_SECOND = 0.5, 0.15, 2e7
"""Of a step: its start, reading and converting, a download, on the usual two cores and a line of 160 Mbit/s."""
_NAMES_BYTES, _USUAL_BYTES = 100, 1_000
"""Of a row: the names of its fields in our file, and a usual one of a data set that nobody has read."""
_LEAST_READ_BYTES, MAX_READ_BYTES = 64 << 20, 4 << 30
"""Decoded bytes that every step may read, and that none may pass: a compressed file may come to any size."""
_DECODED_MORE = 8
"""So many times its size a file of the hub may come to once it is decoded: nobody has looked into it yet."""


class ImportRequest(Request):
    """Where the rows come from, and how their columns are read."""

    source: Annotated[str, local_path(maybe=True)] = Field(min_length=1, max_length=1000)
    """A .jsonl, .json, .csv or .parquet file, a folder of such files, or a data set of the hub at a commit
    (hub:owner/name@COMMIT; its newest where none is given), which is downloaded."""
    mapping: dict[str, str] = Field(default_factory=dict)
    """Column of the message (user), of the answer (assistant) and of the system prompt (system), for a format of its
    own."""
    behaviour: Annotated[str, local_path(BUNDLED_BEHAVIOUR)] = ""
    """The behaviour whose rules and tests the rows are held to; empty: none."""
    split: str = Field(default="train", pattern=r"^[\w-]+$", max_length=60)
    """Of a hub data set."""
    # A slip in twenty records happens; more is a wrong mapping, and would teach its leavings.
    max_unusable_share: float = Field(default=0.05, ge=0, le=1)
    """Share of records that may be no rows and are left out; above it none is."""
    # as many as generate makes
    limit: int = Field(default=100_000, ge=1, le=1_000_000)
    """Records taken at most."""
    beside: bool = True
    """Keep the run's rows that are there already beside the new ones."""


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
    look: Look | None
    """None where only the worker can read it: the hub."""
    pins: Mapping[str, str]
    download_bytes: int = 0
    notes: tuple[str, ...] = ()


def is_on_hub(source: str) -> bool:
    """Whether a source is fetched."""
    return source.startswith(PREFIX)


def inspect_inputs(request: ImportRequest, inputs: Inputs) -> ImportContext:
    """Read the first records, so that what cannot be taken is told before anything starts. Raises BadInput."""
    check_mapping(request.mapping)  # of a data set of the hub nothing is looked at
    pins = {}
    if request.behaviour:
        pins = {"behaviour": pins_of(load_behaviour(request.behaviour), ())["behaviour"]}
    if is_on_hub(request.source):
        source = parse_source(request.source)
        files = list_files(source, request.split)
        pins["source"] = listing_digest(files)
        return ImportContext(str(source), None, pins, sum(file.bytes for file in files))
    path = expanded(request.source)
    named = files_of(request.source)
    pins["source"] = digest_of(named.files)
    look = look_at(named, request.mapping, request.limit)
    left_out = f"columns that hold no text are not read: {', '.join(look.left_out[:8])}"  # a line of them
    links = f"{named.links_left_out} links in {path} are not followed"
    notes = (*([left_out] if look.left_out else []), *([links] if named.links_left_out else []))
    return ImportContext(path.name, look, pins, notes=notes)


def files_of(source: str) -> SourceFiles:
    """The files that a source of this machine names. Raises BadInput."""
    remedy = f"name a file or a folder of rows, or a data set of the hub as {PREFIX}owner/name@COMMIT"
    export = f" (`tunesmith rows export {source}` writes a run's rows to it)"
    return find_files(existing_path(source, remedy + export))


def look_at(named: SourceFiles, mapping: Mapping[str, str], limit: int) -> Look:
    """What the first records look like; of files that did not change since, what was seen of them. Raises BadInput."""
    stamps = tuple((file, stat.st_size, stat.st_mtime_ns) for file in named.files for stat in (file.stat(),))
    return _looked(stamps, named.bytes, tuple(mapping.items()), limit)


@lru_cache(maxsize=32)  # a plan is priced several times before it is agreed to
def _looked(
    stamps: tuple[tuple[Path, int, int], ...], bytes_: int, mapping: tuple[tuple[str, str], ...], limit: int
) -> Look:
    return inspect_files([file for file, _, _ in stamps], bytes_, dict(mapping), limit)


def expected_artifact(request: ImportRequest, artifacts: Mapping[str, Artifact]) -> Artifact:
    """As many rows as a file seems to hold, of their length; of a data set that nobody has read, a usual number."""
    before = artifacts.get("rows") if request.beside else None
    rows = before.count("rows") if before else 0
    if is_on_hub(request.source):
        # a guess, which the plan says: nobody has read it
        return expected("rows", rows=rows + min(request.limit, 1000), behaviour=request.behaviour)
    look = look_at(files_of(request.source), request.mapping, request.limit)
    tokens = round(look.row_bytes / max(1, look.records) * _TOKENS_PER_BYTE)
    return expected("rows", rows=rows + look.records, behaviour=request.behaviour, tokens_per_row=tokens)


def plan(request: ImportRequest, facts: Facts, context: ImportContext) -> Plan:
    """Reading costs little; what matters is how the rows are understood, and what a download takes."""
    look = context.look
    read_bytes = look.read_bytes if look else min(context.download_bytes * _DECODED_MORE, MAX_READ_BYTES)
    row_bytes = min(look.row_bytes if look else read_bytes, MAX_IMPORT_BYTES)
    records = look.records if look else min(request.limit, row_bytes // _USUAL_BYTES)
    before = facts.artifacts.get("rows") if request.beside else None
    price = estimate(
        "import",
        facts,
        seconds=_STARTS_S
        + min(read_bytes, MAX_READ_BYTES) / 1e6 * _SECONDS_PER_MB
        + context.download_bytes / _BYTES_A_SECOND,
        # Python; the child's own with what it decodes, up to its limit; and rows, some four times their bytes as
        # objects.
        ram_bytes=(200 << 20) + min(CHILD_BYTES, (100 << 20) + read_bytes * 4) + row_bytes * 4,
        disk_bytes=context.download_bytes
        + _disk_bytes(row_bytes, records)
        + (_disk_bytes(before.bytes, before.count("rows")) if before else 0),  # recorded once more, under this step
        like="" if look else "hub",
    )
    inspection = look.inspection if look else None
    return Plan(
        stage="import",
        run=facts.run,
        summary=f"take the rows of {context.name}",
        steps=_steps(inspection, context),
        request=request.model_dump(mode="json"),
        inputs=pinned(rows=before),
        pins=dict(context.pins),
        estimate=price,
        writes=(f"at most {request.limit:,} candidate rows",),
        replaces=("the candidate rows of this run",) if "rows" in facts.artifacts and not request.beside else (),
        refusals=(
            *(f"{context.name}: {why}" for why in refusals(inspection, request.max_unusable_share)),
            *too_much(look),
            *room(price, facts, remedy="a smaller limit"),
        ),
        questions=questions(inspection),
        notes=(*_problems(inspection), *context.notes),
    )


def _disk_bytes(row_bytes: int, rows: int) -> int:
    """Rows as a file and in the store."""
    return row_bytes + _NAMES_BYTES * rows + recorded_bytes(row_bytes, rows)


def most_read_bytes(look: Look, download_bytes: int) -> int:
    """What a step may decode: twice what the first records let expect, and no more than a download was priced for."""
    priced = download_bytes * _DECODED_MORE if download_bytes else MAX_READ_BYTES
    return min(MAX_READ_BYTES, max(_LEAST_READ_BYTES, min(priced, 2 * look.read_bytes)))


def too_many_unusable(unusable: int, lines: int, share: float, examples: str) -> str:
    """What is wrong where too large a part of the records is no rows; empty where it is not."""
    if unusable <= lines * share:
        return ""
    return (
        f"{unusable:,} of {lines:,} records are no rows, over {share:.0%} ({examples}); put them right, name other "
        # it is cut to two places, which may be less
        f"columns with --map, or leave them out with max_unusable_share={min(1.0, unusable / lines + 0.01):.2f}"
    )


def too_much(look: Look | None) -> tuple[str, ...]:
    """What is wrong where more would be decoded than is read here; empty where nothing is."""
    if look is None or look.inspection.status != "READY" or look.read_bytes <= MAX_READ_BYTES:
        return ()
    fits = max(1, int(look.records * MAX_READ_BYTES / look.read_bytes))
    return (
        f"its {look.records:,} records come to {look.read_bytes / 1e9:,.1f} GB once they are decoded, and at most "
        f"{MAX_READ_BYTES / 1e9:.1f} GB are read; --limit {fits} takes the first ones",
    )


def _steps(inspection: Inspection | None, context: ImportContext) -> tuple[str, ...]:
    if inspection is None:
        size = f"{context.download_bytes / 1e6:,.1f} MB"
        return (f"download {size}: {context.name}", "tell its format, and turn every record into a conversation")
    mapping = ", ".join(f"{part} = {column}" for part, column in inspection.mapping.items())
    kind = f"{inspection.format or 'columns of its own'}{f' ({mapping})' if mapping else ''}"
    taken = f"; {inspection.taken}" if inspection.taken else ""
    previews = tuple(f"for example: {text}" for text in inspection.preview)
    return (f"{inspection.status}: {kind}, by its first {inspection.checked} records{taken}", *previews)


def refusals(inspection: Inspection | None, max_unusable_share: float) -> tuple[str, ...]:
    """Why records cannot be taken as they are; empty for what can, and for what nobody has looked at."""
    if inspection is None:
        return ()
    if inspection.status == "READY":
        problems = inspection.problems
        weight = sum(problem.weight for problem in problems)
        lines = inspection.checked - len(problems) + weight
        wrong = too_many_unusable(weight, lines, max_unusable_share, problem_list(problems))
        return (wrong,) if wrong else ()
    if inspection.status == "NEEDS MAPPING":
        return (unclear(inspection),)
    why = problem_list(inspection.problems, 1) or "no record is a row"
    return (f"INCOMPATIBLE: {len(inspection.problems)} of {inspection.checked} records looked at are no rows; {why}",)


def questions(inspection: Inspection | None) -> tuple[PlanQuestion, ...]:
    """What is asked where columns have to be agreed on."""
    if inspection is None or inspection.status != "NEEDS MAPPING" or not inspection.mapping:
        return ()
    named = " and ".join(f"{column} as {part}" for part, column in inspection.mapping.items())
    text = f"the columns are {in_words(inspection.columns)}: take {named}?"
    return (PlanQuestion(text=text, yes={"mapping": dict(inspection.mapping)}),)


def problem_list(problems: Sequence[Problem], count: int = 3) -> str:
    """The first records that are no rows, each with its reason."""
    return "; ".join(map(str, problems[:count]))


def _problems(inspection: Inspection | None) -> tuple[str, ...]:
    if inspection is None or not inspection.problems or inspection.status == "INCOMPATIBLE":
        return ()
    return (
        f"{len(inspection.problems)} of the first {inspection.checked} records are no rows and are left out "
        f"({problem_list(inspection.problems, 5)})",
    )


def settle(fields: Mapping[str, object]) -> Settled:
    """A data set of the hub at the commit that it has now. Raises BadInput, also for a file that is not there."""
    given = str(fields.get("source") or "")
    if given and not is_on_hub(given):
        files_of(given)
    source = at_commit(given)
    if source == given:
        return Settled()
    name, _, commit = source.partition("@")
    return Settled(
        {"source": source}, (f"{name} is at commit {commit}, {given.partition('@')[2] or 'the newest'} there",)
    )


STAGE = Stage(
    "import", ImportRequest, ImportResult, plan, inspect_inputs, expected_artifact,
    settle=settle,
    asks_hub=lambda fields: is_on_hub(str(fields.get("source", ""))),
)  # fmt: skip
