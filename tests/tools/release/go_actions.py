"""What a Go template of ours writes, by its actions: an oracle for the product, which only puts texts together."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunesmith.tools.release.go_template import Message

_ACTION = re.compile(r"\{\{ (.*?) \}\}", re.S)
_ROLE = re.compile(r'(?:else )?if eq \.Role "(\w+)"')


def render_go(template: str, messages: Sequence[Message]) -> str:
    """What Ollama would write by a template of ours for these messages, one at least, but for the first token.

    Knows the actions that such a template uses, and no others.
    """
    tokens = _ACTION.split(template)  # text and actions in turn, text first and last
    system = any(message["role"] == "system" and message["content"] for message in messages)

    def body(at: int, message: Message) -> tuple[str, int]:
        """What is written from a token on, and where it ends: at the `end` or `else` that belongs to it."""
        written = ""
        while at < len(tokens):
            token = tokens[at]
            if at % 2 == 0:
                written += token
            elif token == ".Content":
                written += message["content"]
            elif token == "end" or token.startswith("else "):
                break
            else:
                text, at = block(at, message)
                written += text
            at += 1
        return written, at

    def block(at: int, message: Message) -> tuple[str, int]:
        """The same of a `range` or an `if`, and where its own `end` is."""
        if tokens[at] == "range .Messages":
            rounds = [body(at + 1, one) for one in messages]
            return "".join(text for text, _ in rounds), rounds[0][1]
        chosen: list[str] = []
        while tokens[at] != "end":
            role = _ROLE.fullmatch(tokens[at])
            holds = message["role"] == role[1] if role else not system
            text, at = body(at + 1, message)
            chosen += [text] if holds else []
        return "".join(chosen[:1]), at

    return body(0, messages[0])[0]
