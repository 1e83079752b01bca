"""What a step would take that nobody has ordered: priced as every step is, by its own plan, and never begun."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.agent.queries.base import Query, RunName, StageName


class PriceQuery(Query):
    """What a step would take that was not ordered: time, memory, disk. Nothing is begun."""

    kind: Literal["price"] = "price"
    stage: StageName
    run: RunName = ""
    values: dict[str, bool | int | float | str] = Field({}, description="Settings that it would have: {rows: 5000}")
    times: dict[str, float] = Field({}, description="Settings as multiples of what they were: {rows: 2} is twice")
