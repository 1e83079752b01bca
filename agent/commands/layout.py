"""Text and tables in the width that is there: words are never broken, tables give columns up, pipes get plain lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tunesmith.agent.commands import theme
from tunesmith.tools.core.format import visible

_UNIT = re.compile(r"(?:`[^`\n]+`|“[^”\n]{1,48}”|\S)+")
"""What stays on one line: a word with all that touches it, a command in backticks, a suggestion in quotes."""
_BULLET = re.compile(r"\s*(?:[-*•+] |\d{1,2}[.)] )?")
_CODE_INDENT = 4
"""Lines indented so far are code, or what somebody is to copy: the terminal alone may break them."""
_HANG = 2
_FLOOR = 16
"""Characters that a column of sentences has at least; with less the row becomes a block."""
_SHORT = 26
"""Cells of so many characters stay on one line: names, numbers and words do; what is longer is a sentence."""
_PIPED_COLUMN = 48
"""Characters up to which a column is padded where nobody looks: longer cells push the rest of their line."""
_GAP = 2


@dataclass(frozen=True, slots=True)
class Prose:
    """Lines wrapped between words, with a hanging indent; where no terminal is they stay whole.

    `fold` breaks what is longer than a line: a name that others chose must not reach the beginning of another line.
    """

    text: Text
    hang: int | None = None
    """Columns that a continued line is indented by; else those of the line and of its bullet, and two more."""
    fold: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.text.split("\n", allow_blank=True):
            for part in [line] if _keeps_lines_whole(console) else self._wrapped(line, options.max_width):
                yield from _segments(console, part)

    def _wrapped(self, line: Text, width: int) -> Iterable[Text]:
        plain = line.plain
        indent = len(plain) - len(plain.lstrip(" "))
        if cell_len(plain) <= width or (indent >= _CODE_INDENT and self.hang is None):
            return [line]
        bullet = _BULLET.match(plain)
        hang = self.hang if self.hang is not None else max(indent + _HANG * bool(indent), bullet.end() if bullet else 0)
        # Half of a narrow terminal at most: the rest is for words.
        return self._broken(line, width, min(hang, width // 2))

    def _broken(self, line: Text, width: int, hang: int) -> Iterable[Text]:
        begin = end = 0
        units = list(_units(line.plain, width - hang))
        first = True
        for start, stop in units:
            room = width if first else width - hang
            if end > begin and cell_len(line.plain[begin:stop]) > room:
                yield self._indented(line[begin:end], 0 if first else hang)
                first, begin = False, start
            while self.fold and cell_len(line.plain[begin:stop]) > (room := width if first else width - hang):
                cut = begin + _fitting(line.plain[begin:stop], room)
                yield self._indented(line[begin:cut], 0 if first else hang)
                first, begin = False, cut
            end = stop
        if end > begin:
            yield self._indented(line[begin:end], 0 if first else hang)

    @staticmethod
    def _indented(part: Text, columns: int) -> Text:
        return Text(" " * columns) + part


def _keeps_lines_whole(console: Console) -> bool:
    return bool(getattr(console, "keeps_lines_whole", not console.is_terminal))  # set by our own consoles alone


def _units(plain: str, room: int) -> Iterable[tuple[int, int]]:
    """What may not be broken, from where to where; a command longer than a line is broken between its words."""
    for match in _UNIT.finditer(plain):
        if cell_len(match[0]) <= room:
            yield match.span()
        else:
            yield from (
                (match.start() + word.start(), match.start() + word.end()) for word in re.finditer(r"\S+", match[0])
            )


def _fitting(text: str, columns: int) -> int:
    """How many characters fit into so many columns; one at least."""
    width = 0
    for count, character in enumerate(text):
        width += cell_len(character)
        if width > columns:
            return max(count, 1)
    return len(text)


def _segments(console: Console, line: Text) -> Iterable[Segment]:
    yield from line.render(console)
    yield Segment.line()


def prose(value: object, *, hang: int | None = None) -> Prose:
    """Text as data, its commands, ids and verdicts in their colours: no markup, no escape sequence."""
    return Prose(theme.coloured(visible(value)), hang=hang)


Cell = str | Text


@dataclass(frozen=True, slots=True)
class Rows:
    """A table that fits: it gives up its `optional` columns, the first of them first, and then turns into blocks.

    Without a terminal it is one line a row, without frame and without blanks at the end.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    optional: Sequence[str] = ()
    numeric: frozenset[int] = frozenset()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not console.is_terminal:
            yield from self._piped(console)
            return
        fitting = self
        for dropped in self.optional:
            if fitting._room(options.max_width):
                break
            fitting = fitting._without(dropped)
        if fitting._room(options.max_width):
            yield fitting._table(options.max_width)
        else:
            yield from self._blocks()

    def _without(self, column: str) -> Rows:
        indexes = [index for index, name in enumerate(self.columns) if name != column]
        numeric = frozenset(new for new, old in enumerate(indexes) if old in self.numeric)
        rows = [[row[index] for index in indexes] for row in self.rows]
        return Rows([self.columns[index] for index in indexes], rows, (), numeric)

    def _least(self, index: int) -> int:
        """The columns that a column needs: of short cells all, of sentences the longest word, and some room."""
        heading = max((cell_len(word) for word in self.columns[index].split()), default=0)
        cells = [_plain(row[index]) for row in self.rows]
        longest = max((cell_len(line) for cell in cells for line in cell.split("\n")), default=0)
        if longest <= _SHORT:
            return max(longest, heading)
        words = max((cell_len(unit) for cell in cells for unit in cell.split()), default=0)
        return max(words, heading, _FLOOR)

    def _natural(self, index: int) -> int:
        cells = [self.columns[index], *(_plain(row[index]) for row in self.rows)]
        return max((cell_len(line) for cell in cells for line in cell.split("\n")), default=0)

    def _room(self, width: int) -> bool:
        return sum(self._least(index) + _GAP for index in range(len(self.columns))) <= width

    def _widths(self, width: int) -> list[int]:
        """As wide as it wants to be, else what is over the least shared out among those that want more."""
        places = range(len(self.columns))
        widths, wanted = [self._least(i) for i in places], [self._natural(i) for i in places]
        left = width - sum(widths) - _GAP * len(widths)
        while left > 0 and (short := [i for i in places if widths[i] < wanted[i]]):
            share = max(left // len(short), 1)
            for index in short[:left]:
                more = min(share, wanted[index] - widths[index])
                widths[index] += more
                left -= more
        return widths

    def _table(self, width: int) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD if any(self.columns) else None,
            show_header=any(self.columns),
            padding=(0, 1, 0, 0),
            show_edge=False,
            pad_edge=False,
            header_style="bold",
        )
        for index, (name, columns) in enumerate(zip(self.columns, self._widths(width), strict=True)):
            justify: Literal["left", "right"] = "right" if index in self.numeric else "left"
            table.add_column(visible(name), width=columns, justify=justify, overflow="fold")
        for row in self.rows:
            table.add_row(*(_text(cell) for cell in row))
        return table

    def _blocks(self) -> Iterable[RenderableType]:
        """Each row as its short cells in a line, and the long ones below it."""
        for row in self.rows:
            named = list(zip(self.columns, row, strict=True))[1:]
            short = [(name, cell) for name, cell in named if cell_len(_plain(cell)) <= _SHORT and _plain(cell)]
            head = Text(" · ").join([_text(row[0]), *(_field(name, cell) for name, cell in short)])
            yield Prose(head, hang=_HANG)
            for name, cell in named:
                if cell_len(_plain(cell)) > _SHORT:
                    yield Prose(Text("  ") + _field(name, cell), hang=2 * _HANG)

    def _piped(self, console: Console) -> Iterable[Segment]:
        lines = [
            list(map(visible, self.columns)),
            *([_plain(cell).replace("\n", " ") for cell in row] for row in self.rows),
        ]
        widths = [min(max(cell_len(line[i]) for line in lines), _PIPED_COLUMN) for i in range(len(self.columns))]
        for line in lines:
            padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
            yield from _segments(console, Text("  ".join(padded).rstrip()))


def _field(name: str, cell: Cell) -> Text:
    return Text(f"{visible(name)}: " if name else "", style=theme.LABEL) + _text(cell)


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(visible(cell))


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else visible(cell)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Names beside what they name, one an entry: `  time    about 3 min`. What goes on is indented under its value."""

    entries: Sequence[tuple[str, Text]]
    indent: int = 2
    fold: bool = True
    """As of `Prose`."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max((len(name) for name, _ in self.entries), default=0) + self.indent + _GAP
        for name, value in self.entries:
            line = Text(" " * self.indent) + Text(name.ljust(width - self.indent), style=theme.LABEL) + value
            yield Prose(line, hang=width, fold=self.fold)
