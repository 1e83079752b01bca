"""One tenant at a time: while a step works it holds its home's machine, and the GPU that it is pinned to.

A GPU may be used by several homes of one user, which know nothing of each other but this lock. Not covered: other
users, other containers, and other programs; what they hold is measured before a price is made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tunesmith.memory.locks import Held, last_holder, take
from tunesmith.tools.core.machine import Gpu, chosen_gpu

MACHINE_LOCK = "accelerator.lock"
"""In a home: who holds it works on its machine."""
_LOOK_EVERY_S = 0.3


@contextmanager
def tenancy(
    home: Path, step: str, gpus: Sequence[Gpu], *, waiting: Callable[[str], None], log: Callable[[str], None]
) -> Iterator[None]:
    """Wait for the home's machine and then for the GPU, and hold both; `waiting` is told what for.

    The kernel lets go of the locks when this process ends, however it ends.
    """
    holder = f"{step} of {home}"
    with ExitStack() as held:
        _hold(held, home / MACHINE_LOCK, holder, lambda _: waiting("waiting for another step to leave the machine"))
        if gpu := chosen_gpu(gpus):
            if folder := _folder_of_all_homes():
                other = f"{gpu.name} to be left by"
                _hold(held, folder / f"{gpu.uuid}.lock", holder, lambda who: waiting(f"waiting for {other} {who}"))
            else:
                log("no private folder for locks below /run/user or /tmp: other homes on this GPU are not seen")
        yield


def _hold(held: ExitStack, path: Path, holder: str, waiting: Callable[[str], None]) -> None:
    while True:
        try:
            held.callback(os.close, take(path, wait_s=_LOOK_EVERY_S, holder=holder))
            return
        except Held:
            waiting(last_holder(path) or "another process")


def _folder_of_all_homes() -> Path | None:
    """A folder that every home of this user finds and nobody else can enter; None where there is none."""
    user = os.getuid()
    for folder in (Path(f"/run/user/{user}/tunesmith"), Path(f"/tmp/tunesmith-{user}")):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o077:
            return folder
    return None
