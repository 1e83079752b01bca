"""Test cases: which an arm fails or lost, one case with its answers, and what a suite holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import AnyArm, AnyBlock, Query, RunName

Outcome = Literal["failed", "passed", "lost", "gained", "flipped", "error", "any"]


class CasesQuery(Query):
    """Test cases by what became of them. lost, gained, flipped: from the other arm to this one."""

    kind: Literal["cases"] = "cases"
    outcome: Outcome = "failed"
    run: RunName = ""
    arm: AnyArm = ""
    other_arm: Annotated[AnyArm, Field(description="Of a flip: the arm before. Of failed: both arms fail it")] = ""
    block: AnyBlock = ""
    label: Annotated[str, Field(description="Only cases of this label, such as billing")] = ""


class CaseQuery(Query):
    """One test case, by its id or by what it asks: what the arms answered, what was wanted, why it fails."""

    kind: Literal["case"] = "case"
    case: Annotated[str, Field(description="Its id, or words of what it asks")]
    run: RunName = ""
    arm: AnyArm = ""
    about: Literal["answers", "wanted"] = "answers"


class SuiteQuery(Query):
    """What is tested: how many cases of which block, and some of them."""

    kind: Literal["suite"] = "suite"
    run: RunName = ""
    block: AnyBlock = ""
    about: Literal["counts", "cases"] = "counts"
