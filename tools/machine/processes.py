"""Which process is which: a pid alone is reused, so a process is named by pid, boot, and when in that boot it began.

On Linux that is counted in the kernel's own ticks since the boot. A start time of day is none of a process's own: it is
worked out from the clock, and moves with it when the clock is set.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process of this machine that cannot be confused with a later one of the same pid."""

    pid: int
    started: float
    boot_id: str
    ticks: int | None = None
    """When it began, in clock ticks since the boot; None off Linux, and in records of before this was kept."""
    host: str = ""
    """The machine; empty in records of before this was kept."""
    namespace: str = ""
    """The PID namespace that the pid counts in: a container has one of its own. Empty likewise."""

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Name a living process. Raises psutil.NoSuchProcess."""
        started = psutil.Process(pid).create_time()
        stat = _stat(pid)
        return cls(pid, started, boot_id(), stat[1] if stat else None, host_id(), pid_namespace())

    @property
    def elsewhere(self) -> bool:
        """Whether its pid means nothing here: it is of another machine, or of another container."""
        if self.boot_id != boot_id():
            return bool(self.host) and self.host != host_id()
        return bool(self.namespace) and self.namespace != pid_namespace()

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not. One that is `elsewhere` counts as alive."""
        if self.elsewhere:
            return True
        if self.boot_id != boot_id():
            return False
        if self.ticks is not None:
            stat = _stat(self.pid)
            return stat is not None and stat[1] == self.ticks and stat[0] not in "ZX"
        try:
            process = psutil.Process(self.pid)
            # create_time is derived from the boot time, which may be re-read with a small drift.
            same = abs(process.create_time() - self.started) < 2.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def has_let_go(self) -> bool:
        """Whether its memory is given back too: threads hold all of it for a moment after the first one is a zombie."""
        if self.alive():
            return False
        stat = _stat(self.pid)
        if stat is None or stat[1] != self.ticks:
            return True
        try:
            return sum(1 for _ in Path(f"/proc/{self.pid}/task").iterdir()) <= 1
        except OSError:  # it has ended meanwhile
            return True


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start ticks of a process, as Linux tells them; None where there is none of this pid."""
    try:
        # The name in brackets may hold anything; the state, field 3, follows it, and field 22 is the start.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError, ValueError):  # it has ended meanwhile
        return None


def boot_id() -> str:
    """An id that changes with every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux
        return f"boot-{psutil.boot_time():.0f}"


def host_id() -> str:
    """An id of this machine that a boot does not change."""
    try:
        # 32 hex digits; some images leave it empty
        return Path("/etc/machine-id").read_text().strip()[:32] or platform.node()
    except OSError:  # no systemd
        return platform.node()


def pid_namespace() -> str:
    """The PID namespace of this process; empty off Linux."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # no Linux
        return ""


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules, or pip, in this environment.

    Without `-P` Python puts the present folder first on its path, so a file there could take a module's place. Whoever
    starts it names the working folder, too.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def with_environment(env: Mapping[str, str], command: Sequence[str]) -> list[str]:
    """A command with more in its environment; /usr/bin/env adds it without anybody here having to read it."""
    return ["/usr/bin/env", *(f"{name}={value}" for name, value in env.items()), *command]


def end_with_parent() -> None:
    """End this process soon after its parent: a worker that was killed can end nobody, and its child holds memory."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)  # no signal tells of it on every system; a second of memory is cheap
        # At once: an exit in order would wait for threads whose parent is gone.
        os._exit(1)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


def stop_group(process: ProcessId, *, grace_s: float = 10.0) -> bool:
    """End a process group led by `process`: SIGTERM, then SIGKILL after `grace_s`. True when it is gone.

    One that is elsewhere is left alone: its number names another process here.
    """
    if process.elsewhere:
        return False
    if not process.alive():
        return True
    # 5 s: a killed process goes at once, but for one that waits for a disk.
    for sig, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.killpg(process.pid, sig)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            # Where it is our child, it stays a zombie, and so alive, until it is waited for.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
            if not process.alive():
                return True
            time.sleep(0.05)  # a person waits for it
    return not process.alive()


def tree(pid: int) -> dict[int, psutil.Process]:
    """A process and all its descendants by pid; empty where it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return {process.pid: process for process in (root, *root.children(recursive=True))}
    return {}


def tree_pids(pids: Sequence[int]) -> set[int]:
    """These processes and all their children."""
    return {child for pid in pids for child in tree(pid)}


def tree_own_bytes(pids: Sequence[int]) -> int:
    """Resident memory of processes and all their children that no file stands behind: what their end gives back.

    Pages of files, such as mapped weights, are left out: the system counts them as available already.
    """
    total = 0
    for process in {pid: child for root in pids for pid, child in tree(root).items()}.values():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # ended since, or another user's
            memory = process.memory_info()
            # psutil tells shared pages on Linux alone.
            total += max(memory.rss - getattr(memory, "shared", 0), 0)
    return total


def own_tree(pid: int) -> dict[int, psutil.Process]:
    """Like `tree`, without those in another session: workers and servers lead one each, and answer for themselves."""
    return {child: process for child, process in tree(pid).items() if _session(child) == _session(pid)}


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:  # it has ended since it was listed
        return None


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Resident memory of processes, shared pages split among their owners (PSS)."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # ended since, or another user's
            memory = process.memory_full_info()
            # psutil tells PSS on Linux alone.
            total += getattr(memory, "pss", 0) or memory.rss
    return total
