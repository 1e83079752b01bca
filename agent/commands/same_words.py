"""Words that stand for others, at the shell and in the conversation alike: one table for both.

Light: the command line's help reads it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class SameAs(NamedTuple):
    """What a word stands for."""

    words: tuple[str, ...]
    """As they would be typed at the shell; what follows the word follows them."""
    summary: str


SAME_AS: Mapping[str, SameAs] = {
    "resume": SameAs(("run", "--resume"), "go on with a run where it stopped; else with the newest"),
    "show": SameAs(("runs", "show"), "the steps of a run; else of the newest"),
    "pull": SameAs(("base", "--model"), "get a base model: a hub id, a folder, or a bundled one"),
}
_WITH_VALUE = ("-p", "--max-hours", "--run", "--on", "--port", "--context-tokens", "--context_tokens")


def in_full(argv: Sequence[str]) -> list[str]:
    """A command line with a word of the table replaced by what it stands for; options may come before it.

    Its help is that of the command it stands for, with all options.
    """
    at = command_at(argv)
    if at is None or argv[at] not in SAME_AS:
        return list(argv)
    words, rest = SAME_AS[argv[at]].words, argv[at + 1 :]
    if {"-h", "--help"} & set(rest):
        words, rest = tuple(word for word in words if not word.startswith("-")), ["--help"]
    return [*argv[:at], *words, *rest]


def command_at(argv: Sequence[str]) -> int | None:
    """Where the command stands among the words; None where there is none."""
    skip = False
    for at, word in enumerate(argv):
        if not (skip or word.startswith("-")):
            return at
        skip = word in _WITH_VALUE and not skip
    return None


def commands_that_take(word: str, parser: argparse.ArgumentParser) -> list[str]:
    """The commands that have a word as an action of theirs: `stop` of `jobs` and of `serve`."""
    # argparse has no public way to list a parser's commands.
    commands = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    below = ((name, action) for named in commands for name, one in named.items() for action in one._actions)
    actions = ((name, action.choices) for name, action in below if not action.option_strings)  # `fast` is no action
    return list(dict.fromkeys(name for name, choices in actions if choices and word in choices))
