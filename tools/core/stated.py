"""What the numbers in a text or in JSON state: a time, a size, a share, a count, as eight languages write them.

`1,234`, `1.234` and `1 234` may be the same; so may `152 s`, `2 min 32 s` and `2,5 Minuten`. Names and versions
state nothing: a number that letters stand before, or behind it without a unit, is part of one (`r3`, `W4A16`, `7B`).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from tunesmith.tools.core.spelt_numbers import plain, spelt_numbers, tables

EACH = "each"
"""The kind of a count for each of something, and the key of what else is said so: `2 s per step`."""
LISTED = "listed"
"""The key of how many there are in a list, and of how many say the same."""
_LARGEST = 1e30
_LATEST = 1e11
"""Seconds since 1970 that any clock knows."""
_KEY = 4
"""Letters by which a word is known, whatever its ending and nearly whatever the language."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a quantity is told of: an object of JSON, or a line of text."""

    place: tuple[int, ...] = ()
    runs: frozenset[str] = frozenset()
    """The runs that it is about; none: that is not said."""
    words: frozenset[tuple[str, str]] = frozenset()
    """What it says in words, by key."""

    def is_part(self, other: Fact) -> bool:
        """Whether one of them is the other, or a part of it."""
        return all(mine == its for mine, its in zip(self.place, other.place, strict=False))

    def is_line(self, other: Fact) -> bool:
        """Whether both are lines, of one text."""
        return len(self.place) == len(other.place) == 1


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a number states of something."""

    written: float
    kind: str
    """time, size, share, points between two shares, fold, rate, each (of something), count, date, or number where none
    of these is known."""
    scale: float = 1.0
    """What its unit is in seconds, in bytes, as a share of one, or in things a second."""
    half: float = 0.5
    """Half of the last digit that is written."""
    key: str = ""
    """What it is a figure of."""
    fact: Fact = Fact()
    is_open: bool = False
    """Whether it may be of any kind: a number of JSON whose key names none."""

    @property
    def value(self) -> float:
        """The number in the base unit of its kind."""
        return self.written * self.scale

    @property
    def margin(self) -> float:
        """What rounding may have taken from the value."""
        return self.half * self.scale

    @property
    def about(self) -> frozenset[str]:
        """How words begin that speak of it."""
        return beginnings(" ".join([self.key, *(text for _, text in self.fact.words)]))


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in a text and what it may state: `1,234` and `5 m` have two readings each."""

    start: int
    end: int
    written: str
    readings: tuple[Quantity, ...]


@lru_cache(maxsize=4096)
def beginnings(text: str) -> frozenset[str]:
    """How the words of a text begin."""
    return frozenset(word[:_KEY] for word in re.findall(r"[^\W\d_]{3,}", text.lower()))


def figures(text: str) -> list[Figure]:
    """What states a number in a text, in its order; names, versions and the marks of a list do not."""
    dates = [Figure(*match.span(), match[0], (Quantity(0.0, "date", key=match[0]),)) for match in _DATE.finditer(text)]
    bare = _NO_CLAIM.sub(_blank, _DATE.sub(_blank, text))
    numbers = [(match.start(), match.end(), [*_numbers(match[0])]) for match in _NUMBER.finditer(bare)]
    numbers += [(start, end, [(value, 0.5 if value % 1 == 0 else 0.05)]) for start, end, value in spelt_numbers(bare)]
    found = [_figure(bare, *number) for number in sorted(numbers)]
    return sorted([*dates, *_joined(found, bare)], key=lambda one: one.start)


def runs_in(text: str) -> frozenset[str]:
    """The runs that a text names."""
    return frozenset(name for name in _RUN_OR_STEP.findall(text) if name[0] == "r")


# What a result states


@lru_cache(maxsize=256)
def quantities(result: str) -> tuple[Quantity, ...]:
    """Every quantity of a result: of JSON by the names of its keys, of text as it is written."""
    if result[:1] in ("{", "["):
        try:
            return tuple(dict.fromkeys(_of_json(json.loads(result), "", Fact())))
        except (ValueError, RecursionError):  # words after all, of a person
            pass
    return tuple(dict.fromkeys(_of_text(result)))


def _of_text(text: str, key: str = "", fact: Fact | None = None) -> Iterator[Quantity]:
    for place, line in enumerate(text.splitlines()):
        own = fact or Fact((place,), words=frozenset({("", line)}))
        for figure in figures(line):
            whole = key if figure.written == line and figure.readings[0].kind != "date" else ""
            yield from (replace(one, key=whole or one.key, fact=own) for one in figure.readings)


