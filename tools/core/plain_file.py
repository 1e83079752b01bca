"""Text files that a user names: reading one that a stranger may have written, and writing one that replaces nothing
unasked.

What is read is a regular file, within bounds, and waits for nothing. What is written is whole or absent, and for its
user alone.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path

from tunesmith.memory.errors import BadInput, NotFound, disk_is_full
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.local_paths import expanded, is_folder

MAX_BYTES = 10 * 1024 * 1024
"""More than suites, settings and descriptions have; a file is in memory at once, and a larger one was named by
mistake."""
_KEY_BYTES = 1 << 16


def read_plain_text(path: Path, limit_bytes: int = MAX_BYTES, *, through_link: bool = True) -> str:
    """The UTF-8 text of a regular file of at most `limit_bytes`. Raises BadInput, NotFound where nothing is there.

    Without `through_link` the file itself may be no symbolic link: nobody named it, it lies in a folder that was named.
    """
    try:
        # Non-blocking, so that a named pipe is refused instead of waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if through_link else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP and not through_link:
            raise BadInput(f"{path}: is a symbolic link; put a copy of the file there") from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"{path} is not there; check the name") from None
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the name and the rights") from None
    except ValueError:  # a NUL
        raise BadInput(f"{str(path)[:300]!r} is no file name") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        kind = "a folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "not a regular file"
        os.close(fd)
        raise BadInput(f"{path} is {kind}; name a text file")
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise BadInput(f"{path}: over {limit_bytes >> 20} MB; split it into several files")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: not UTF-8 text; save it as UTF-8") from None


def read_key(path: Path, section: str, setting: str) -> str:
    """The one word of a file that holds a key. Raises BadInput where others may read it, or where it holds none.

    `section` of settings.toml names it by `setting`.
    """
    where = f"settings.toml, [{section}]:"
    try:
        with path.open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(_KEY_BYTES)
    except (OSError, ValueError) as error:  # none there, no rights, or a NUL in its name
        reason = getattr(error, "strerror", None) or "it is no file name"
        raise BadInput(f"{where} cannot read {setting} {path}: {reason}") from None
    if mode & 0o077:
        raise BadInput(
            f"{where} {setting} {path} is open to other users (mode {stat.S_IMODE(mode):04o}); type `chmod 600 "
            f"{shlex.quote(str(path))}`, and change the key where one of them may have read it"
        )
    key = data.decode(errors="replace").strip()
    if not key or not key.isascii() or any(character.isspace() for character in key):
        raise BadInput(f"{where} {setting} {path} holds no key: one word of ASCII is expected")
    return key


def writable(name: str, *, force: bool = False) -> Path:
    """The path of a file that a user wants written, with its folder there and nothing in its place. Raises BadInput.

    With `force` it may be a regular file, which is replaced. A link, a device or a pipe is never written to.
    """
    path = expanded(name)
    if name in ("", "-") or not path.name or path.name == "..":
        raise BadInput(f"{name!r} names no file; name one, such as ./rows.jsonl")
    if not is_folder(path.parent):
        raise BadInput(f"there is no folder {path.parent}; make it first, or name another one")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # nothing in its place
        return path
    except (OSError, ValueError) as error:  # a name too long, no rights, a NUL
        raise BadInput(f"cannot write {name[:300]!r}: {_reason(error)}; name another file") from None
    if stat.S_ISDIR(mode):
        raise BadInput(f"{path} is a folder; name a file in it, such as {path / 'rows.jsonl'}")
    if not stat.S_ISREG(mode):
        raise BadInput(f"{path} is a {_KINDS.get(stat.S_IFMT(mode), 'device')}; name a regular file")
    if not force:
        raise BadInput(f"{path} is there already; --force replaces it, or name another file")
    return path


_KINDS = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


def write_private_text(name: str, text: str, *, force: bool = False) -> Path:
    """Write a text where its user wants it, readable by nobody else; the file. Raises BadInput as `writable` does."""
    path = writable(name, force=force)
    try:
        atomic_write(path, text, mode=0o600, new=not force)  # a user's own rows and answers
    except FileExistsError:
        raise BadInput(f"{path} was made by another program just now; name another file") from None
    except OSError as error:  # a full disk is told by whoever knows what is needed
        if disk_is_full(error):
            raise
        raise BadInput(f"cannot write {path}: {_reason(error)}; name another file") from None
    return path


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
