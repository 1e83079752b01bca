"""Who starts the process of a step: this machine, or another one (`ray_launcher`)."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunesmith.tools.machine.processes import ProcessId, stop_group


@dataclass(frozen=True, slots=True)
class Handle:
    """One attempt at a step, by the name that it was started under: a second attempt has another one."""

    name: str
    pid: int = 0


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


class LocalLauncher:
    """Processes of this machine, each in a session of its own: neither a closed terminal nor a killed REPL ends it."""

    def __init__(self, folder: Path, *, log: str = "") -> None:
        """Logs go into `folder`: to the file `log`, else to one that is named after the attempt."""
        self._folder, self._log = folder, log
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str]) -> Handle:
        """As the protocol says; a process is started by every call."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log_of(name).open("ab") as output:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=self._folder
            )
        self._children[name] = child
        return Handle(name, child.pid)

    def find(self, name: str) -> Handle | None:
        """A child of this very process."""
        child = self._children.get(name)
        return Handle(name, child.pid) if child else None

    def alive(self, handle: Handle) -> bool:
        """Whether it has not ended."""
        return self._children[handle.name].poll() is None

    def stop(self, handle: Handle) -> None:
        """SIGTERM to its whole group, SIGKILL ten seconds later."""
        if self.alive(handle):
            stop_group(ProcessId.of(handle.pid))

    def log(self, handle: Handle) -> str:
        """The text of its log."""
        try:
            return self._log_of(handle.name).read_text(errors="replace")
        except OSError:
            return ""

    def _log_of(self, name: str) -> Path:
        return self._folder / (self._log or f"{name}.log")
