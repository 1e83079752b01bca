"""A file of rows that is not imported: how many it holds, in which form, its doubles, its first ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Context, clip, ordinary
from tunesmith.agent.queries.facts import Fact, Query, Result
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DONE, TrainingRow
from tunesmith.tools.imports.formats import Problem

_MOST_ROWS, _MOST_BYTES = 20_000, 16 << 20
"""Read for doubles, while somebody waits."""
_FIRST, _WIDE = 3, 300
"""Records on the screen, and of each two lines: enough to see what the file holds."""


class FileQuery(Query):
    """A file of rows that is not imported: form, how many are valid or repeat."""

    kind: Literal["file_of_rows"] = "file_of_rows"
    path: Annotated[str, Field(description="~/data/rows.jsonl")] = ""


def answer(query: FileQuery, context: Context) -> Result:
    """What a look into the file tells; nothing is imported. Raises BadInput for what is not there or not readable."""
    from tunesmith.tools.imports.import_rows import files_of, look_at

    if not query.path:
        raise BadInput("No file is named; give it with its folder, such as ~/data/rows.jsonl.")
    named = files_of(query.path)
    look = look_at(named, {}, _MOST_ROWS * 50)  # fifty times, as a look counts records and compares none
    seen, unusable = look.inspection, list[Problem]()
    # How many columns: of a file without a header line their names are its first row, which no model may read.
    fact: dict[str, object] = {
        "status": seen.status, "format": seen.format, "about_records": look.records, "columns": len(seen.columns),
    }  # fmt: skip
    if seen.status == "READY":
        rows, unusable, read = _read([*named.files])
        fact |= {"read": read, "can_be_rows": len(rows), "unusable": len(unusable), **_doubles(rows)}
    else:
        fact |= {"can_be_rows": 0, "next": f"/import {query.path} says which columns to map"}
    texts: list[Fact] = [{"columns": ", ".join(seen.columns)}] if seen.columns else []
    texts += [{"row": clip(row, _WIDE)} for row in seen.preview[:_FIRST]]
    texts += [{"record": one.number, "problem": clip(one.reason)} for one in (unusable or seen.problems)[:_FIRST]]
    of = {"file": query.path, "imported_by": _imported(context, query.path) or "no run"}
    unread = look.records - _MOST_ROWS
    return Result((fact,), of, texts=tuple(texts), left_out={"unread records": unread} if unread > 0 else {})


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


def _doubles(rows: Sequence[TrainingRow]) -> Fact:
    """How many rows repeat one before them: its message, or all of it."""
    prompts = Counter(str(row.prompt) for row in rows)
    whole = Counter((str(row.prompt), str(row.completion)) for row in rows)
    return {"repeat_a_message": len(rows) - len(prompts), "repeat_a_row": len(rows) - len(whole)}


def _imported(context: Context, path: str) -> Fact:
    """What the newest import of that very file came to; empty: it was never imported."""
    steps = [step for run in ordinary(context.store) for step in context.store.steps(run.id, status=DONE)]
    own = [step for step in steps if step.stage == "import" and step.request.get("source") == path]
    if not own:
        return {}
    step = max(own, key=lambda one: one.created_at)
    return {"run": step.run, "step": step.id, "rows_taken": step.report.get("rows"),
            "refused": step.report.get("incompatible")}  # fmt: skip
