"""What a model, a row or a file says reaches a terminal as text: nothing of it moves a cursor or hides a word."""

from __future__ import annotations

import argparse
import io
import json
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from rich.table import Table
from rich.text import Text

from tests.fixtures.tables import table
from tunesmith.agent import oneshot
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.terminal import SafeConsole, json_text
from tunesmith.agent.driver.voice import Reply
from tunesmith.tools.core.format import visible

STEERS = frozenset(
    [
        *range(0x00, 0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0),  # C0 but for tab and newline, DEL, C1
        0x061C, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070),  # bidi, zero width, separators
        *range(0xD800, 0xE000), 0xFEFF, *range(0xFFF9, 0x10000), *range(0xE0000, 0xE0080),  # halves, BOM, tags
    ]
)  # fmt: skip
"""Code points that a terminal obeys, or that hide or reorder others; a list of its own, not the one under test."""
EVIL = [
    "\x1bc",
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x9b2J",
    "\x9d0;owned\x9c",
    "\u202egnp.exe",
    "a\x00b",
    "\u2066x",
    "\U000e0041",
    "\x7f",
    "\r",
]


def harmless(text: str) -> bool:
    return not STEERS & set(map(ord, text))


def test_every_character_that_steers_a_terminal_is_spelled_out_and_no_other_is() -> None:
    codes = [code for code in range(0x110000) if code != ord("\r")]
    told = "".join(f"⟨U+{code:04X}⟩" if code in STEERS else chr(code) for code in codes)
    assert visible("".join(map(chr, codes))) == told
    assert harmless(visible("a\r\nb\rc")) and visible("a\r\nb") == "a\nb"


@table("evil", EVIL)
def test_a_console_prints_no_text_that_steers_the_terminal(evil: str) -> None:
    table = Table(evil, title=evil)
    table.add_row(Text(f"a{evil}b"))
    for shown in (f"said {evil}", Text(evil), table):
        out = io.StringIO()
        SafeConsole(file=out, width=100).print(shown, markup=False)
        assert harmless(out.getvalue()), ascii(out.getvalue())


def test_colours_of_our_own_still_reach_a_terminal() -> None:
    out = io.StringIO()
    SafeConsole(file=out, force_terminal=True, color_system="standard").print(Text("fine", style="red"))
    assert "\x1b[31mfine" in out.getvalue()


@table("evil", [*EVIL, "\ud800"])
def test_json_says_the_same_without_a_character_that_a_terminal_obeys(evil: str) -> None:
    text = json_text({f"key {evil}": ["ä", evil]})
    assert harmless(text) and "ä" in text and json.loads(text) == {f"key {evil}": ["ä", evil]}


@table("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_json_has_no_word_for_is_null(value: float) -> None:
    assert json.loads(json_text({"a": [1.5, value, "ä"]}), parse_constant=pytest.fail) == {"a": [1.5, None, "ä"]}


@pytest.mark.parametrize("evil", EVIL)
def test_a_reply_for_a_script_is_printed_as_text(evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    turn = object.__new__(oneshot._Turn)
    turn.out = Output()
    said: Future[Reply] = Future()
    said.set_result(Reply(f"done {evil} it is"))
    turn.chat = SimpleNamespace(cancel=lambda: None)  # type: ignore[assignment]
    turn._tell(argparse.Namespace(), said)  # type: ignore[arg-type]
    told = capsys.readouterr().out
    assert told.startswith("done") and harmless(told), ascii(told)
