"""Training rows: how many of which origin and verdict, why some were dropped, and the rows themselves on the screen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import Query, RunName

Verdict = Annotated[Literal["", "keep", "drop"], Field(description="empty: both")]
Origin = Annotated[Literal["", "generated", "rehearsal"], Field(description="empty: all")]


class RowsQuery(Query):
    """Training rows: how many were kept or dropped, why, some of them, the longest or shortest, their length."""

    kind: Literal["rows"] = "rows"
    about: Literal["counts", "reasons", "examples", "longest", "shortest", "length"] = "counts"
    run: RunName = ""
    verdict: Verdict = ""
    origin: Origin = ""
    split: Annotated[Literal["", "train", "valid"], Field(description="Part: trained on, or for validation")] = ""
    reason: Annotated[str, Field(description="Only dropped for this, such as duplicate or leak")] = ""


class RowQuery(Query):
    """Training rows by their id or by words that they hold: the text, and what became of it."""

    kind: Literal["row"] = "row"
    row: Annotated[str, Field(description="Its id, or words that it holds")]
    run: RunName = ""
    verdict: Verdict = ""
    origin: Origin = ""
