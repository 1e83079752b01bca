"""JSON that a stranger wrote: parsed within bounds that hold for every document of its size.

A megabyte takes at most 0.2 s and 50 MB (nested lists, the worst that was found). Larger documents belong in a confined
child (`tunesmith.memory.confined`).
"""

from __future__ import annotations

import json

IN_PLACE_BYTES = 1 << 20
"""What may be parsed in the process that asks, of all documents of one look together."""
_MOST_DIGITS = 20  # 2**64 has as many; Python would take 4,300 and then multiply them


def parse_json(data: bytes) -> object:
    """The document in some bytes. Raises ValueError for what is no UTF-8, no JSON, too deep, or has a longer number."""
    try:
        return json.loads(data.decode(), parse_int=_whole_number)
    except RecursionError:  # its brackets outrun Python's stack
        raise ValueError("nested too deep") from None


def json_value(text: str) -> object:
    """The JSON value that an answer, or another short text, is; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # it is nested too deep for Python's reader
        return None


def depth_of(document: object, most: int) -> int:
    """How deep lists and objects are nested in a document, or `most` + 1 where it is more."""
    level, depth = [document], 0
    while depth <= most and (level := [value for value in level if isinstance(value, (dict, list)) and value]):
        level = [child for value in level for child in (value.values() if isinstance(value, dict) else value)]
        depth += 1
    return depth


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