def _of_json(node: object, key: str, fact: Fact) -> Iterator[Quantity]:
    """The quantities at and below a node."""
    if isinstance(node, str):
        yield from _of_text(node, key, fact)
    elif isinstance(node, Mapping):
        words = {name: text for name, text in node.items() if isinstance(text, str)}
        of = node["of"].values() if isinstance(node.get("of"), Mapping) else ()
        runs = runs_in(" ".join([*words.values(), *map(str, of)]))
        apart = ((name, text) for name, text in words.items() if not (_RUN_OR_STEP.fullmatch(text) or figures(text)))
        own = Fact((*fact.place, id(node)), runs or fact.runs, frozenset(apart))
        for name, value in node.items():
            yield from _of_json(value, name, own)
    elif isinstance(node, list):
        told = Counter(text for one in node if isinstance(one, Mapping) for text in one.values() if type(text) is str)
        yield from (Quantity(count, "count", key=LISTED, fact=fact) for count in (len(node), *told.values()))
        for one in node:
            yield from _of_json(one, key, fact)
    elif isinstance(node, int | float) and not isinstance(node, bool) and abs(node) < _LARGEST:
        yield from (replace(one, key=key, fact=fact) for one in _by_key(key, node))


def _by_key(key: str, number: float) -> Iterator[Quantity]:
    """A number of JSON as the name of its key says what it is."""
    words = re.split(r"[\W_]+", key.lower().partition("_per_")[0])
    units = next((units_of(word) for word in reversed(words) if units_of(word) and word not in _NO_UNITS), ())
    if words[-1] == "at" and 0 < number < _LATEST:
        yield Quantity(number, "date", key=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(number)))
    elif not _SHARES.isdisjoint(words):
        yield Quantity(number, "share", 0.01 if "percent" in words else 1.0)
    kind = "count" if isinstance(number, int) else "number"
    is_open = not units and kind == "number" and "_per_" not in key and "loss" not in words
    yield from (Quantity(number, of, scale, is_open=is_open) for of, scale in units or [(kind, 1.0)])


# What a text states


def units_of(word: str) -> Sequence[tuple[str, float]]:
    """The kinds that a word may be a unit of, each with its scale; none for any other word."""
    return _units().get(plain(word), ())


@cache
def _units() -> Mapping[str, list[tuple[str, float]]]:
    units: dict[str, list[tuple[str, float]]] = {}
    for kind, scale, words in tables()["units"]:
        for word in words.split():
            units.setdefault(word, []).append((kind, float(scale)))
    return units


def _blank(match: re.Match[str]) -> str:
    """As much white space; a number that is glued to its unit stays."""
    glued = match.groupdict().get("glued")
    return match[0] if glued and units_of(glued) else " " * len(match[0])


def _numbers(written: str) -> Iterator[tuple[float, float]]:
    """What digits say, with half of their last one: a comma or a point before three of them may be either mark."""
    digits, _, power = written.lower().replace("−", "-").partition("e")
    *whole, last = re.split(r"[.,]", re.sub(r"[\s'’]", "", digits))
    scale, marks = 10.0 ** int(power or 0), {*re.findall("[.,]", digits)}
    if len(marks) < 2 and (not whole or _GROUPED.fullmatch(digits)):
        yield float("".join([*whole, last])) * scale, 0.5 * scale
    if len(whole) == 1 or len(marks) == 2:
        yield float(f"{''.join(whole)}.{last}") * scale, 0.5 * scale * 10.0 ** -len(last)


def _figure(text: str, start: int, end: int, numbers: Sequence[tuple[float, float]]) -> Figure:
    """A number with the unit behind it; without one it is a count where a word stands there."""
    behind = _BEHIND.match(text, end)
    word = "%" if behind and behind["percent"] else behind["word"].lower() if behind else ""
    units, rate, readings = units_of(word), _RATE.match(text, end), list[Quantity]()
    per = [("rate", 1 / scale) for kind, scale in units_of(rate["of"]) if kind == "time"] if rate else []
    roughly = _HEDGE.search(text, 0, start)
    for number, exact in numbers:
        half = max(exact, _roughly(number) if roughly else 0.0)
        readings += [Quantity(number, kind, scale, half, key=EACH if rate else kind) for kind, scale in units]
        if not units and exact == 0.5:
            readings.append(Quantity(number, "count", half=half, key=word[:_KEY]))
        if not units and (exact != 0.5 or not word):
            readings.append(Quantity(number, "number", half=half))
        readings += [Quantity(number, kind, scale, half, key=EACH) for kind, scale in per or [(EACH, 1.0)] if rate]
    end = behind.end() if behind and units else end
    return Figure(start, end, text[start:end], tuple(readings))


