"""Every colour of the terminal, in one place: verdicts, commands, ids, prices. rich leaves them out for NO_COLOR."""

from __future__ import annotations

import re

from rich.text import Text

from tunesmith.tools.core.format import visible

GOOD, UNSURE, BAD = "green", "yellow", "red"
COMMAND = "cyan"
ID = "dim"
LABEL = "dim"
PRICE = "bold"

_VERDICTS = {
    GOOD: ("learned", "better", "not worse", "pass", "done", "fits", "yes"),
    UNSURE: (
        "partly learned", "form only", "no decision", "waiting", "stopped", "declined", "planned", "approved",
    ),
    BAD: ("not learned", "worse", "not better", "fail", "failed", "error", "not comparable", "no"),
}  # fmt: skip
_STYLE_OF = {word: style for style, words in _VERDICTS.items() for word in words} | {"running": COMMAND}

_COMMAND = r"`[^`\n]+`|(?<![\w./:-])/[a-z]{2,}\b(?![/.\w])|“[^”\n]{1,48}”(?= (?:tells|gives|lists|tries|starts|brings))"
_ID = r"(?<![\w./-])[rsap]\d{1,5}\b(?![\w./-])"
_VERDICT = r"\b(?:not learned|partly learned|form only|no decision|not comparable)\b"
_WORDS = re.compile(f"(?P<command>{_COMMAND})|(?P<id>{_ID})|(?P<verdict>{_VERDICT})")


def verdict_style(word: object) -> str:
    """The colour of a verdict or a status; none for other words."""
    return _STYLE_OF.get(str(word).strip().lower(), "")


def verdict(word: object) -> Text:
    """A verdict or a status in its colour."""
    return Text(visible(word), style=verdict_style(word))


def coloured(text: str) -> Text:
    """A line of the conversation: commands, ids and verdicts in it in their colours, none changed."""
    line = Text(text)
    for match in _WORDS.finditer(text):
        kind = match.lastgroup
        style = COMMAND if kind == "command" else ID if kind == "id" else verdict_style(match[0])
        line.stylize(style, *match.span())
    return line
