"""Answers kept in a file as they arrive, a JSON object a line, so that a killed step asks only for what is missing.

Not synced to the disk line by line: it survives a killed process, and what a power cut takes is asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self


class ResumableLog:
    """Open to be added to; a line that a kill cut off is ended first, and passed over when read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        if path.stat().st_size:
            self._file.write("\n")

    def add(self, entry: Mapping[str, object]) -> None:
        """Append an entry; it is in the file when this returns."""
        self._file.write(json.dumps(dict(entry)) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, object]]:
    """The whole entries of a log in the order in which they came; none where there is no file yet."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off, or empty
        if isinstance(entry, dict):  # `1` of a cut `123` is JSON as well
            entries.append(entry)
    return entries
