"""Runs: which there are, and how one went."""

from __future__ import annotations

from typing import Literal

from tunesmith.agent.queries.base import Query, RunName, Since, Until


class RunsQuery(Query):
    """All runs: how many, which; those that failed; the one with the best model; what ran in a span of time."""

    kind: Literal["runs"] = "runs"
    about: Literal["all", "failed", "best"] = "all"
    since: Since = None
    until: Until = None


class RunQuery(Query):
    """How one run went: its verdict and status, its steps, what of its plan is left, when it began and ended."""

    kind: Literal["run"] = "run"
    run: RunName = ""
    about: Literal["overview", "status", "steps", "remaining", "dates"] = "overview"
