"""Single keys and lines of the terminal. What comes as a sequence is no key: an arrow, Alt with a letter, a paste."""

from __future__ import annotations

import os
import re
import selectors
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LEAVE = ("q", "\x03", "\x04", "")
_PAUSE_S = 0.5
"""Longer than between two bytes of a sequence, on a slow line too; readline waits as long."""
_UNFINISHED = re.compile(
    # CSI, behind a second `[` a Linux console's; a mouse's three bytes; SS3, `?` a VT52's; a string, up to BEL or ESC.
    rb"(?s)\x1b(\[\[?[0-?]*[ -/]*|\[M.{0,2}|[O?][0-?]*|[P\]X^_][^\x07]*)?"
    # A character of several bytes, with Alt or without.
    rb"|\x1b?([\xc2-\xf4]|[\xe0-\xf4].|[\xf0-\xf4]..)"
)


@contextmanager
def keys(*, lines: bool = False) -> Iterator[Callable[[], str]]:
    """Single keys, none of them echoed and each paste marked; with `lines` whole lines, echoed. What was typed since
    the question is kept; what is left behind the last answer is for nobody."""
    before = termios.tcgetattr(sys.stdin)
    of_lines = termios.ICANON | termios.ECHO
    local = before[3] | of_lines if lines else before[3] & ~of_lines
    try:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, [*before[:3], local, *before[4:]])
        print(f"\x1b[?2004{'l' if lines else 'h'}", end="", file=sys.stderr, flush=True)
        yield _key
    finally:
        with suppress(OSError, termios.error):  # the terminal hung up
            termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)
            print(f"\x1b[?2004{'h' if lines else 'l'}", end="", file=sys.stderr, flush=True)


def _key() -> str:
    """A key in lower case; "" once the terminal is closed."""
    pasted = False
    while got := _read(None).replace(b"\x9b", b"\x1b[").replace(b"\x8f", b"\x1bO"):
        while _UNFINISHED.fullmatch(got) and (more := _read(None if pasted else _PAUSE_S)):
            got = more if more == b"\x1b" else got[:32] + more  # of a longer one the last byte tells whether it ends
        if got.startswith(b"\x1b"):
            pasted = got == b"\x1b[200~" or (pasted and got != b"\x1b[201~")
        elif not pasted:
            return got.lower().decode(errors="replace")  # as bytes: no other letter becomes a `k`
    return ""


def line(question: str) -> str:
    """A line, asked for among keys; what was pasted behind it is dropped, also what of it is still to come."""
    print(question, end="", file=sys.stderr, flush=True)
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    got = b""
    with keys(lines=True):
        while not got.endswith(b"\n") and (more := _read(None)):
            got += more
    drain(0.1)
    return got.decode(errors="replace").rstrip("\n")


def drop_typed_ahead() -> None:
    """Forget keys that were typed before the question was there."""
    with suppress(termios.error, OSError, ValueError):  # no terminal: nobody typed ahead
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def drain(quiet_s: float) -> None:
    """Forget what comes in until nothing does for a moment."""
    while _read(quiet_s, 1 << 16):
        pass


def _read(wait_s: float | None, most: int = 1) -> bytes:
    """What is typed, past the buffer of `sys.stdin`; nothing at its end, or where nothing comes in time."""
    with suppress(OSError), selectors.DefaultSelector() as selector:  # the terminal hung up
        selector.register(sys.stdin, selectors.EVENT_READ)
        if selector.select(wait_s):
            return os.read(sys.stdin.fileno(), most)
    return b""
