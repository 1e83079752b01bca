"""What people said of answers: for one message, whether the base's answer is right and whether the newest arm's is.

A rated case needs no assertion, so it counts for style, prose, refusal and code too. It is paired: both answers were
judged by the same person, unlabelled and in random order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.memory.store import Store


@dataclass(frozen=True, slots=True)
class Rated:
    """One message that a person judged two answers to."""

    case_id: str
    base_right: bool
    arm_right: bool
    by: str
    """Who pressed the keys."""
    at: str
    """When, as ISO 8601 in UTC."""
    written_by_a_person: bool
    """Whether a person wrote or pasted the message; ratings of generated messages are shown apart and never count."""
    opening: int = 1
    """Which training was the one whose answers to this message a person saw here: 1 the first. The arms of one training
    (adapter, merged, quantized) are one opening."""


def ratings_of(store: Store, run: str, arm: str) -> tuple[Rated, ...]:
    """The ratings of an arm of a run against the base, oldest first; what was taken back is left out."""
    return ()
