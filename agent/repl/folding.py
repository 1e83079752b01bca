"""A long page on the terminal: as much as a screen holds, and the rest for `/more`."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from itertools import accumulate

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments

_PROMPT_LINES = 6
"""Of a screen: what was typed, a line above the page, the one that tells of the rest, the prompt, the bar under it."""
_FEW = 2
"""So few more lines are shown as well: to ask for them would cost as much room."""


class Folding:
    """Prints pages; keeps what did not fit of the newest long one."""

    def __init__(self) -> None:
        self._rest: list[list[Segment]] = []
        self.open = False
        """Whether the newest thing on the screen is a page that goes on: then Enter goes on with it."""

    def show(self, console: Console, page: RenderableType) -> None:
        """Print a page from its beginning, and how many lines more there are."""
        lines = list(Segment.split_lines(console.render(page, console.options)))
        room = _lines_of_screen() - _PROMPT_LINES
        count = _fitting(lines, room, console.width) if room > 0 else len(lines)
        self._show(console, lines, count)

    @property
    def left(self) -> bool:
        """Whether a page has more than was shown of it."""
        return bool(self._rest)

    def more(self, console: Console) -> bool:
        """Print the next screen of what was left; False where nothing is."""
        if not self._rest:
            return False
        room = max(_lines_of_screen() - _PROMPT_LINES, 1) if _lines_of_screen() else 0
        self._show(console, self._rest, _fitting(self._rest, room, console.width) if room else len(self._rest))
        return True

    def _show(self, console: Console, lines: list[list[Segment]], count: int) -> None:
        self._rest = lines[count:]
        self.open = bool(self._rest)
        for line in lines[:count]:
            console.print(Segments([*line, Segment.line()]), end="", soft_wrap=True)
        if self._rest:
            console.print(f"… {len(self._rest)} more lines: /more or Enter", style="dim")


def _fitting(lines: list[list[Segment]], room: int, width: int) -> int:
    """How many lines fit into so many rows of the screen, one at least; all of them where that is a few rows more."""
    rows = [max(1, -(-Segment.get_line_length(line) // width)) for line in lines]
    if sum(rows) <= room + _FEW:
        return len(lines)
    return max(bisect_right(list(accumulate(rows)), room), 1)


def _lines_of_screen() -> int:
    """0 where the terminal does not know: then nothing is folded."""
    return shutil.get_terminal_size(fallback=(0, 0)).lines
