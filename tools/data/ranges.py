"""Labels that a number decides: "small is up to 4 people, medium 5 to 12, large 13 and more".

The number is drawn before the message is written and stands in it, as digits or as a word: a message that says none
cannot have such a label. Only what a label's meanings say as ranges that exclude each other; English and German.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from itertools import pairwise

from tunesmith.tools.data.spec import Attribute
from tunesmith.tools.data.typed_values import holds

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = dict(enumerate(_SMALL.split())) | {20 + 10 * n: word for n, word in enumerate(_TENS.split())}
_OPEN_END = 3
"""A range without an upper end is drawn up to so many times its lower one."""
_N = r"(?<![\w.,:])(\d{1,7}|" + "|".join(word for word in WORDS.values()) + r")(?![\w:]|[.,]\d)"
_UNIT = r"(?:\s+[^\W\d_]+){0,2}?"
_ORDER = r"\s*(?:-|–|to|up to|and|until|through|bis|und)\s*"
_RANGES = (  # pattern, then what its numbers are: the lowest, the highest; 1 is added to or taken from what is left out
    (rf"(?:between |from |zwischen |von )?{_N}{_ORDER}{_N}", 0, 0),
    (rf"(?:up to|at most|no more than|not more than|maximum|bis zu|bis|höchstens|maximal|<=|≤) {_N}", None, 0),
    (rf"{_N}{_UNIT} (?:or|and|oder|und) (?:fewer|less|under|below|weniger)\b", None, 0),
    (rf"(?:under|below|less than|fewer than|unter|weniger als|<) ?{_N}", None, -1),
    (rf"(?:at least|mindestens|minimum|>=|≥) {_N}", 0, None),
    (rf"{_N}(?:\+|{_UNIT} (?:or|and|oder|und) (?:more|up|over|above|upwards|mehr|darüber)\b)", 0, None),
    (rf"(?:from|ab) {_N}(?:{_UNIT} (?:on|up|upwards))?", 0, None),
    (rf"(?:over|above|more than|über|mehr als|>) ?{_N}", 1, None),
)


def numbers(label: Attribute) -> dict[str, tuple[int, int]]:
    """The lowest and the highest number of each value that is told by one; empty where its meanings do not part them.

    Where no highest is said, it is three times the lowest; where no lowest is said, it is 1.
    """
    return dict(_parted(tuple((n, v.means) for n, v in label.values.items()))) if label.kind == "label" else {}


@lru_cache(maxsize=64)
def _parted(means: tuple[tuple[str, str], ...]) -> tuple[tuple[str, tuple[int, int]], ...]:
    told = [(name, bounds) for name, text in means if (bounds := _bounds(text))]
    ordered = sorted(bounds for _, bounds in told)
    apart = all(left[1] < right[0] for left, right in pairwise(ordered))
    return tuple(told) if len(told) >= 2 and apart else ()


def _bounds(means: str) -> tuple[int, int] | None:
    """The range that a meaning says, if it says just one."""
    for pattern, low, high in _RANGES:
        if match := re.search(pattern, means, re.IGNORECASE):
            if re.search(_N, means[: match.start()] + " " + means[match.end() :], re.IGNORECASE):
                return None
            first, last = value_of(match[1]), value_of(match[match.lastindex or 1])
            lowest = 1 if low is None else first + low
            highest = max(lowest + 3, lowest * _OPEN_END) if high is None else last + high
            return (lowest, highest) if lowest <= highest else None
    return None


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
    there = [match[0] for match in re.finditer(_N, message, re.IGNORECASE)]
    fitting = [text for text in there if bounds[0] <= value_of(text) <= bounds[1]]
    return fitting[0] if len(fitting) == 1 else ""


def ways_to_count(number: int) -> list[str]:
    """How a message may say a number."""
    return [str(number), WORDS[number]] if number in WORDS else [str(number)]


def number_said(label: Attribute, value: str, drawn: str, message: str) -> str:
    """The number that tells the value in a message: the drawn one in digits or a word, else the only one that fits.

    `drawn` where the message has none of these.
    """
    there = next((way for way in ways_to_count(value_of(drawn)) if holds(message, way)), "")
    return there or number_in(label, value, message) or drawn
