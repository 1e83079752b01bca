"""What went wrong in a turn and was not put right in it: a script's exit code.

A step that failed or was declined, and a gate that refused, count whatever was called after them. Any other error
counts until a later call goes well: the model is told of it and may call again with what was missing.
"""

from __future__ import annotations

from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.registry import TOOLS
from tunesmith.memory.errors import GateRefused, StepFailed, TunesmithError
from tunesmith.tools.pipeline import catalog

_FREE = (entry.name for entry in catalog.STAGES if not entry.expensive and not entry.makes)
_READING = frozenset({*TOOLS, "query_records", *_FREE})
"""These put right only what they got wrong themselves."""


def went_wrong(deps: TurnDeps, tool: str, error: Exception) -> None:
    """Keep what a call ended with."""
    if not isinstance(error, TunesmithError):
        error = StepFailed(f"{tool}: unexpected {type(error).__name__}: {error}")
    if not is_lasting(deps.errors.get(tool)):
        deps.errors[tool] = error


def went_well(deps: TurnDeps, tool: str) -> None:
    """Forget what this call put right."""
    for name in [tool] if tool in _READING else list(deps.errors):
        if not is_lasting(deps.errors.get(name)):
            deps.errors.pop(name, None)


def of_turn(deps: TurnDeps) -> TunesmithError | None:
    """The error that the turn came to; None where all is well."""
    left = list(deps.errors.values())
    return next((error for error in left if is_lasting(error)), left[-1] if left else None)


def is_lasting(error: TunesmithError | None) -> bool:
    """Whether nothing that is called later puts it right."""
    return isinstance(error, StepFailed | GateRefused)
