"""Digests of large files that nobody may write: one is hashed once, and again after anything happened to it.

A digest is remembered in HOME/digests.json under the file's device, inode, size, and the times of its last change of
bytes (mtime) and of anything (ctime). Every write, truncation, rename onto it, hard link, chmod and touch by way of
the system moves ctime, which no program can set. Trusted is what was remembered only where all of that holds:

- the file has no write bit; what may be written is hashed every time;
- it lies on a file system of this machine: over a network, its times are another machine's word, kept in a cache;
- it was last changed well before it was hashed, since a write in the same tick of the disk's clock would show the same
  time (as git's index calls it, racily clean); a clock that was set back counts as such.

Not covered: a program that mapped the file for writing before its write bits went, writes past the file system to the
disk itself, and bits that rot on it. `memory.files.verify` without this hashes every byte.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import stat
import sys
import time
from pathlib import Path

from tunesmith.memory.files import atomic_write, sha256_file

_NAME = "digests.json"
_LARGE_BYTES = 1 << 20
"""Below it hashing costs less than remembering."""
_RACY_NS = 3_000_000_000
"""More than the coarsest clock of a file system counts in (2 s)."""
_MOST = 1024
"""Files that are remembered, the newest: the memory is read and written whole."""
_LOCAL = frozenset((0xEF53, 0x58465342, 0x9123683E, 0x2FC12FC1, 0xF2F52010, 0xCA451A4E, 0x01021994, 0x794C7630))
"""statfs(2)'s numbers of ext2 to ext4, XFS, Btrfs, ZFS, F2FS, bcachefs, tmpfs and overlayfs."""


class Digests:
    """What is remembered below one home. A memory that is lost or cannot be written costs a hash, nothing else."""

    def __init__(self, home: Path) -> None:
        self._file = home / _NAME

    def sha256(self, path: Path) -> str:
        """Hex sha256 of a file's bytes, remembered or read. Raises OSError."""
        seen = path.stat()
        known = self._read().get(_key(seen)) if _trustworthy(path, seen) else None
        return str(known[-1]) if known and known[:-1] == _state(seen) else self.hashed(path)

    def hashed(self, path: Path) -> str:
        """The same, read whatever is remembered."""
        seen, before_ns = path.stat(), time.time_ns()
        digest = sha256_file(path)
        settled = before_ns - max(seen.st_mtime_ns, seen.st_ctime_ns) > _RACY_NS
        after = path.stat()
        if settled and _trustworthy(path, after) and (_key(seen), _state(seen)) == (_key(after), _state(after)):
            self._remember(_key(seen), [*_state(seen), digest])
        return digest

    def _read(self) -> dict[str, list[object]]:
        try:
            known = json.loads(self._file.read_bytes())
        except (OSError, ValueError):  # what is not remembered is hashed
            return {}
        return {key: of for key, of in known.items() if isinstance(of, list) and of} if isinstance(known, dict) else {}

    def _remember(self, key: str, entry: list[object]) -> None:
        known = self._read()
        known.pop(key, None)
        newest = dict([*known.items(), (key, entry)][-_MOST:])
        with contextlib.suppress(OSError):  # a full disk: it is hashed again next time
            atomic_write(self._file, json.dumps(newest), mode=0o600)  # as all of a home


def _key(seen: os.stat_result) -> str:
    return f"{seen.st_dev}:{seen.st_ino}"


def _state(seen: os.stat_result) -> list[object]:
    return [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]


def _trustworthy(path: Path, seen: os.stat_result) -> bool:
    """Whether the system's own account of a file may stand for its bytes."""
    writable = seen.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    return seen.st_size >= _LARGE_BYTES and stat.S_ISREG(seen.st_mode) and not writable and _is_local(path)


def _is_local(path: Path) -> bool:
    """Whether a file lies on a file system that keeps its times itself; False where that cannot be asked."""
    if sys.platform != "linux":
        return False
    answer = ctypes.create_string_buffer(256)  # struct statfs, whose first word is the kind
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), answer):
        return False
    word = ctypes.sizeof(ctypes.c_long)
    # signed, so a kind above 2³¹ may come with its sign
    return int.from_bytes(answer.raw[:word], sys.byteorder) & 0xFFFFFFFF in _LOCAL
