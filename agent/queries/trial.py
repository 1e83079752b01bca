"""The model that was made, for who wants to use it: how to try it, where it is, and what it changed."""

from __future__ import annotations

from typing import Literal

from tunesmith.agent.queries.base import AnyArm, Query, RunName


class TrialQuery(Query):
    """How to try the finished model, where it is, or answers before and after the training next to each other."""

    kind: Literal["trial"] = "trial"
    about: Literal["how", "where", "before_and_after"] = "how"
    run: RunName = ""
    arm: AnyArm = ""
