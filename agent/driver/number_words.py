"""Numbers that are written as words: `two`, `thirty-two`, `two hundred and fifty`, `one and a half`, `a dozen`."""

from __future__ import annotations

import re

_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", *_TEENS]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: float(value) for value, word in enumerate(_UNITS)}
_VALUES |= {word: 10.0 * value for value, word in enumerate(_TENS, 2)} | {"dozen": 12.0}
_TIMES = {"hundred": 100.0, "thousand": 1000.0}
_WORD = "|".join([*_VALUES, *_TIMES])

NUMBER_WORD = re.compile(
    rf"\b(?:(?:{_WORD})\b(?:(?:[\s-]|\s+and\s+)(?={_WORD}))?)+(?P<half>\s+and\s+a\s+half\b)?", re.IGNORECASE
)
"""One number in words; `value_of` reads the match."""


def value_of(match: re.Match[str]) -> float:
    """The value of a match of `NUMBER_WORD`: what a multiplier follows is multiplied, the rest is added."""
    total, last = 0.0, 0.0
    for word in re.findall(r"[a-z]+", match.group().lower().removesuffix(match["half"] or "")):
        if word in _TIMES:
            total, last = total + (last or 1.0) * _TIMES[word], 0.0
        else:
            last += _VALUES.get(word, 0.0)
    return total + last + (0.5 if match["half"] else 0.0)
