"""Where things lie, as the store writes it: what is inside the home by its place in it, all else by its own path.

A home can be moved, copied, and reached by a link. `stored` is the one way in and `present` the one way out; both go
through the texts of whole documents, because a path also stands in requests, in plans and in sentences. Not covered:
what a person or a model said (conversations, rows, answers), and files that were sealed with a path in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")
HOME_MARK = "$TUNESMITH_HOME"
_BEGINS = r"(?<![\w./~$-])"
"""No path goes on to the left: `/mnt/home/x` does not lie in `/home/x`."""
_ENDS = r"(?![\w~-]|\.[\w.])"
_MARKED = re.compile(_BEGINS + re.escape(HOME_MARK) + _ENDS)
_LEAVES = re.compile(r"(/[^/\s\"']+)*?/\.\.(/|$|[\s\"'])")
"""What follows the home in a path that goes up again, so that it may end outside."""


class Places:
    """The paths of one home, as it is called now."""

    def __init__(self, home: Path) -> None:
        """`home` is where it is opened, which may be by a link."""
        self._home = str(home.absolute())
        names = {self._home, str(home.resolve())} - {"/"}
        longest_first = sorted(names, key=len, reverse=True)
        self._inside = re.compile(f"{_BEGINS}(?:{'|'.join(map(re.escape, longest_first))}){_ENDS}") if names else None

    def stored(self, value: T) -> T:
        """A path, or a JSON document, as it is written down: equal in every place that the home may have."""
        return cast("T", _each_text(value, self._stored_text))

    def present(self, value: T) -> T:
        """The same as it is to be used now, below the home as it was opened."""
        return cast("T", _each_text(value, self._present_text))

    def path(self, stored: str) -> Path:
        """The path that was written down, below the home as it was opened."""
        return Path(self._present_text(stored))

    def to_json(self, value: object) -> str:
        """The JSON text that the store keeps of a document in which paths may stand."""
        return json.dumps(self.stored(value), ensure_ascii=False, sort_keys=True, default=str)

    def from_json(self, text: str) -> Any:
        """The document that was written as this text."""
        document = json.loads(text)
        return self.present(document) if HOME_MARK in text else document

    def _stored_text(self, text: str) -> str:
        if self._inside is None or "/" not in text:
            return text
        return self._inside.sub(lambda match: match[0] if _LEAVES.match(text, match.end()) else HOME_MARK, text)

    def _present_text(self, text: str) -> str:
        return _MARKED.sub(lambda _: self._home, text) if HOME_MARK in text else text


def _each_text(value: object, change: Callable[[str], str]) -> object:
    """A document with every text in it changed, the names of its fields too; a path counts as its text."""
    if isinstance(value, str | Path):
        return change(str(value))
    if isinstance(value, dict):
        return {change(key) if isinstance(key, str) else key: _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(item, change) for item in value]
    return value
