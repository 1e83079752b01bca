"""What a turn comes to where code can tell: words for the user, or the step that was ordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TurnAnswer:
    """Words that answer the turn; `told` is what a model may read of them later."""

    text: str
    told: str = ""
    tool: str = ""
    """The tool that did it, for the events of a script; empty: none."""
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A step that was ordered, with its fields."""

    tool: str
    arguments: Mapping[str, object]
