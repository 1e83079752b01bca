"""What the user described: the words, the examples, the criteria and rules of the behaviour that a run teaches."""

from __future__ import annotations

from typing import Literal

from tunesmith.agent.queries.base import Query, RunName


class DescribedQuery(Query):
    """What the user described of the behaviour: its examples, criteria, rules, labels, near misses."""

    kind: Literal["described"] = "described"
    part: Literal["whole", "examples", "criteria", "rules", "near_misses", "labels", "never", "when"] = "whole"
    run: RunName = ""
