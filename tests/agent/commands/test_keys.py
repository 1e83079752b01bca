"""A key is what a person presses by itself: no sequence that a terminal sends marks a row or judges an answer."""

from __future__ import annotations

import itertools
import os
import pty
import string
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.commands.test_rate import answer, right
from tests.agent.commands.test_rows import SAID, made_rows
from tests.fixtures.askable import Home
from tests.fixtures.tables import table
from tests.fixtures.terminal import Terminal, Tunesmith
from tests.fixtures.waiting import HANG_S
from tunesmith.agent.cli import main
from tunesmith.agent.commands import keys as keys_
from tunesmith.agent.commands.keys import keys, line
from tunesmith.memory.marks import marks_of
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.rate_answers import Sitting

PAUSE = b""
"""In what is typed: nothing comes for longer than between two bytes of a sequence."""
OPENING = "[O?P]X^_"
"""With Alt a key of these begins a sequence, which the next one would belong to, or a pause ends."""
LETTERS = string.ascii_letters + string.digits
MODIFIERS = ("", *map(str, range(2, 17)))
PRESSED = b"kKdD35yYnNqbe/ \r"
"""Each of them does something in `review` or in `rate`."""


def function_keys() -> Iterator[str]:
    """Arrows, Home, End, the block of six, F1 to F20 and Tab, with each modifier, as xterm and its likes send them."""
    numbers = (*range(1, 9), *range(11, 16), *range(17, 22), *range(23, 27), 28, 29, *range(31, 35))
    for modifier in MODIFIERS:
        for final in "ABCDEFGHPQRSZ":
            yield from (f"\x1bO{modifier}{final}", f"\x1b[{modifier and f'1;{modifier}'}{final}")
            yield from (f"\x1b[{modifier}{final}", f"\x1b[>{modifier and f'1;{modifier}'}{final}")
        for number in numbers:
            yield from (f"\x1b[{number}{end}" for end in (f";{modifier}~" if modifier else "~", "^", "@"))
        yield from (f"\x1bO{modifier}{key}" for key in " IMXjklmnopqrstuvwxyabcd")  # the keypad's, and rxvt's arrows
    yield from (f"\x1b[[{final}" for final in "ABCDE")  # F1 to F5 of the Linux console
    yield from (f"\x1b[{final}" for final in "abcdIO")  # rxvt's arrows with Shift; the focus comes and goes


def with_alt() -> Iterator[str]:
    """Alt, and where a terminal says so any modifier, with letters, digits, marks and keys that are sequences."""
    for key in (key for key in string.printable if key not in OPENING):
        yield f"\x1b{key}"
    yield from ("\x1b\x1b[D", "\x1b\x1bOD", "\x1b\x1b[3~", "\x1b\x1b\x1b[D", "\x1bé", "\x1b日", "\x1b\x7f")
    yield from (f"\x1b{key}\x1b[A" for key in ("", *OPENING))
    for modifier, key in itertools.product(MODIFIERS[1:], LETTERS):
        yield from (f"\x1b[27;{modifier};{ord(key)}~", f"\x1b[{ord(key)};{modifier}u")
    yield from (f"\x1b?{key}" for key in "jklmnopqrstuvwxy")  # a VT52's keypad


def reports() -> Iterator[str]:
    """What a terminal says by itself, a mouse, and a paste."""
    for pressed in ("kd3", "yny", "k" * 100):
        yield from (f"\x1b{opens}{pressed}{ends}" for opens in "P]_^X" for ends in ("\x07", "\x1b\\"))
        yield from (f"\x1b[M{pressed[:3]}", f"\x1b[200~{pressed}\r{pressed} é日\x1b[Dk\x1b[201~")
    yield from (f"\x1b[<{button};10;10{final}" for button in (0, 2, 35, 64) for final in "Mm")
    yield from ("\x1b[32;10;10M", "\x1b[12;40R", "\x1b[?64;1;2c", "\x1b[?2004;1$y", "\x1b[?0u", "\x1b[8;24;80t")
    yield "\x1b[" + ";".join("1" * 100) + "k"


