"""Answers of several models for a terminal: side by side where there is room, else one below the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from tunesmith.tools.core.format import duration, visible
from tunesmith.tools.pipeline.ask_models import Answer

SIDE_BY_SIDE_COLUMNS = 100  # two columns of the width below, and what parts them
_COLUMN_AT_LEAST = 48
"""Narrower columns break most lines of an answer: then the answers stand below each other."""


class AnswersView:
    """The answers, laid out for the width that there is; `title` heads each, else who gave it."""

    def __init__(self, answers: Sequence[Answer], title: Callable[[Answer], str] | None = None) -> None:
        self.answers = answers
        self.title = title or heading

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, count = options.max_width, len(self.answers)
        if count > 1 and width >= max(SIDE_BY_SIDE_COLUMNS, count * _COLUMN_AT_LEAST):
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), expand=True)
            for one in self.answers:
                table.add_column(Text(self.title(one), style="bold"), ratio=1, overflow="fold")
            table.add_row(*(_body(one) for one in self.answers))
            yield table
            return
        for number, one in enumerate(self.answers):
            if number:
                yield Text("")
            yield Text(self.title(one), style="bold")
            yield _body(one)


def heading(one: Answer) -> str:
    """Who answered, and how long it took."""
    return f"{one.arm} ({one.artifact}, {duration(one.seconds)})"


def plain_text(answers: Sequence[Answer]) -> str:
    """The same without a terminal: a block for each answer, its lines as they are."""
    return "\n".join(f"{heading(one)}\n{_text(one)}\n{_note(one)}" for one in answers)


def _body(one: Answer) -> Text:
    text, note = Text(_text(one)), _note(one)
    return text.append(f"\n{note.rstrip()}", style="yellow") if note else text


def _text(one: Answer) -> str:
    """The answer as data; one that is a JSON object or list with a line for each value."""
    if one.error:
        return f"no answer: {visible(one.error)}"
    try:
        value = json.loads(one.text)
    except (ValueError, RecursionError):  # a text, or JSON nested without end
        value = None
    if isinstance(value, dict | list) and value:
        return visible(json.dumps(value, indent=2, ensure_ascii=False))
    return visible(one.text.strip("\n")) or "(nothing)"


def _note(one: Answer) -> str:
    return f"(cut off: an answer has up to {one.cut_at_tokens} tokens here)\n" if one.cut_at_tokens else ""
