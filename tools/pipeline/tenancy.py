"""One tenant at a time: while a step works it holds its home's machine, and the GPUs that it is pinned to.

A GPU may be used by several homes of one user, which know nothing of each other but this lock. Not covered: other
users, other containers, and other programs; what they hold is measured before a price is made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tunesmith.memory.locks import Locked, last_holder, take
from tunesmith.tools.core.machine import Gpu, chosen_gpus

MACHINE_LOCK = "accelerator.lock"
"""In a home: who holds it works on its machine."""
_LOOK_EVERY_S = 0.3
"""So often it is looked whom one waits for: the holder may change meanwhile."""


@contextmanager
def tenancy(
    home: Path,
    step: str,
    gpus: Sequence[Gpu],
    *,
    cards: int = 1,
    waiting: Callable[[str], None],
    log: Callable[[str], None],
) -> Iterator[None]:
    """Wait for the home's machine and then for its GPUs, and hold them; `waiting` is told what for.

    Of `cards` GPUs each is waited for in the order of their names, so that two homes never wait for each other.

    The kernel lets go of the locks when this process ends, however it ends.
    """
    holder = f"{step} of {home}"
    with ExitStack() as locks:
        _hold(locks, home / MACHINE_LOCK, holder, lambda _: waiting("waiting for another step to leave the machine"))
        # In one order everywhere: two that want the same cards never hold one each.
        for gpu in sorted(chosen_gpus(gpus, cards), key=lambda gpu: gpu.uuid):
            if folder := _folder_of_all_homes():
                _hold(locks, folder / f"{gpu.uuid}.lock", holder, partial(_wait_for, waiting, gpu.name))
            else:
                log("no private folder for locks below /run/user or /tmp: other homes on this GPU are not seen")
        yield


def _wait_for(waiting: Callable[[str], None], gpu: str, who: str) -> None:
    waiting(f"waiting for {gpu} to be left by {who}")


def _hold(locks: ExitStack, path: Path, holder: str, waiting: Callable[[str], None]) -> None:
    while True:
        try:
            locks.callback(os.close, take(path, wait_s=_LOOK_EVERY_S, holder=holder))
            return
        except Locked:  # tell whom for, and wait on
            waiting(last_holder(path) or "another process")


def _folder_of_all_homes() -> Path | None:
    """A folder that every home of this user finds and nobody else can enter; None where there is none."""
    user = os.getuid()
    for folder in (Path(f"/run/user/{user}/tunesmith"), Path(f"/tmp/tunesmith-{user}")):
        try:
            # 0700: nobody else may hold a lock there, or read who does.
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
        except OSError:  # no such place on this machine, or not ours
            continue
        # In /tmp anybody may have made it first: a link, or a folder of their own.
        if stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o077:
            return folder
    return None
