"""What answers now and what did before, and what is at work or waits."""

from __future__ import annotations

from typing import Literal

from tunesmith.agent.queries.base import Query, RunName, Since, Until


class ServedQuery(Query):
    """Which model is served now, its address and where its key lies; or what was deployed before, when and by whose
    yes."""

    kind: Literal["served"] = "served"
    about: Literal["now", "history"] = "now"
    run: RunName = ""
    since: Since = None
    until: Until = None


class JobsQuery(Query):
    """What is running with the time left, and what waits for a yes."""

    kind: Literal["jobs"] = "jobs"
