"""What a run came to, what to try next, whether it overfits, which model to deploy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import AnyArm, AnyBlock, Query, RunName


class FindingsQuery(Query):
    """What a run's records mean, and advice: what to try next, why a block fell or nothing was learned, overfitting,
    which model to deploy and why one is refused, whether the prompt alone would do, training longer, more rows, a
    bigger base would help."""

    kind: Literal["findings"] = "findings"
    about: Literal[
        "all", "next", "why", "overfitting", "deploy", "prompt_alone", "train_longer", "more_rows", "bigger_base"
    ] = "all"
    run: RunName = ""
    arm: Annotated[AnyArm, Field(description="For why and deploy")] = ""
    block: Annotated[AnyBlock, Field(description="For why")] = ""
