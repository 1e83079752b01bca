"""What is said of a wrong command line: one line in our words, with the nearest right word."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from tunesmith.agent.commands.same_words import MEANT, commands_that_take
from tunesmith.memory.errors import BadInput

PROGRAM = "tunesmith"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line, exit code 2."""

    add_fields: Callable[[], None] | None = None
    """Adds the options of a stage's request; called once its command was typed, as it imports the stage."""
    words: Sequence[str] = ()
    """The words that are being parsed."""

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does. Raises BadInput for words that neither this command nor a stage's request can take."""
        self.words = tuple(args or ())
        if self.add_fields is not None:
            self.add_fields()
        known, rest = super().parse_known_args(self.words, namespace)
        if rest and self.add_fields is None and self.prog != PROGRAM:
            self.refuse(rest)
        return known, rest

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Raises BadInput for words that nothing takes."""
        self.error(_no_option(self, rest[:1]) or f"unexpected argument {rest[0]!r}")

    def error(self, message: str) -> NoReturn:
        """Raises BadInput, with the nearest right word where a wrong one was given."""
        statement = _plainer(message, self)
        listed = "the commands" if self.prog == PROGRAM else "its options"
        raise BadInput(f"{statement}{' ' if statement.endswith('?') else '; '}`{self.prog} --help` lists {listed}")


def _plainer(message: str, parser: Parser) -> str:
    """What argparse says, in our words. Raises BadInput for a word that newcomers type, with the command for it."""
    option, text = "", message
    if named := re.fullmatch(r"argument ([^:]+): (.*)", message, re.DOTALL):
        option, text = named[1].split("/")[-1], named[2]
    if missing := re.fullmatch(r"the following arguments are required: (.*)", text):
        return f"{missing[1]} is missing"
    if wrong := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", text, re.DOTALL):
        known, word = re.findall(r"[\w-]+", wrong[2]), wrong[1].strip("'\"")
        if option.startswith("-"):
            return f"{option} takes {' or '.join(known)}, not {word!r}{_meant(word, known)}"
        # An option that is not known leaves its value where a command is looked for.
        if odd := _no_option(parser, list(takewhile(lambda typed: typed != word, parser.words))):
            return odd
        if parser.prog == PROGRAM and word in MEANT:
            raise BadInput(f"no command {word!r}; {MEANT[word]}")
        known_by = " or ".join(f"`{parser.prog} {command} {word}`" for command in commands_that_take(word, parser))
        return f"no command {word!r}{f'; did you mean {known_by}?' if known_by else _meant(word, known)}"
    if number := re.fullmatch(r"invalid int value: (.*)", text, re.DOTALL):
        return f"{option} takes a whole number, such as 20, not {number[1]}"
    if text.startswith("expected "):
        return f"{option} needs a value"
    return f"{option}: {text}" if option else text


def _no_option(parser: Parser, words: Sequence[str]) -> str:
    """What is said of the first option among some words that a parser does not have; empty where it has all."""
    known = parser._option_string_actions  # argparse has no public way to list them
    for word in words:
        name = word.partition("=")[0]
        if re.match("--?[A-Za-z]", word) and not {name, word[:2]} & known.keys():  # the latter of `-pTEXT`
            return f"no option {name!r}{_meant(name, [*known])}"
    return ""


def _meant(word: str, known: Sequence[str]) -> str:
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is most like a wrong one, if any is."""
    near = difflib.get_close_matches(word, known, 1)
    return near[0] if near else None
