"""A page longer than the screen begins at its beginning, and all of it can be had, each line once."""

from __future__ import annotations

import io
from functools import partial

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.document import Document
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from tests.fixtures.tables import table
from tests.fixtures.terminal import Terminal, Tunesmith
from tunesmith.agent.commands import render
from tunesmith.agent.repl.folding import Folding
from tunesmith.agent.repl.repl import _Session


def shown(folding: Folding, *, lines: int, screen: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a page and as many `/more` as there are print, screen by screen."""
    monkeypatch.setenv("LINES", str(screen))
    monkeypatch.setenv("COLUMNS", "60")
    console = Console(file=io.StringIO(), width=60)
    screens: list[str] = []

    def take() -> None:
        assert isinstance(console.file, io.StringIO)
        screens.append(console.file.getvalue()[sum(map(len, screens)) :])

    folding.show(console, "\n".join(f"line {n}" for n in range(lines)))
    take()
    while folding.more(console):
        take()
    return screens


@table(("lines", "screen"), [(3, 24), (19, 24), (23, 24), (24, 24), (48, 24), (500, 24), (48, 5)])
def test_every_line_is_shown_once_and_no_screen_is_more_than_full(
    lines: int, screen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screens = shown(Folding(), lines=lines, screen=screen, monkeypatch=monkeypatch)
    there = [line.strip() for text in screens for line in text.splitlines() if not line.startswith("…")]
    assert there == [f"line {n}" for n in range(lines)]
    assert screen < 6 or all(len(text.splitlines()) < screen for text in screens)
    counts = [sum(not line.startswith("…") for line in text.splitlines()) for text in screens]
    for n, text in enumerate(screens[:-1], 1):
        assert text.splitlines()[-1] == f"… {sum(counts[n:])} more lines: /more or Enter"


def test_a_terminal_that_does_not_know_its_size_folds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = shown(Folding(), lines=300, screen=0, monkeypatch=monkeypatch)
    assert len(whole.splitlines()) == 300


def test_what_a_page_styles_is_styled_on_every_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "12")
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    folding = Folding()
    folding.show(console, render.rows_table(["a", "b"], [[str(n), "x" * 30] for n in range(30)]))
    first = console.file.getvalue()  # type: ignore[attr-defined]
    assert folding.more(console)
    assert "\x1b[" in first and "\x1b[" in console.file.getvalue()[len(first) :]  # type: ignore[attr-defined]


def ended(terminal: Terminal, place: int) -> bool:
    return any(end in terminal.text[place:] for end in ("more lines: /more", "/deploy", "nothing is left"))


@pytest.mark.heavy
def test_help_on_a_small_terminal_is_had_screen_by_screen(tunesmith: Tunesmith) -> None:
    terminal = Terminal((), tunesmith.env, size=(30, 110))
    terminal.expect("tunesmith ❯")
    place = terminal.line("/help")
    terminal.expect("more lines: /more", after=place)
    first = terminal.text[place:]
    assert "more lines: /more" in first and "/runs" in first and "/deploy" not in first
    while "/deploy" not in terminal.text[place:]:
        place = terminal.line("")
        terminal.wait(partial(ended, terminal, place))
        assert "nothing is left" not in terminal.text[place:]
    place = terminal.line("/more")
    terminal.expect("nothing is left of a page", after=place)
    terminal.line("/quit")


def test_no_line_of_the_screen_is_kept_for_a_menu_that_is_not_there() -> None:
    """Eight blank lines below the prompt would push the first lines of a page off the screen."""
    with create_app_session(output=DummyOutput()):
        session = _Session("❯ ")
        assert session.reserve_space_for_menu == 0
        session.default_buffer.reset(Document("/he"))
        assert session.reserve_space_for_menu >= 4
