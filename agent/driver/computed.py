"""Figures that were computed: a sum, a difference, a ratio or a percentage of two quantities that the turn was told.

Two durations, two sizes, or two counts out of the same number of cases are alike, and only what is alike is set against
each other. Where a turn was told much, nearly every small number is the difference of some two: a figure counts as
computed only where a made-up one would seldom have passed for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

_SECONDS: Mapping[str, float] = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
}
_BYTES: Mapping[str, float] = {f"{letter}{i}b": (1024.0 if i else 1000.0) ** power
                               for power, letter in enumerate("kmgt", 1) for i in ("i", "")}  # fmt: skip
_SHARES = ("%", "percent", "points")
_TIMES = ("x", "times", "fold")
_UNITS = "|".join(sorted({*_SECONDS, *_BYTES}, key=len, reverse=True))
_MEASURED = re.compile(rf"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s?({_UNITS})\b", re.IGNORECASE)
_COUNTED = re.compile(r"(?<![\w.])(\d[\d,]*) (?:of|out of|/) (\d[\d,]*)\b")
_COMPOSITE = re.compile(
    r"(?<![\w.])(\d+)\s?(h|hours?|min|minutes?)(?:\s|,\s|\sand\s)+(\d+(?:\.\d+)?)\s?(min|minutes?|s|sec|seconds?)\b",
    re.IGNORECASE,
)
_MOST_CHANCE = 0.3
"""Share of the figures of about that size which would pass: above it nothing is known by one that does."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity in seconds or bytes, or a count out of some number."""

    value: float
    kind: str


def with_durations_in_seconds(text: str) -> str:
    """`2 min 32 s` as `152 s`: one figure, not two."""
    return _COMPOSITE.sub(lambda m: f"{_seconds(m):g} s", text)


def _seconds(match: re.Match[str]) -> float:
    return float(match[1]) * _SECONDS[match[2].lower()] + float(match[3]) * _SECONDS[match[4].lower()]


def quantities(text: str) -> Iterator[Quantity]:
    """What a text says of durations, sizes, and counts out of something."""
    plain = with_durations_in_seconds(text)
    for match in _MEASURED.finditer(plain):
        unit = match[2].lower()
        of_time = unit in _SECONDS
        yield Quantity(_number(match[1]) * (_SECONDS if of_time else _BYTES)[unit], "time" if of_time else "size")
    for match in _COUNTED.finditer(plain):
        yield from (Quantity(_number(part), f"of {_number(match[2]):g}") for part in match.groups())


def _number(text: str) -> float:
    return float(text.rstrip(",").replace(",", ""))


def is_computed(value: float, decimals: int, unit: str, lines: Sequence[Sequence[Quantity]]) -> bool:
    """Whether a figure with this unit behind it comes of the quantities of one line, of two anywhere, or of the first
    of every line added up."""
    everywhere = list(dict.fromkeys(one for line in lines for one in line))
    firsts = [next((one for one in line if one.kind == kind), None) for kind in ("time", "size") for line in lines]
    pools = (
        [one for line in lines for one in _derived(unit, line)],
        [*_derived(unit, everywhere), *_sum(unit, [one for one in firsts if one]), *_sum(unit, everywhere)],
    )
    return any(_hit(value, decimals, pool) for pool in pools)


def _hit(value: float, decimals: int, pool: Sequence[float]) -> bool:
    near = {round(one, decimals) for one in pool if value / 2 <= one <= value * 2}
    possible = max(1.0, 1.5 * value * 10.0**decimals)
    return round(value, decimals) in near and len(near) / possible <= _MOST_CHANCE


def _derived(unit: str, told: Sequence[Quantity]) -> Iterator[float]:
    """In the unit of a figure: whatever two quantities that are alike come to."""
    for a, b in permutations(told, 2):
        if a.kind != b.kind:
            continue
        if unit in (*_SHARES, *_TIMES) and b.value:
            share = 100.0 if unit in _SHARES else 1.0
            yield from (share * a.value / b.value, share * abs(a.value - b.value) / b.value)
        elif unit not in (*_SHARES, *_TIMES) and _kind_of(unit) in (a.kind, a.kind[:2]):
            yield from ((a.value + b.value) / _scale(unit), abs(a.value - b.value) / _scale(unit))


def _sum(unit: str, told: Sequence[Quantity]) -> list[float]:
    """All of those in the unit of a figure added up."""
    of_kind = [one.value for one in told if one.kind == _kind_of(unit)]
    return [sum(of_kind) / _scale(unit)] if of_kind else []


def _kind_of(unit: str) -> str:
    return "time" if unit in _SECONDS else "size" if unit in _BYTES else "of"


def _scale(unit: str) -> float:
    return _SECONDS.get(unit) or _BYTES.get(unit) or 1.0
