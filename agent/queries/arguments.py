"""What a question is: a request of its own kind, and the arguments that several kinds share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.tools.core.local_paths import NO_PLACE

Arm = Literal["base", "prompted", "adapter", "merged", "quantized"]
Block = Literal["target", "general", "tools", "adversarial", "over-trigger"]

Recorded = Annotated[str, NO_PLACE]
"""A text that is looked for among the records alone. A question with a text of another kind may look at a folder or ask
the hub, so no other agent may put it."""
RunName = Annotated[
    Recorded, Field(description="Run, such as r3; empty: the one talked about, else the newest that has it")
]
StepName = Annotated[Recorded, Field(description="Step, such as s12")]
StageName = Annotated[Recorded, Field(description="Stage, such as train")]
AnyArm = Annotated[Arm | Literal[""], Field(description="Arm; empty: the last one, or all")]
AnyBlock = Annotated[Block | Literal[""], Field(description="Block of test cases; empty: all")]
MOST_SHOWN = 40  # of cases or rows on the screen at once; a page has all of them
Most = Annotated[int, Field(ge=0, le=MOST_SHOWN, description="0: a few")]
Since = Annotated[datetime | None, Field(description="From when, local time, such as 2026-11-20 or 2026-11-20T14:00")]
Until = Annotated[datetime | None, Field(description="Up to when, exclusive")]


class Query(BaseModel):
    """A typed question. Arguments that are left out mean what their description says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str = ""
