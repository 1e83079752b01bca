"""Every error that tunesmith raises on purpose, and the exit code each one becomes at the edge.

A message says what happened, the number, and the next thing to try. Errors are caught once, in the command line.
"""

from __future__ import annotations

import errno

_SQLITE_FULL = 13  # sqlite3.SQLITE_FULL, without the import; the low byte of an extended code


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


class Declined(StepFailed):
    """The person said no to a price, so that nothing was started."""


class GateRefused(TunesmithError):
    """A measured result forbids the step, for example deploying after a regression."""

    exit_code = 4


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that a disk or its quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # an extended code has the plain one in its low byte
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == _SQLITE_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
