"""The pictures of the documents: what a real terminal shows, typed into the REPL and never drawn by hand.

`make picture PICTURE_HOME=HOME` draws the README's, over a home with a finished run, and the conversations of
docs/screens.md, over a fresh home and over a run that is made for the tests.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.fixtures import stored_runs
from tests.fixtures.tmux import ROOT, Tmux

PICTURE = ROOT / "docs" / "terminal.svg"
SCREENS = ROOT / "docs" / "screens.md"
COLUMNS, LINES = 96, 42
TYPED = (("compare", "next:"), ("/train lora_rank=8", "Start?"))
"""Lines, and words of what answers them. The last one is a price, which stays without an answer."""

_ABOUT = """# What it looks like

Three conversations in a real terminal, whole and as text. On a terminal verdicts, commands, ids and prices are coloured
(`NO_COLOR=1` leaves that out); into a pipe goes the same without frames, each line whole. Made by `make picture`.
"""


def _nothing(home: Path) -> None:
    """A home in which nothing was done."""


@dataclass(frozen=True)
class Conversation:
    """What is typed on a terminal of this size, and what the page says of it."""

    title: str
    about: str
    size: tuple[int, int]
    typed: tuple[tuple[str, str], ...]
    made: Callable[[Path], object] = stored_runs.finished_run


CONVERSATIONS = (
    Conversation(
        "The start, and a price",
        "A step that costs something is asked about, each time. `why` shows the rest of the plan; anything that is no "
        "clear yes starts nothing.",
        (80, 24),
        (("/base model=bundled", "Start?"), ("no, not today", "declined")),
        _nothing,
    ),
    Conversation(
        "Two arms compared",
        "The verdict, the table, then up to five cases lost and five that still fail: what was asked, what the model "
        "answered, what was wanted. Enter goes on with a page that does not fit; `--all` gives every case. Blind cases "
        "are counted and never shown.",
        (80, 24),
        (("compare", "/more or Enter"),),
    ),
    Conversation(
        "A question, and what the records say",
        "A model may say it in its own words; every number in its answer is held to the records.",
        (120, 40),
        (("did it learn what i wanted", "❯"), ("explain", "next:")),
    ),
)


def shown(conversation: Conversation) -> str:
    """A conversation as the page has it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        conversation.made(home)
        terminal = Tmux(home, *conversation.size)
        try:
            terminal.wait("try ")
            terminal.settle()
            for line, words in conversation.typed:
                terminal.type(line, words)
                terminal.settle()
            lines = [line.rstrip() for line in terminal.text.splitlines()]
        finally:
            terminal.close()
    columns, rows = conversation.size
    text = "\n".join(line for line in lines if line)
    return f"## {conversation.title} ({columns} × {rows})\n\n{conversation.about}\n\n```text\n{text}\n```\n"


def screen(home: Path) -> str:
    """What the terminal of the README shows after all lines were typed, with its colours."""
    terminal = Tmux(home, COLUMNS, LINES)
    try:
        terminal.wait("try ")
        for line, words in TYPED:
            terminal.type(line, words)
            terminal.settle()
        return terminal.coloured_screen
    finally:
        terminal.close()


def main() -> None:
    """Draw the picture of the home that is named, and the screens."""
    SCREENS.write_text("\n".join([_ABOUT, *map(shown, CONVERSATIONS)]))
    print(f"{SCREENS} shows {len(CONVERSATIONS)} conversations")
    home = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    if home is None or not (home / "tunesmith.db").is_file():
        sys.exit("PICTURE_HOME names no home with a finished run; `TUNESMITH_HOME=HOME make demo` makes one")
    lines = [line for line in screen(home).splitlines() if Text.from_ansi(line).plain.strip()]
    console = Console(width=COLUMNS, record=True, file=io.StringIO())
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    PICTURE.write_text(console.export_svg(title="tunesmith", theme=MONOKAI))
    print(f"{PICTURE} shows {len(lines)} lines")


if __name__ == "__main__":
    main()
