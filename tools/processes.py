"""Which process is which: a pid alone is reused, so a process is named by pid, start time and boot."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
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


def tree(pid: int) -> dict[int, psutil.Process]:
    """A process and all its descendants by pid; empty where it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return {process.pid: process for process in (root, *root.children(recursive=True))}
    return {}


def own_tree(pid: int) -> dict[int, psutil.Process]:
    """Like `tree`, without those in another session: workers and servers lead one each, and answer for themselves."""
    return {child: process for child, process in tree(pid).items() if _session(child) == _session(pid)}


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Resident memory of processes, shared pages split among their owners (PSS)."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", 0) or memory.rss
    return total