SEQUENCES = [one.encode() for one in (*function_keys(), *with_alt(), *reports())]
EIGHT_BIT = [b"\x9bD", b"\x9b3~", b"\x9b1;5D", b"\x8fk", b"\x1b[M\xff\xee\xdd", b"\x1b[M\x20\xc3k"]
"""Those of a terminal without UTF-8, and a mouse's bytes."""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], str]]:
    """A reader of keys of whatever is typed, without a terminal and without its time."""

    def reader(*pieces: bytes) -> Callable[[], str]:
        waiting = deque(one for piece in pieces for one in ([piece[n : n + 1] for n in range(len(piece))] or [PAUSE]))

        def read(wait_s: float | None, most: int = 1) -> bytes:
            while wait_s is None and waiting and waiting[0] == PAUSE:
                waiting.popleft()
            return waiting.popleft() if waiting else b""

        monkeypatch.setattr(keys_, "_read", read)
        return keys_._key

    return reader


def test_a_sequence_is_no_key_and_what_is_typed_behind_it_is_one(typed: Callable[..., Callable[[], str]]) -> None:
    def is_told_apart(sequence: bytes, pressed: int) -> bool:
        key = typed(sequence + bytes([pressed]))
        return (key(), key()) == (chr(pressed).lower(), "")

    every = [*SEQUENCES, *EIGHT_BIT]
    pairs = zip(every, itertools.cycle(PRESSED), strict=False)
    assert len(every) > 4000 and [one for one, pressed in pairs if not is_told_apart(one, pressed)] == []


@table("opening", ["", *OPENING])
def test_a_pause_ends_what_may_be_a_key_of_its_own(typed: Callable[..., Callable[[], str]], opening: str) -> None:
    key = typed(b"\x1b" + opening.encode(), PAUSE, b"k")
    assert (key(), key()) == ("k", "")


def test_a_paste_lasts_until_the_terminal_says_that_it_ends(typed: Callable[..., Callable[[], str]]) -> None:
    key = typed(b"\x1b[200~kd", PAUSE, b"3\x1b", PAUSE, b"[20", PAUSE, b"1~y")
    assert (key(), key()) == ("y", "")
    assert typed(b"\x1b[200~kd", PAUSE)() == "", "or is closed"


@table(
    ("pressed", "is_"),
    [
        ("K", "k"),
        ("é", "é"),
        ("日", "日"),
        ("😀", "😀"),
        ("\N{KELVIN SIGN}", "\N{KELVIN SIGN}"),
        ("\x7f", "\x7f"),
        ("\x04", "\x04"),
    ],
)
def test_a_character_is_one_key_however_many_bytes_it_has(
    typed: Callable[..., Callable[[], str]], pressed: str, is_: str
) -> None:
    key = typed(pressed.encode() + b"k")
    assert (key(), key(), key()) == (is_, "k", "")


@table("byte", [b"\x80", b"\xa0", b"\xc0", b"\xff"])
def test_a_byte_of_no_character_is_one_wrong_key(typed: Callable[..., Callable[[], str]], byte: bytes) -> None:
    key = typed(byte + b"k")
    assert (key(), key(), key()) == ("\N{REPLACEMENT CHARACTER}", "k", "")


# A real terminal, within this process


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What is written here is typed at the terminal of `sys.stdin`; a pause is none, however slow this machine is."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, closefd=True) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr(keys_, "_PAUSE_S", HANG_S)
        yield ours
    os.close(ours)


def broken_off() -> None:
    raise KeyboardInterrupt


def test_the_terminal_is_as_it_was_however_the_keys_end(
    keyboard: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = termios.tcgetattr(keyboard)
    with keys():
        assert termios.tcgetattr(keyboard) != before
    assert termios.tcgetattr(keyboard) == before
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), keys() as key:
        patch.setattr(keys_, "_read", lambda *args: broken_off())
        key()
    assert termios.tcgetattr(keyboard) == before
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), keys():
        patch.setattr(keys_, "_read", lambda *args: broken_off())
        line("number: ")
    assert termios.tcgetattr(keyboard) == before and capsys.readouterr().err.endswith("\x1b[?2004l"), (
        "pastes are marked no more"
    )


def test_a_terminal_that_hangs_up_ends_keys_and_lines(keyboard: int) -> None:
    with keys() as key, Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), keyboard)  # closes it
        assert (key(), line("? "), key()) == ("", "", "")


