"""Numbers that files in a home bear already, so that a new store beside them gives none of them again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ARTIFACT_OF_A_SERVER = re.compile(r'"artifact": "a(\d+)"')


def highest_number(home: Path, letter: str) -> int:
    """The highest number of a run (`r`) or step (`s`) with a folder, or of an artifact (`a`) that a server serves.

    0 where there is none; nothing on the disk bears the number of an approval.
    """
    return max(_numbers(home, letter), default=0)


def _numbers(home: Path, letter: str) -> Iterator[int]:
    if letter == "a":
        for record in (home / "servers").glob("*.json"):
            with suppress(OSError):  # it ended just now
                yield from map(int, _ARTIFACT_OF_A_SERVER.findall(record.read_text(errors="replace")))
    if letter in ("r", "s"):
        for run in folders(home / "runs", "r"):
            yield from (int(folder.name[1:]) for folder in ([run] if letter == "r" else folders(run, "s")))


def folders(parent: Path, letter: str) -> list[Path]:
    """Folders that are named as a run or a step is, by their number; none where there is no such parent."""
    try:
        entries = [entry for entry in os.scandir(parent) if re.fullmatch(rf"{letter}[0-9]{{1,15}}", entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((Path(entry) for entry in entries if entry.is_dir()), key=lambda path: int(path.name[1:]))
