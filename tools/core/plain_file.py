"""Reading a text file that a stranger may have written: a regular one, within bounds, and waiting for nothing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.yaml_nodes import MAX_BYTES


def read_plain_text(path: Path, limit_bytes: int = MAX_BYTES, *, through_link: bool = True) -> str:
    """The UTF-8 text of a regular file of at most `limit_bytes`. Raises BadInput.

    Without `through_link` the file itself may be no symbolic link: nobody named it, it lies in a folder that was named.
    """
    try:
        # Non-blocking, so that a named pipe is refused instead of waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if through_link else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP and not through_link:
            raise BadInput(f"{path}: is a symbolic link; put a copy of the file there") from None
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the name and the rights") from None
    except ValueError:  # a NUL
        raise BadInput(f"{str(path)[:300]!r} is no file name") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadInput(f"{path}: is not a regular file; name a text file")
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise BadInput(f"{path}: over {limit_bytes >> 20} MB; split it into several files")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: not UTF-8 text; save it as UTF-8") from None
