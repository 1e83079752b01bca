"""The prompts of every model that judges: an instruction of ours, the criteria, and what is judged, which is data.

What is judged stands in its place as a JSON string on one line. Nothing of it can end that string or the block around
it, whatever a stranger wrote; the sentence in each prompt says what the string is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_BLANK = re.compile(r"\[\[(\w+)\]\]")
_ENDS_A_BLOCK = re.compile("[<\x7f-\x9f\u2028\u2029]")
"""What JSON leaves as it is, and a reader may take for a tag or for the end of a line."""


def judge_prompt(name: str, criteria: Mapping[str, str], data: Mapping[str, str]) -> str:
    """The prompt `judge-NAME.md` with its blanks filled in, each once: no value is read as a template.

    `criteria` are instructions, and written as they are; `data` is what a model, a row or a file said.
    """
    values = dict(criteria) | {blank: as_data(value) for blank, value in data.items()}
    return _BLANK.sub(lambda blank: values[blank[1]], judge_template(name))


@cache
def judge_template(name: str) -> str:
    """A judge's prompt with its blanks, such as `[[output]]`."""
    return (files("tunesmith.prompts") / f"judge-{name}.md").read_text(encoding="utf-8")


def as_data(text: str) -> str:
    """A text as a JSON string on one line, which nothing in it can end."""
    written = json.dumps(text, ensure_ascii=False)
    return _ENDS_A_BLOCK.sub(lambda match: f"\\u{ord(match[0]):04x}", written)
