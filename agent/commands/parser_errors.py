"""What is said of a wrong command line: one line in our words, with the nearest right word."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

from tunesmith.agent.commands.same_words import commands_that_take
from tunesmith.memory.errors import BadInput


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raises BadInput, with the nearest right word where a wrong one was given."""
        statement = _plainer(message, self)
        raise BadInput(f"{statement}{' ' if statement.endswith('?') else '; '}`{self.prog} --help` lists what it takes")


def _plainer(message: str, parser: argparse.ArgumentParser) -> str:
    """What argparse says, in our words."""
    option, text = "", message
    if named := re.fullmatch(r"argument ([^:]+): (.*)", message, re.DOTALL):
        option, text = named[1].split("/")[-1], named[2]
    if missing := re.fullmatch(r"the following arguments are required: (.*)", text):
        return f"{missing[1]} is missing"
    if wrong := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", text, re.DOTALL):
        known, word = re.findall(r"[\w-]+", wrong[2]), wrong[1].strip("'\"")
        near = nearest(word, known)
        known_by = [f"`{parser.prog} {command} {word}`" for command in commands_that_take(word, parser)]
        hint = f"; did you mean {near!r}?" if near else ""
        hint = f"; did you mean {' or '.join(known_by)}?" if known_by else hint
        if option.startswith("-"):
            return f"{option} takes {' or '.join(known)}, not {word!r}{hint}"
        return f"no command {word!r}{hint}"
    if number := re.fullmatch(r"invalid int value: (.*)", text, re.DOTALL):
        return f"{option} takes a whole number, such as 20, not {number[1]}"
    if text.startswith("expected "):
        return f"{option} needs a value"
    return f"{option}: {text}" if option else text


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is most like a wrong one, if any is."""
    near = difflib.get_close_matches(word, known, 1)
    return near[0] if near else None