def _roughly(number: float) -> float:
    """Half of the second digit, where those behind it are zeros: what `about` before a number lets it be off by."""
    digit = 10.0 ** (math.floor(math.log10(number)) - 1) if 0 < number < _LARGEST else 0.0
    return 0.5 * digit if digit and number % digit == 0 else 0.0


def _joined(found: list[Figure], text: str) -> Iterator[Figure]:
    """`2 min 32 s` as one figure; before a unit, as in `16 to 28 s`, the one without may have the same."""
    while found:
        one = found.pop(0)
        if found and _GAP.fullmatch(text, one.end, found[0].start):
            next_ = found[0]
            (a, *_), (b, *_) = one.readings, next_.readings
            if a.kind == b.kind == "time" and a.scale > b.scale:
                late = 0.0 if b.scale < 60 else 0.25  # a clock shows the minutes that are over
                sum_ = Quantity((a.value + b.value) / b.scale + late, "time", b.scale, b.half + late, "time")
                found[0] = Figure(one.start, next_.end, text[one.start : next_.end], (sum_,))
                continue
            if a.kind in ("count", "number") and b.kind not in ("count", "number"):
                alike = (replace(b, written=of.written, half=of.half) for of in one.readings)
                one = replace(one, readings=(*one.readings, *alike))
        yield one


_RUN_OR_STEP = re.compile(r"\b[rs]\d+\b")
_NO_UNITS = ("m", "min", "x", "k", "mil", "times")
"""What is no unit in the name of a key: `min` is the least of something."""
_SHARES = {"share", "rate", "probability", "fraction", "accuracy", "percent"}
_NUMBER = re.compile(
    r"(?:(?<![^\W_])(?<!\.)|(?<=\d[hm]))"
    r"(?:(?!0)\d{1,3}(?:(?P<mark>[,.'’ \u00a0\u202f])\d{3})(?:(?P=mark)\d{3})*(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)?|\.\d+)"
    r"(?:e[-−+]?\d{1,2}(?!\d))?",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"(?!0)\d{1,3}(?:[,.'’\s]\d{3})*|\d+")
_DATE = re.compile(
    r"\b(?:\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?|\d{1,2}:\d\d(?::\d\d)?|\d{1,2}[./]\d{1,2}[./]\d{4})(?!\d)"
)
_BEHIND = re.compile(
    r"(?:\s{0,2}|-)"
    r"(?:(?P<percent>(?:per|por|pour)\s?c(?:ent|ien)(?!age)\w*)|(?:percentage\s)?(?P<word>[%×]|[^\W\d_]+))",
    re.IGNORECASE,
)
_GAP = re.compile(r"\s?(?:[-–—/,]\s?)?(?:[^\W\d_]{1,7}\s)?")
_HEDGE = re.compile(
    r"(?:[~≈]|\b(?:about|around|roughly|nearly|almost|approximately|some|ca\.?|circa|etwa|rund|ungefähr|knapp|fast"
    r"|environ|près de|unos|unas|casi|cerca de|quasi|około|ongeveer))\s*$",
    re.IGNORECASE,
)
_RATE = re.compile(r"\s?(?:[\w-]+\s?)?(?:/|\b(?:per|pro|por|par|je|a|al|na|za)\s)\s?(?P<of>[^\W\d_]+)", re.IGNORECASE)
_NO_CLAIM = re.compile(
    r"^\s*\d{1,2}[.)]\s"  # the mark of a list
    r"|(?<![\w.])(?!\d{1,3}(?:\.\d{3})+(?!\.?\d))\d+(?:\.\d+){2,}"  # a version, an address
    r"|(?<![\w.,@-])[^\W\d_][\w.@-]*\d[\w.@-]*"  # a name
    r"|\b(?:RTX|GTX|RX|GeForce|Radeon|Python|CUDA|Ubuntu|Llama|Gemma|Phi|GPT|Qwen)\s\d+(?:\.\d+)?(?![\w%])"  # a product
    r"|(?<![^\W_])(?<!\.)\d[\d.,]*(?!e[-−+]?\d)(?P<glued>[^\W\d_]+)[\w.-]*",  # 7B, 3rd
    re.IGNORECASE,
)
