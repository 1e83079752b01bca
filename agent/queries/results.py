"""What passed: an arm's score on a block, or the whole chain of a run."""

from __future__ import annotations

from typing import Literal

from tunesmith.agent.queries.base import AnyArm, AnyBlock, Query, RunName


class ResultQuery(Query):
    """What a run's models pass of the test cases, whether it got better, how sure that is; how fast they answer."""

    kind: Literal["result"] = "result"
    about: Literal["passed", "speed"] = "passed"
    run: RunName = ""
    arm: AnyArm = ""
    block: AnyBlock = ""
