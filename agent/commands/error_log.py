"""Where the traceback of a defect of ours is written: beside the store, else in a folder of this user's own in /tmp.

The temporary folder is everybody's: what somebody else put there under our name is neither followed nor added to.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tunesmith.tools.core.format import clip

_MOST_CHARACTERS = 2_000
"""Of the command line: a conversation's words are in it."""


def keep_traceback(error: BaseException, home: Callable[[], Path]) -> str:
    """Write a traceback down; where it is, in words. Raises nothing."""
    command = clip(shlex.join(sys.argv).replace("\n", "\\n"), _MOST_CHARACTERS)
    text = f"{time.strftime('%F %T')} {command}\n{''.join(traceback.format_exception(error))}\n"
    for at_home in (True, False):
        with contextlib.suppress(Exception):  # a home that is full, or that is itself what failed: then elsewhere
            folder = home() / "logs" if at_home else Path(tempfile.gettempdir()) / f"tunesmith-{os.geteuid()}"
            _append(folder, "errors.log", text)
            return f"the traceback is in {folder / 'errors.log'}"
    return "no log could be written"


def _append(folder: Path, name: str, text: str) -> None:
    """Add to a file that is ours, in a folder that only we can write to. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # a traceback may quote anything
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _need_ours(inside)
        # A link is not followed, and a FIFO not waited for: it may lie in a folder for everybody.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(name, flags, 0o600, dir_fd=inside)
        # What an argument held that is no UTF-8 must not keep its traceback from being written.
        with os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace") as file:
            if not stat.S_ISREG(_need_ours(fd).st_mode):
                raise OSError(f"{folder / name} is no regular file")
            file.write(text)
    finally:
        os.close(inside)


def _need_ours(fd: int) -> os.stat_result:
    """Raises PermissionError where another user owns what is open, or may write to it."""
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError("it is another user's, or others may write to it")
    return status
