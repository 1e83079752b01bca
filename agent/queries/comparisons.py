"""Two arms of a run, or two runs, against each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import AnyArm, AnyBlock, Query, RunName, StageName


class CompareQuery(Query):
    """Two arms of one run against each other, case by case: counts, exact tests, what was gained and lost."""

    kind: Literal["compare"] = "compare"
    arm: AnyArm = ""
    other_arm: Annotated[AnyArm, Field(description="The arm it is set against; empty: base")] = ""
    run: RunName = ""
    block: AnyBlock = ""


class CompareRunsQuery(Query):
    """Two runs against each other: results, settings that differ, time, or the cases that the first passes and the
    other fails."""

    kind: Literal["compare_runs"] = "compare_runs"
    about: Literal["results", "settings", "time", "cases"] = "results"
    run: RunName = ""
    other_run: Annotated[str, Field(description="The other run; empty: the one before")] = ""
    stage: Annotated[StageName, Field(description="For time: one stage alone")] = ""
    arm: Annotated[AnyArm, Field(description="For cases")] = ""
    block: Annotated[AnyBlock, Field(description="For cases")] = ""
