"""Which values are taken for which: by an arm in its answers to the target cases, or by the reader of written rows."""

from __future__ import annotations

from typing import Literal

from tunesmith.agent.queries.base import AnyArm, AnyBlock, Query, RunName


class ConfusionQuery(Query):
    """Which labels are taken for which, in a model's answers or by the reader of written rows; or by which checks its
    answers fail (no JSON, wrong form)."""

    kind: Literal["confusion"] = "confusion"
    about: Literal["labels", "checks", "reader"] = "labels"
    run: RunName = ""
    arm: AnyArm = ""
    block: AnyBlock = ""
