"""What tunesmith writes is for its user alone. Light: every command line calls it before anything else."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from tunesmith.memory.errors import BadInput

_STORE = "tunesmith.db"
_OURS = ("servers", "runs", "models", "logs", "history", "settings.toml", "accelerator.lock", ".migrate.lock")
_FOLDERS = ("servers", "runs", "models", "locks", "downloads", "behaviours", "exports", "dry-loads")
_OUR_ENTRIES = {*_OURS, *_FOLDERS, "backups", "rates.json", "driver-probe.json", "conversations.jsonl"}
_OUR_ENTRIES |= {"lost+found"}  # a disk of its own begins with it


def keep_private() -> None:
    """What this process and its children make from now on is for their user alone; for every entry point to call."""
    os.umask(0o077)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter, or tighten one that is there, as far as its file system lets us.

    Only one that is empty, or holds nothing but what is ours, is tightened. Raises BadInput for one that others may
    enter and that holds something else, for it is a home by mistake. Where our store lies already in such a one (the
    user's own home, or one for everybody such as /tmp) it stays as it is, and what lies directly in it and was made by
    tunesmith is closed instead. Raises BadInput, too, where something else stands in the place of a folder of ours.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # its user's alone
    if folder.stat().st_mode & 0o077 and not (folder / _STORE).exists() and (theirs := _not_ours(folder)):
        raise BadInput(
            f"{folder} is no home of tunesmith: it holds {theirs}, and a home is closed to everybody else; set "
            "TUNESMITH_HOME to a new or empty folder, such as one in it"
        )
    for path in (folder / name for name in _FOLDERS):
        # A link may lead to another disk, and that may not be there.
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise BadInput(
                f"{path} is no folder, and tunesmith keeps its {path.name} in one; move it away, or mount the disk "
                "that it leads to"
            )
    shared = folder == Path.home() or folder.stat().st_mode & stat.S_ISVTX  # sticky, as /tmp is
    for path in [*folder.glob(f"{_STORE}*"), *(folder / name for name in _OURS)] if shared else [folder]:
        with contextlib.suppress(OSError):  # a file system that knows no modes, or a file of somebody else
            if (mode := path.stat().st_mode) & 0o077:
                path.chmod(stat.S_IMODE(mode) & ~0o077)


def _not_ours(folder: Path) -> str:
    """Something in a folder that tunesmith did not put there; empty where all is ours."""
    return next((path.name for path in sorted(folder.iterdir()) if path.name not in _OUR_ENTRIES), "")
