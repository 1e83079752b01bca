"""Every error that tunesmith raises on purpose, and the exit code each one becomes at the edge.

A message says what happened, the number, and the next thing to try. Errors are caught once, in the command line.
"""

from __future__ import annotations


class TunesmithError(Exception):
    """Root of the hierarchy; `exit_code` is what the command line exits with."""

    exit_code = 1


class StepFailed(TunesmithError, RuntimeError):
    """A step was started and did not reach its end."""


class BadInput(TunesmithError, ValueError):
    """The request cannot be carried out as it stands; nothing was started."""

    exit_code = 2


class NotFound(BadInput, LookupError):
    """A run, step, artifact or file that was named does not exist."""


class ApprovalPending(TunesmithError):
    """An expensive step is waiting for a yes that nobody is there to give."""

    exit_code = 3


class GateRefused(TunesmithError):
    """A measured result forbids the step, for example deploying after a regression."""

    exit_code = 4
