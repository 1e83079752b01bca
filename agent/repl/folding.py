"""A long page on the terminal: as much as a screen holds, and the rest for `/more`."""

from __future__ import annotations

import shutil

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments

_PROMPT_LINES = 5
"""Of a screen: the line that tells of the rest, an empty one, the prompt, and what stands under it."""
_FEW = 4
"""So few more lines are shown as well: to ask for them would cost as much room."""


class Folding:
    """Prints pages; keeps what did not fit of the newest long one."""

    def __init__(self) -> None:
        self._rest: list[list[Segment]] = []

    def show(self, console: Console, page: RenderableType) -> None:
        """Print a page from its beginning, and how many lines more there are."""
        room = _lines_of_screen() - _PROMPT_LINES
        lines = console.render_lines(page, pad=False) if room > 0 else []
        if room <= 0 or len(lines) <= room + _FEW:
            console.print(page)
        else:
            self._show(console, lines, room)

    def more(self, console: Console) -> bool:
        """Print the next screen of what was left; False where nothing is."""
        if not self._rest:
            return False
        room = max(_lines_of_screen() - _PROMPT_LINES, 1) if _lines_of_screen() else len(self._rest)
        self._show(console, self._rest, len(self._rest) if len(self._rest) <= room + _FEW else room)
        return True

    def _show(self, console: Console, lines: list[list[Segment]], count: int) -> None:
        self._rest = lines[count:]
        for line in lines[:count]:
            console.print(Segments([*line, Segment.line()]), end="", soft_wrap=True)
        if self._rest:
            console.print(f"… {len(self._rest)} more lines: /more", style="dim")


def _lines_of_screen() -> int:
    """0 where the terminal does not know: then nothing is folded."""
    return shutil.get_terminal_size(fallback=(0, 0)).lines
