"""This computer, measured now: cards, memory, disk, cores, and which programs do the work."""

from __future__ import annotations

from typing import Literal

from tunesmith.agent.queries.base import Query


class MachineQuery(Query):
    """This computer, measured now: its cards, memory, disk and cores."""

    kind: Literal["machine"] = "machine"
    part: Literal["all", "gpu", "ram", "disk", "cpu"] = "all"
    """What is told first."""
