"""Which process is which: a pid alone is reused, so a process is named by pid, start time and boot."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process of this machine that cannot be confused with a later one of the same pid."""

    pid: int
    started: float
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Name a living process. Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time(), boot_id())

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        if self.boot_id != boot_id():
            return False
        try:
            process = psutil.Process(self.pid)
            # create_time is derived from the boot time, which may be re-read with a small drift.
            same = abs(process.create_time() - self.started) < 2.0
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def boot_id() -> str:
    """An id that changes with every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{psutil.boot_time():.0f}"


def stop_group(process: ProcessId, *, grace_s: float = 10.0) -> bool:
    """End a process group led by `process`: SIGTERM, then SIGKILL after `grace_s`. True when it is gone."""
    if not process.alive():
        return True
    for sig, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sig)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
            if not process.alive():
                return True
            time.sleep(0.05)
    return not process.alive()


def _tree(pids: Sequence[int]) -> dict[int, psutil.Process]:
    seen: dict[int, psutil.Process] = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            seen |= {process.pid: process for process in (root, *root.children(recursive=True))}
    return seen


def tree_pids(pids: Sequence[int]) -> set[int]:
    """These processes and all their children."""
    return set(_tree(pids))


def tree_own_bytes(pids: Sequence[int]) -> int:
    """Resident memory of processes and all their children that no file stands behind: what their end gives back.

    Pages of files, such as mapped weights, are left out: the system counts them as available already.
    """
    total = 0
    for process in _tree(pids).values():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_info()
            total += memory.rss - getattr(memory, "shared", 0)
    return total


def tree_rss_bytes(pids: Sequence[int]) -> int:
    """Resident memory of processes and all their children, shared pages split among their owners (PSS)."""
    total = 0
    for process in _tree(pids).values():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", 0) or memory.rss
    return total
