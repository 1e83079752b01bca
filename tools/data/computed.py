"""Values that others decide: those that a formula computes, and labels that a number of the message decides.

Such a number is drawn before the message is written and stands in it, as digits or as an English word: a message that
says none cannot have such a label. Ranges are stated as numbers; no words are read for them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tunesmith.tools.data.arithmetic import evaluate, names_in
from tunesmith.tools.data.json_values import Values, items_of
from tunesmith.tools.data.spec import Attribute, Spec, without_places
from tunesmith.tools.data.typed_values import holds


class _Place(NamedTuple):
    """Where a value is computed: its path, and the attributes beside it, which its formula names first."""

    path: str
    formula: object
    beside: Sequence[Attribute]

    def needs(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """Name in the formula → the paths that it means: one, or those of a list."""
        known = list(paths)
        return {name: _meant(self._target(name), known) for name in names_in(self.formula)}

    def _target(self, name: str) -> str:
        inner = name.split(".")[0] in [attribute.name for attribute in self.beside]
        return f"{self.path.rpartition('.')[0]}.{name}" if inner and "." in self.path else name


def with_computed(spec: Spec, values: Values) -> Values:
    """The values with those that are computed; None where something that a formula needs is not said.

    Raises Unanswerable for a division by zero, or a value out of bounds.
    """
    made = {path: value for path, value in values.items() if spec.attribute(path).kind != "computed"}
    pending = {place.path: place for place in _computed(spec.attributes, made)}
    while pending:
        every = [*made, *pending]
        waits = {p: any(pending.keys() & paths for paths in one.needs(every).values()) for p, one in pending.items()}
        for path in [p for p, waiting in waits.items() if not waiting]:  # a circle is refused when the spec is read
            made[path] = _value(pending.pop(path), made)
    return made


def _value(place: _Place, made: Mapping[str, str | None]) -> str | None:
    needs = place.needs(made)
    if any(made[path] is None for paths in needs.values() for path in paths):
        return None
    return evaluate(place.formula, lambda name: [made[path] or "" for path in needs[name]])


def _meant(target: str, paths: Sequence[str]) -> list[str]:
    return [target] if target in paths else [path for path in paths if without_places(path) == target]


def _computed(attributes: Sequence[Attribute], values: Mapping[str, object], at: str = "") -> Iterator[_Place]:
    for attribute in attributes:
        path = f"{at}{attribute.name}"
        if attribute.kind == "computed":
            yield _Place(path, attribute.formula, attributes)
        elif attribute.kind == "object" and path not in values:
            many = attribute.many is not None
            places = [f"{path}[{n}]" for n in range(items_of(path, values))] if many else [path]
            for place in places:
                yield from _computed(attribute.attributes, values, f"{place}.")


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
