"""Where an answer says its values: what of it has to be decided, beside the frame that all answers of its kind share.

Ranges of characters, told from the finished answer, so that an imported row and one that a person corrected have them
too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tunesmith.tools.data.answer_template import pattern_of

Span = tuple[int, int]
_JSON_PART = re.compile(r"""("(?:[^"\\]|\\.)*")(\s*:)?|\[\s*\]|\{\s*\}|[^\s\[\]{}:,"]+""")
"""A key with its colon, or a value: a string, an empty list or object, a number or a literal."""


def json_values_at(text: str) -> tuple[Span, ...]:
    """Of an object or a list, whatever it holds; nothing in any other text."""
    try:
        made = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    parts = _JSON_PART.finditer(text) if isinstance(made, dict | list) else ()
    return tuple(part.span() for part in parts if not part[2])


def places_at(template: str, lines: Sequence[str]) -> tuple[Span, ...]:
    """Of lines behind each other that a template makes; nothing where one is made otherwise.

    A range ends behind the character after its value, which says where that ends: after the last, behind the answer.
    """
    found: list[Span] = []
    start = 0
    for line in lines:
        match = pattern_of(template).fullmatch(line)
        if match is None:
            return ()
        found += [(start + match.start(name), start + match.end(name) + 1) for name in match.groupdict()]
        start += len(line) + 1
    return tuple(found)
