"""A test case with where it comes from: who said what is right of it, and when."""

from __future__ import annotations

import os
import pwd
import time
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class KnownCase:
    """A message with the answer that is right; the answer is empty where nobody knows it."""

    prompt: str
    answer: str
    source: str
    """example: the spec was made from it. own: another of the user's examples or rows. gold: one of those that a person
    marked. marked: a person's answer to a model's message. written: both by a model."""
    by: str = ""
    at: str = ""
    """When, as ISO 8601 in UTC."""
    system: str = ""
    """The system prompt that it is asked under."""
    seed_row: str = ""
    """The first of the rows that share what this one was made from."""

    @property
    def metadata(self) -> dict[str, str]:
        """What a suite's file says of it beside its texts."""
        told = {"source": self.source, "by": self.by, "at": self.at, "seed_row": self.seed_row}
        return {name: value for name, value in told.items() if value}


def account() -> str:
    """The account that this process acts for."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return f"user {os.getuid()}"


def now(at_s: float = 0.0) -> str:
    """A time in seconds since 1970, or the present one, as cases name it."""
    return datetime.fromtimestamp(at_s or time.time(), UTC).isoformat(timespec="seconds")
