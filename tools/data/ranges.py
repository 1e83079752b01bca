"""Labels that a number of the message decides: small for 1 to 4 people, medium for 5 to 12, large for 13 to 40.

The number is drawn before the message is written and stands in it, as digits or as an English word: a message that says
none cannot have such a label. The ranges are stated as numbers; no words are read for them.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise

from tunesmith.tools.data.spec import Attribute
from tunesmith.tools.data.typed_values import holds

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = dict(enumerate(_SMALL.split())) | {20 + 10 * n: word for n, word in enumerate(_TENS.split())}
_N = r"(?<![\w.,:])(\d{1,7}|" + "|".join(word for word in WORDS.values()) + r")(?![\w:]|[.,]\d)"


def numbers(label: Attribute) -> dict[str, tuple[int, int]]:
    """The lowest and the highest number of each value that a number decides (`Value.between`).

    Empty where fewer than two values are decided so, or their ranges overlap.
    """
    ranges = {name: value.between for name, value in label.values.items() if value.between and label.kind == "label"}
    ordered = sorted(ranges.values())
    apart = all(low <= high for low, high in ordered) and all(a[1] < b[0] for a, b in pairwise(ordered))
    return ranges if len(ranges) >= 2 and apart else {}


def value_of(number: str) -> int:
    """What digits or a number's word mean."""
    return int(number) if number.isdigit() else next(n for n, word in WORDS.items() if word == number.lower())


def drawn_number(label: Attribute, value: str, rng: random.Random) -> str:
    """A number of the value's range as a message says it; empty where none tells the value."""
    bounds = numbers(label).get(value)
    return rng.choice(ways_to_count(rng.randint(*bounds))) if bounds else ""


def number_in(label: Attribute, value: str, message: str) -> str:
    """The number by which a message tells a value; empty where none, or several, could be it."""
    bounds = numbers(label).get(value)
    if not bounds:
        return ""
    fitting = [text for text in _said_in(message) if bounds[0] <= value_of(text) <= bounds[1]]
    return fitting[0] if len(fitting) == 1 else ""


def numbers_in(message: str) -> list[int]:
    """The whole numbers that a message holds, as digits or as words."""
    return [value_of(text) for text in _said_in(message)]


def _said_in(message: str) -> list[str]:
    return [match[0] for match in re.finditer(_N, message, re.IGNORECASE)]


def ways_to_count(number: int) -> list[str]:
    """How a message may say a number."""
    return [str(number), WORDS[number]] if number in WORDS else [str(number)]


def number_said(label: Attribute, value: str, drawn: str, message: str) -> str:
    """The number that tells the value in a message: the drawn one in digits or a word, else the only one that fits.

    `drawn` where the message has none of these.
    """
    there = next((way for way in ways_to_count(value_of(drawn)) if holds(message, way)), "")
    return there or number_in(label, value, message) or drawn
