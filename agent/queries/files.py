"""A file of rows that is not imported: how many it holds, in which form, its doubles, its first ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Answer, Context, cite, clip, ordinary
from tunesmith.agent.queries.arguments import Query
from tunesmith.memory.records import DONE, TrainingRow
from tunesmith.tools.core.format import count
from tunesmith.tools.imports.formats import Problem

_MOST_ROWS, _MOST_BYTES = 20_000, 16 << 20
"""Read for doubles, while somebody waits."""
_FIRST, _WIDE = 3, 300
"""Records on the screen, and of each two lines: enough to see what the file holds."""


class FileQuery(Query):
    """A file of rows that is not imported yet: how many and in which form, how many of them are valid, its doubles, or
    its first rows."""

    kind: Literal["file_of_rows"] = "file_of_rows"
    about: Literal["rows", "doubles", "first", "valid"] = "rows"
    path: Annotated[str, Field(description="The file, such as ~/data/rows.jsonl")] = ""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a look into a file tells."""

    status: str
    format: str
    records: int
    """By its size, where no footer counts them."""
    columns: int
    """How many: of a file without a header line their names are its first row, which no model may read."""


@dataclass(frozen=True, slots=True)
class Validity:
    """How many of a file's records can be taken as rows."""

    read: int
    rows: int
    unusable: int


@dataclass(frozen=True, slots=True)
class Doubles:
    """Rows of a file that repeat one before them."""

    read: int
    rows: int
    same_prompt: int
    same_row: int
    unusable: int


def answer(query: FileQuery, context: Context) -> Answer:
    """Answer from the file itself. Raises BadInput for what is not there or cannot be read."""
    from tunesmith.tools.imports.import_rows import files_of, look_at

    if not query.path:
        return Answer(("Name the file with its folder, such as ~/data/rows.jsonl: I look into it and import nothing.",))
    named = files_of(query.path)
    look = look_at(named, {}, _MOST_ROWS * 50)  # fifty times, as a look counts records and compares none
    seen = look.inspection
    facts = FileFacts(seen.status, seen.format, look.records, len(seen.columns))
    if query.about == "doubles":
        return _doubles(query.path, facts, [*named.files])
    if query.about == "valid":
        return _valid(query.path, facts, [*named.files], _imported(context, query.path))
    known = f"about {count(look.records, 'record')}; it is {seen.status}"
    was = _imported(context, query.path)
    takes = was or f"Nothing was imported; `/import {query.path}` takes it."
    open_words = f"{query.path}: {known}. {takes}"
    # a line of them
    names = f"; columns {', '.join(clip(one, 30) for one in seen.columns[:8])}" if seen.columns else ""
    line = open_words.replace(known, known + names)
    if query.about == "rows":
        lines = [line, *(f"Record {one.number}: {clip(one.reason)}" for one in seen.problems[:2])]
    else:
        rows = [clip(row, _WIDE) for row in seen.preview[:_FIRST]]
        lines = [*(rows or ["None of its first records can be taken as a row."]), line]
    return Answer(tuple(lines), data=(facts,), private=True, open_words=open_words)


def _read(files: list[Path]) -> tuple[list[TrainingRow], list[Problem], int]:
    """The rows of files within the bounds, what cannot be taken as one, and how many records were read."""
    from tunesmith.tools.imports.sources import Totals, rows_of

    rows, unusable, read = list[TrainingRow](), list[Problem](), 0
    for one in rows_of(files, {}, _MOST_ROWS, _MOST_BYTES):
        if isinstance(one, TrainingRow):
            rows.append(one)
        elif isinstance(one, Totals):
            read = one.records
        else:
            unusable.append(one)
    return rows, unusable, read


def _imported(context: Context, path: str) -> str:
    """What the newest import of that very file came to; empty: it was never imported."""
    steps = [step for run in ordinary(context.store) for step in context.store.steps(run.id, status=DONE)]
    own = [step for step in steps if step.stage == "import" and step.request.get("source") == path]
    if not own:
        return ""
    step = max(own, key=lambda one: one.created_at)
    took = f"{count(int(step.report.get('rows') or 0), 'row')} taken"  # type: ignore[call-overload]  # ours
    return f"It was imported ({cite(step)}): {took}, {step.report.get('incompatible', 0)} refused."


def _valid(path: str, facts: FileFacts, files: list[Path], was: str) -> Answer:
    """How many records can be taken as rows, and why the first others cannot."""
    if facts.status != "READY":
        open_words = (
            f"{path} has about {count(facts.records, 'record')} and is {facts.status}: as it is none can be taken as a "
            f"row. {was or 'Nothing was imported.'} `/import {path}` says which columns to map."
        )
        return Answer((open_words,), data=(facts,))
    rows, unusable, read = _read(files)
    of = f"the first {count(read, 'record')}" if facts.records > read else count(read, "record")
    all_ = "all can be taken as rows" if not unusable else f"{len(rows)} can be taken as rows, {len(unusable)} cannot"
    open_words = f"{path}: of {of}, {all_}. {was or 'Nothing was imported.'}"
    lines = (open_words, *(f"Record {one.number}: {clip(one.reason)}" for one in unusable[:_FIRST]))
    data = (facts, Validity(read, len(rows), len(unusable)))
    return Answer(lines, data=data, private=bool(unusable), open_words=open_words)


def _doubles(path: str, facts: FileFacts, files: list[Path]) -> Answer:
    if facts.status != "READY":
        refusal = (
            f"{path} is {facts.status}, so its rows cannot be compared: `/import {path}` says which columns to map."
        )
        return Answer((refusal,), data=(facts,))
    rows, unusable, read = _read(files)
    prompts = Counter(str(row.prompt) for row in rows)
    whole = Counter((str(row.prompt), str(row.completion)) for row in rows)
    doubles = Doubles(read, len(rows), len(rows) - len(prompts), len(rows) - len(whole), len(unusable))
    of = f"the first {count(read, 'record')}" if facts.records > read else count(read, "record")
    line = (
        f"{path}: of {of}, {doubles.same_row} repeat a row before them word for word, {doubles.same_prompt} "
        f"its message; {doubles.unusable} cannot be taken as rows. Nothing was imported; critique drops doubles."
    )
    return Answer((line,), data=(doubles,))
