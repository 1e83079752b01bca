"""What tunesmith writes is for its user alone. Light: every command line calls it before anything else."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_OURS = ("servers", "runs", "models", "logs", "history", "settings.toml", "accelerator.lock", ".migrate.lock")


def keep_private() -> None:
    """What this process and its children make from now on is for their user alone; for every entry point to call."""
    os.umask(0o077)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter, or tighten one that is there, as far as its file system lets us.

    A folder that is not ours to close (the user's own home, or one for everybody such as /tmp) stays as it is, and
    what lies directly in it and was made by tunesmith is closed instead.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    shared = folder == Path.home() or folder.stat().st_mode & stat.S_ISVTX
    for path in [*folder.glob("tunesmith.db*"), *(folder / name for name in _OURS)] if shared else [folder]:
        with contextlib.suppress(OSError):
            if (mode := path.stat().st_mode) & 0o077:
                path.chmod(stat.S_IMODE(mode) & ~0o077)
