"""Sets of labels in answers that are text, and numbers in whichever marks: told by the examples alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from tunesmith.tools.data.arithmetic import number_of


@dataclass(frozen=True, slots=True)
class LabelSet:
    """How a place shows several of its values at once."""

    joined: str
    """What stands between two of them."""
    many: tuple[int, int]
    """The fewest and the most in one answer."""
    empty: str = ""
    """The only text that is no value and stands alone; empty: there is none, or several."""

    def items(self, text: str) -> list[str]:
        """The values of a place."""
        return [item.strip() for item in text.split(self.joined.strip() or self.joined)]


def label_set(values: Collection[str], texts: Sequence[str]) -> LabelSet | None:
    """The set that texts are of, where two of the values stand beside one another; None where they are single ones."""
    between = Counter(mark for text in texts for mark in _marks(values, text))
    if not between:
        return None
    joined = between.most_common(1)[0][0]
    split = [LabelSet(joined, (1, 1)).items(text) for text in texts]
    odd = {item for items in split for item in items if item not in values}
    beside = {item for items in split if len(items) > 1 for item in items}
    alone = sorted(odd - beside)
    empty = alone[0] if len(alone) == 1 else ""
    counts = [len(items) for items in split if items != [empty]]
    return LabelSet(joined, (min(counts), max(counts)), empty)


def _marks(values: Collection[str], text: str) -> list[str]:
    """What stands between neighbouring values, where that is no word."""
    one = "|".join(re.escape(value) for value in sorted(filter(None, values), key=len, reverse=True))
    spans = [match.span() for match in re.finditer(rf"(?<!\w)(?:{one})(?!\w)", text)] if one else []
    marks = [text[a[1] : b[0]] for a, b in pairwise(spans)]
    return [mark for mark in marks if mark and not any(c.isalnum() for c in mark)]


_NUMERAL = re.compile(r"\d(?:[\d.,' \u00a0\u202f’]*\d)?")
"""Digits with the marks that people group them by or set before decimals."""
_SPACE, _GROUPS = re.compile("[ \u00a0\u202f]"), re.compile("[ '\u00a0\u202f’]")


def places_said(message: str, value: str) -> int | None:
    """Places after the decimal mark with which a message says a number; None where it does not say it in figures.

    In whichever marks: 1.240,50 and 1,240.50 are both 1240.50.
    """
    number = number_of(value)
    places = (_readings(match[0]).get(number) for match in _NUMERAL.finditer(message)) if number is not None else ()
    return next((one for one in places if one is not None), None)


def _readings(numeral: str) -> dict[Decimal, int]:
    """What a numeral may mean, with its places: its last mark stands before decimals, or groups digits too."""
    readings: dict[Decimal, int] = {}
    for text in (numeral, *_SPACE.split(numeral)):  # "2 12,50" is two numbers, or one
        *before, last = re.split("[.,]", _GROUPS.sub("", text))
        plain = "".join(before)
        readings |= {Decimal(plain + last): 0} if plain + last else {}
        readings |= {Decimal(f"{plain}.{last}"): len(last)} if plain and last else {}
    return readings
