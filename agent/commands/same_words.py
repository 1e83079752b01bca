"""Words that stand for others: `resume`, `show` and `pull`, at the shell and in the conversation alike; and words that
newcomers type at the shell.

Light: the command line's help reads it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
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
_TALK = "`tunesmith` alone starts the conversation"
_BEGIN = "`tunesmith teach --example` writes a description to begin with, and `tunesmith demo` shows the whole way"
_TEACH = "`tunesmith teach FILE` fine-tunes a model from a description, `tunesmith teach --rows FILE` from your rows"
MEANT: Mapping[str, str] = {
    **dict.fromkeys(("chat", "talk", "repl", "start"), _TALK),
    **dict.fromkeys(("init", "new", "create", "example"), _BEGIN),
    **dict.fromkeys(("finetune", "fine-tune", "fine_tune", "tune", "learn", "sft"), _TEACH),
    **dict.fromkeys(("download", "fetch"), "`tunesmith pull MODEL` gets a base model"),
    **dict.fromkeys(("list", "ls", "history"), "`tunesmith runs` lists the runs"),
    "install": "`tunesmith setup` installs what training and serving need",
    "version": "`tunesmith --version` prints the version",
}
"""What is said to a word that people type for a command, where no command has that name."""


def commands_that_take(word: str, parser: argparse.ArgumentParser) -> list[str]:
    """The commands that have a word as an action of theirs: `stop` of `jobs` and of `serve`."""
    # argparse has no public way to list a parser's commands.
    commands = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    below = ((name, action) for named in commands for name, one in named.items() for action in one._actions)
    actions = ((name, action) for name, action in below if not action.option_strings)  # `fast` is no action
    # A word that stands beside anything else is no choice, and stands in its name: status|stop|WHAT.
    taken = ((name, action.choices or str(action.metavar).split("|")[:-1]) for name, action in actions)
    return list(dict.fromkeys(name for name, words in taken if word in words))
