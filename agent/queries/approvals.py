"""What was agreed to and what was refused, by whom, when, at which price, and the words that came with it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import Query, RunName, Since, StageName, StepName, Until


class ApprovalsQuery(Query):
    """What the user agreed to or refused: by whom, when, at which price; or whether anything ran unasked."""

    kind: Literal["approvals"] = "approvals"
    decision: Annotated[
        Literal["any", "yes", "no", "unasked"], Field(description="unasked: expensive steps that ran without a yes")
    ] = "any"
    run: RunName = ""
    stage: StageName = ""
    step: StepName = ""
    since: Since = None
    until: Until = None
