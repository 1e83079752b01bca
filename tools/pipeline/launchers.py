"""What starts the process of a step on another machine is asked for: `ray_launcher` does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Handle:
    """One attempt at a step, by the name that it was started under: a second attempt has another one."""

    name: str


class Launcher(Protocol):
    """Starts, looks at and ends the process of an attempt. A name that was used starts nothing a second time."""

    def start(self, name: str, argv: Sequence[str]) -> Handle:
        """Start a program. Raises BadInput where it can never run there, StepFailed where it was not started."""
        ...

    def find(self, name: str) -> Handle | None:
        """The attempt that was started under a name; None where there is none."""
        ...

    def alive(self, handle: Handle) -> bool:
        """Whether it is at work, or waits to begin. Raises StepFailed where nobody knows."""
        ...

    def stop(self, handle: Handle) -> None:
        """End it, and what it started."""
        ...

    def log(self, handle: Handle) -> str:
        """All that it has said so far."""
        ...
