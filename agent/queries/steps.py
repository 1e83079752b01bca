"""Steps: how long they took against their estimate, what memory they needed, why they failed, the end of their log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.base import AnyArm, Query, RunName, StageName, StepName


class StepQuery(Query):
    """One step: what it came to, its time, memory, dates, estimate, share of the run's work, why it failed, its log."""

    kind: Literal["step"] = "step"
    about: Literal["outcome", "time", "estimate", "memory", "dates", "failure", "share", "log"] = "outcome"
    step: StepName = ""
    stage: StageName = ""
    run: RunName = ""
    arm: AnyArm = ""
    other_stage: Annotated[str, Field(description="A stage whose time or memory is set against the first one's")] = ""


class StepsQuery(Query):
    """The steps of a run together: what all took, which took longest or most memory, how good the estimates were, which
    took longer than estimated; what failed, or ran out of memory, in a run or in all."""

    kind: Literal["steps"] = "steps"
    about: Literal["time", "longest", "memory", "estimates", "late", "failures", "out_of_memory"] = "time"
    run: RunName = ""
    stage: StageName = ""


class FigureQuery(Query):
    """One number that a step recorded by its name, such as trained_tokens, trainable_parameters, quantized_layers,
    argmax_agreement, generated_tokens, balance (rows by label)."""

    kind: Literal["figure"] = "figure"
    figure: Annotated[str, Field(description="Name of the number")]
    run: RunName = ""
