"""One figure of every run next to those of the others: a setting, memory, time, rows, size, or what passes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import AnyArm, AnyBlock, Query, StageName


class AcrossQuery(Query):
    """One figure of every run, ranked: which run passes most, took longest, used most memory, had most rows."""

    kind: Literal["across"] = "across"
    figure: Literal["pass_rate", "loss", "memory", "time", "rows", "size", "setting"] = "pass_rate"
    field: Annotated[str, Field(description="For setting: its name")] = ""
    order: Literal["most", "least"] = "most"
    stage: StageName = ""
    arm: AnyArm = ""
    block: Annotated[AnyBlock, Field(description="For pass_rate; empty: target")] = ""
