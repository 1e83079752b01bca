"""The last door before a terminal: whatever a model, a data set or a file said passes here, and can steer nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tunesmith.tools.core.format import HIDDEN, visible

_PIPE_COLUMNS = 100_000
"""Of what is no terminal: nobody's lines are broken there."""


class SafeConsole(Console):
    """A console whose texts hold no escape sequence, whoever wrote them; only rich's own control codes pass.

    What is longer than a line is the terminal's to break, and nothing is cut off.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        if not self.is_terminal and more.get("width") is None:
            self.width = _PIPE_COLUMNS

    @property
    def keeps_lines_whole(self) -> bool:
        """Whether no line is to be wrapped: there is no terminal, or it does not know how wide it is."""
        return not self.is_terminal or (self._width is None and not shutil.get_terminal_size((0, 0)).columns)

    def print(self, *objects: Any, crop: bool = False, **more: Any) -> None:
        """As rich does it, without cutting anything off."""
        super().print(*objects, crop=crop, **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it, every text with what it hides spelled out."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def json_text(value: object, *, default: Callable[[object], object] | None = None) -> str:
    """`value` as JSON for a pipe or a terminal: its letters readable, what a terminal might obey escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=default, allow_nan=False)
    except ValueError:  # a number that JSON has no word for: null, which every reader takes
        finite = json.loads(json.dumps(value, default=default), parse_constant=lambda name: None)
        text = json.dumps(finite, ensure_ascii=False)
    return HIDDEN.sub(lambda match: json.dumps(match[0])[1:-1], text)  # which can stand in its strings alone