def test_of_what_is_typed_ahead_a_line_takes_its_own_and_the_rest_is_for_nobody(
    keyboard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.write(keyboard, b"e")
    with keys() as key:
        assert key() == "e"
        os.write(keyboard, b"the answ")
        later = threading.Timer(0.05, os.write, (keyboard, "er é\nkd\nthe second".encode()))
        later.start()
        assert line("? ") == "the answer é"
        later.join()
        os.write(keyboard, b"3")
        assert key() == "3"
    os.write(keyboard, b"first\nsecond\nthird\n")
    drain = keys_.drain
    monkeypatch.setattr(keys_, "drain", lambda quiet_s: (os.write(keyboard, b"the rest\nof a paste"), drain(quiet_s)))
    with keys() as key:
        assert line("? ") == "first"
        os.write(keyboard, b"k")
        assert key() == "k"


@pytest.fixture
def labelled(tmp_path: Path) -> Iterator[Store]:
    """Rows of which one key each says one of nine labels."""
    labels = {name: f"a note that is {name}" for name in ("happy", "sad", *"abcdefg")}
    made = made_rows(tmp_path, {**SAID, "labels": labels, "what": "one line of JSON with the key mood"})
    yield made
    made.close()


def marked(store: Store) -> list[tuple[str, str]]:
    return [(mark.row_id, mark.decision) for mark in marks_of(store, "mood")]


@pytest.mark.heavy
def test_a_sequence_that_comes_byte_by_byte_is_one(
    keyboard: int, labelled: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(labelled.home))
    slow = [
        "\x1b[D",
        "\x1b[3~",
        "\x1b[1;5D",
        "\x1bOk",
        "\x1bO5P",
        "\x1b\x1b[D",
        "\x1bk",
        "\x1b[Mkd3",
        "\x1b]3;k\x07",
        "é",
        "日",
    ]

    def type_slowly() -> None:
        for byte in "".join([*slow, "\x1b[200~kd3\x1b[201~", "3q"]).encode():
            os.write(keyboard, bytes([byte]))
            time.sleep(0.01)

    typing = threading.Thread(target=type_slowly)
    typing.start()
    assert main(["rows", "review"]) == 0
    typing.join()
    told = capsys.readouterr().err
    assert marked(labelled) == [("w00001", "relabel")], "by the 3 behind them"
    assert told.count("is no key here") == 2 and "'é'" in told and "'日'" in told, "one wrong key each"
    assert told.count("[1 of 4]") == 3 and told.count("[2 of 4]") == 1


# As a person has it


@pytest.mark.heavy
def test_no_sequence_marks_a_row_and_keys_behind_them_do(labelled: Store) -> None:
    shown = Terminal(["rows", "review"], Tunesmith(labelled.home).env, size=(24, 80))
    try:
        shown.expect("[1 of 4]")
        shown.type(b"".join(SEQUENCES).decode() + "x")
        shown.expect("'x' is no key here")
        shown.expect("[1 of 4]", after=shown.text.index("'x' is no key here"))
        assert marked(labelled) == [] and shown.text.count("is no key here") == 1 and shown.text.count("[1 of 4]") == 2
        for pressed, then in (("k", "[2 of 4]"), ("d", "[3 of 4]"), ("3", "[4 of 4]")):
            shown.expect(then, after=shown.type(pressed))
        assert marked(labelled) == [("w00001", "keep"), ("w00002", "drop"), ("w00000", "relabel")]
        shown.expect("[3 of 4]", after=shown.type("b\x1b[D"))
        shown.expect("number:", after=shown.type("r"))
        shown.expect("[4 of 4]", after=shown.type("1\r3\rdd\rkkkkk"))
        shown.expect("is no key here", after=shown.type("x"))
        assert marked(labelled)[:2] == [("w00001", "keep"), ("w00002", "drop")] and len(marked(labelled)) == 3
        shown.type("q")
        assert shown.end() == 0
    finally:
        shown.close()


@pytest.mark.heavy
def test_no_sequence_judges_an_answer_and_keys_behind_them_do(home: Home) -> None:
    answer(home, Sitting.of(home.ws), "one", "two")
    shown = Terminal(["rate", home.run], Tunesmith(home.store.home).env, size=(24, 80))
    try:
        shown.expect("is 1 right?")
        shown.type(b"".join(SEQUENCES).decode() + "z")
        shown.expect("that is no key here")
        shown.expect("is 1 right?", after=shown.text.index("that is no key here"))
        assert right(home) == [] and shown.text.count("is 1 right?") == 2 and "is 2 right?" not in shown.text
        shown.expect("[2 of 2]", after=shown.type("yy"))
        shown.type("nn")
        assert shown.end() == 0 and right(home) == [True, False]
    finally:
        shown.close()
