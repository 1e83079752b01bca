"""Locks that the kernel lets go of: a process holds one for as long as it lives, wherever it is looked at from.

A lock is a file below HOME/locks with `flock` on it. It is seen from another PID namespace, and from another host where
the file system carries locks; it never outlives its holder, not even after `kill -9`. What stands in the file says who
held it last, for people.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.memory.errors import BadInput

_POLL_S = 0.02
"""flock waits without end or not at all: a wait that ends has to look again and again."""
_SOON_S, _ADDING_S = 0.5, 600.0
"""How long a short step waits for its turn before it says so, and in all; ten minutes, as a store may be written to at
last (`PATIENCE_S`)."""


class Locked(BadInput):
    """Another process holds the lock."""


def lock_file(home: Path, name: str) -> Path:
    """The file of the lock `name`, such as `s17` for the worker of that step."""
    return home / "locks" / f"{name}.lock"


def take(path: Path, *, wait_s: float = 0.0, holder: str = "") -> int:
    """Take a lock and return the descriptor that holds it until it is closed. Raises Locked after `wait_s`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # its user's alone
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # as all of a home
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # in the kernel a wait has no end
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise Locked(f"{path.stem} is held by {last_holder(path) or 'another process'}") from None
            time.sleep(_POLL_S)
    with contextlib.suppress(OSError):  # a full disk takes nothing from the lock
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.encode(), 0)
    return fd


@contextmanager
def locked(path: Path, *, wait_s: float = 0.0, holder: str = "") -> Iterator[None]:
    """Hold a lock for the time of a block. Raises Locked where another process has it for longer than `wait_s`."""
    fd = take(path, wait_s=wait_s, holder=holder)
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def carrying_out(home: Path, run: str) -> Iterator[None]:
    """Hold a run while its plan is carried out: two at once would do its steps twice. Raises Locked."""
    try:
        fd = take(lock_file(home, run), holder=f"pid {os.getpid()}")
    except Locked:
        who = last_holder(lock_file(home, run))
        raise Locked(
            f"{run} is being carried out by another tunesmith ({who}); `tunesmith jobs list` shows its step, and "
            "`tunesmith jobs attach STEP` follows it"
        ) from None
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def adding_to(home: Path, run: str, *, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Hold what a run has while a short step builds on it and adds to it: who comes next sees what was added.

    Waits for its turn, and tells `waiting` whom for. Raises Locked after ten minutes. It is another lock than that of
    `carrying_out`, under which such a step may stand.
    """
    path, holder = lock_file(home, f"{run}-adding"), f"pid {os.getpid()}"
    try:
        fd = take(path, wait_s=_SOON_S, holder=holder)
    except Locked:
        waiting(last_holder(path))
        fd = take(path, wait_s=_ADDING_S, holder=holder)
    try:
        yield
    finally:
        os.close(fd)


def is_locked(path: Path) -> bool:
    """Whether any process holds the lock now; looking may make another `take` wait for a moment, never fail."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look do not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def last_holder(path: Path) -> str:
    """Who took the lock last, as they named themselves."""
    with contextlib.suppress(OSError):  # for a sentence alone: the lock itself is the kernel's
        return path.read_text(errors="replace")[:200]
    return ""
