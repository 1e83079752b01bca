"""Figures in a driver's words, held to what the conversation was told in its last three turns.

A language model states numbers as readily when it has none. What a turn is told is kept result by result: what a tool
returned, the user's words, the state card, a line of code's. A figure is known where one of them has it, in whichever
unit and rounding, as the same kind of quantity (a size, a time or a share is no count), and of a run that the sentence
names before it. One that is not may be computed, from two figures of one result or two known ones of its sentence,
where a made-up one would seldom pass for it. Any other is marked in its sentence, which stays.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import permutations

from tunesmith.tools.core.stated import Fact, Figure, Quantity, beginnings, figures, units_of

MARK = "[not in the records]"
_TURNS = 3
_MOST_CHANCE = 0.075
"""Share of the figures of about that size which may pass for computed; twice and three times that, where the sentence
speaks of what they would come of in one or two words."""
_MOST_OF_ITSELF = 0.35
"""The same where the sentence itself names what a figure comes of."""
_LISTED = "listed"
_NO_UNITS = ("m", "min", "x", "k", "mil", "times")
"""What is no unit in the name of a key: `min` is the least of something."""
_SHARES = {"share", "rate", "probability", "fraction", "accuracy", "percent"}
_LIKE = ({"count", "number"}, {"share", "points"})
_ID = re.compile(r"\b[rs]\d+\b")
_PART = re.compile(r"\d+")


class Ledger:
    """What the last three turns were told, result by result."""

    def __init__(self) -> None:
        self._turns: deque[list[str]] = deque([[]], maxlen=_TURNS)

    def begin_turn(self) -> None:
        """Let the oldest turn go."""
        self._turns.append([])

    def note(self, result: object) -> None:
        """Keep a result: text, or what JSON can hold."""
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        if text not in self._turns[-1]:
            self._turns[-1].append(text)

    def clear(self) -> None:
        """Forget all of them."""
        self._turns.clear()
        self.begin_turn()

    def __iter__(self) -> Iterator[str]:
        return (text for turn in self._turns for text in turn)


def hold(sentence: str, ledger: Iterable[str]) -> tuple[str, list[str]]:
    """The sentence with its unsupported figures marked, and these as they were written."""
    told = [_named(sentence), *map(quantities, ledger)]
    found = [(one, _of_runs(told, sentence, one)) for one in figures(sentence)]
    supported = [one for one, results in found if _is_known(one, results)]
    missing, speaks_of = [], beginnings(sentence)
    for one, results in found:
        if one in supported:
            continue
        own = [[reading for other in supported for reading in other.readings]]
        computed = any(
            _is_computed(said, own, speaks_of, _MOST_OF_ITSELF) or _is_computed(said, results, speaks_of, _MOST_CHANCE)
            for said in one.readings
        )
        (supported if computed or _is_known(one, own) else missing).append(one)
    for one in reversed(missing):
        sentence = f"{sentence[: one.start]}{MARK}{sentence[one.end :]}"
    return sentence, [one.written for one in missing]


# Known figures


def _named(sentence: str) -> tuple[Quantity, ...]:
    """How many runs and steps a sentence names."""
    return tuple(Quantity(len({name for name in _ID.findall(sentence) if name[0] == of}), "count") for of in "rs")


def _runs_in(text: str) -> frozenset[str]:
    return frozenset(name for name in _ID.findall(text) if name[0] == "r")


def _of_runs(told: list[tuple[Quantity, ...]], sentence: str, figure: Figure) -> list[tuple[Quantity, ...]]:
    """What may support a figure: behind the name of a run nothing that is only about runs which are not named."""
    if not _runs_in(sentence[: figure.start]):
        return told
    runs = _runs_in(sentence)
    return [tuple(one for one in result if not one.fact.runs or one.fact.runs & runs) for result in told]


def _is_known(figure: Figure, results: Sequence[Sequence[Quantity]]) -> bool:
    return any(_says(said, known) for said in figure.readings for result in results for known in result)


def _says(said: Quantity, known: Quantity) -> bool:
    """Whether a figure says what a result told, rounded as the figure is."""
    kinds = {said.kind, known.kind}
    if "date" in kinds:
        return len(kinds) == 1 and {*_PART.findall(said.key)} <= {*_PART.findall(known.key)}
    if len(kinds) > 1 and said.kind != "number" and not known.is_open and kinds not in _LIKE:
        return False
    half = min(said.half, 0.1 * said.written) if said.kind == "count" else said.half  # 0.6 is no 1 of something
    as_written = "number" in kinds and _is_near(said.written, known.written, half)
    return as_written or _is_near(said.value, known.value, half * said.scale)


def _is_near(said: float, known: float, half: float) -> bool:
    exact = half == 0.5 and known == round(known)  # 57 may be 56.6, and is no 56
    return abs(said - known) <= (1e-9 if exact else half * (1 + 1e-9))  # floats are not exact


# Computed figures


def _is_computed(
    said: Quantity, results: Sequence[Sequence[Quantity]], speaks_of: frozenset[str], most_chance: float
) -> bool:
    """Whether a figure comes of two quantities of one result, in a way in which few of about its size would.

    What the sentence speaks of is tried first, then what fewer figures come of, then what was told last; it ends where
    too many figures would have passed by then.
    """
    pools: defaultdict[tuple[int, int, str], set[float]] = defaultdict(set)
    for place, result in enumerate(results):
        for way, value, about in _computed(said, result, speaks_of):
            if said.value <= 2 * value <= 4 * said.value:
                pools[len(speaks_of & about), place, way].add(value)
    possible, chance = max(1.0, 0.75 * said.value / said.margin), 0.0
    for (spoken_of, *_), pool in sorted(pools.items(), key=lambda one: (-one[0][0], len(one[1]), -one[0][1])):
        chance += len({round(value / (2 * said.margin)) for value in pool}) / possible
        if chance > most_chance * min(3, 1 + spoken_of):
            return False
        if any(_is_near(said.value, value, said.margin) for value in pool):
            return True
    return False


def _computed(
    said: Quantity, result: Sequence[Quantity], speaks_of: frozenset[str]
) -> Iterator[tuple[str, float, frozenset[str]]]:
    """How the quantities of a result come to one of the kind of a figure, to which, and what that is about."""
    known = [(one, one.about) for one in result if one.key != _LISTED]
    columns: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for one, about in known:
        if one.kind != "share":
            columns[one.kind, one.key].append(one.value)
        elif said.kind == "share":
            yield "the rest", 1.0 - one.value, about
    for (kind, key), column in columns.items():
        if len(column) < 3:
            continue
        if kind == said.kind:
            yield "in all", sum(column), beginnings(key)
        elif said.kind == "share" and kind in ("time", "size"):
            yield from (("part of all", value / sum(column), beginnings(key)) for value in column)
    for (a, of_a), (b, of_b) in permutations(known, 2):
        # One thing differs between their facts, or they are of one, or the sentence speaks of both.
        alike = a.key == b.key and len(a.fact.words ^ b.fact.words) <= 2
        if a.kind != b.kind or alike or a.fact.place == b.fact.place or (speaks_of & of_a and speaks_of & of_b):
            for way, value in _of_two(said, a, b, alike=alike):
                yield f"{way} {a.key} {b.key}", value, of_a | of_b


def _of_two(said: Quantity, a: Quantity, b: Quantity, *, alike: bool) -> Iterator[tuple[str, float]]:
    if a.kind == b.kind == ("share" if said.kind == "points" else said.kind):
        yield "difference", a.value - b.value
        # Of two facts what can be summed up; of the sentence itself whatever it names.
        if alike and (not a.fact.place or (said.kind in ("time", "size") and a.fact != b.fact)):
            yield "sum", a.value + b.value
    elif not b.value:
        return
    elif a.kind == b.kind != "share" and said.kind in ("share", "fold"):
        if alike or a.value <= b.value:  # a part of a whole
            yield from (("ratio", a.value / b.value), ("change", abs(a.value - b.value) / b.value))
    elif (said.kind, a.kind, b.kind) in _QUOTIENTS and a.fact.is_with(b.fact):
        yield "quotient", a.value / b.value


_QUOTIENTS = {("time", "time", "count"), ("size", "size", "count"), ("rate", "count", "time"), ("rate", "size", "time")}
"""The kind of a figure, and of what it may be divided from, such as seconds for each of some steps."""

# What a result tells


@lru_cache(maxsize=256)
def quantities(result: str) -> tuple[Quantity, ...]:
    """Every quantity of a result: of JSON by the names of its keys, of text as it is written."""
    try:
        told = json.loads(result) if result[:1] in ("{", "[") else None
    except ValueError:  # words after all
        told = None
    return tuple(dict.fromkeys(_of_text(result) if told is None else _of_json(told, "", Fact())))


def _of_text(text: str, fact: Fact | None = None) -> Iterator[Quantity]:
    for place, line in enumerate(text.splitlines()):
        own = fact or Fact((place,), words=frozenset({("", line)}))
        yield from (replace(reading, fact=own) for figure in figures(line) for reading in figure.readings)


def _of_json(node: object, key: str, fact: Fact) -> Iterator[Quantity]:
    """The quantities at and below a node."""
    if isinstance(node, str):
        yield from _of_text(node, fact)
    elif isinstance(node, Mapping):
        words = {name: text for name, text in node.items() if isinstance(text, str)}
        of = node["of"].values() if isinstance(node.get("of"), Mapping) else ()
        runs = _runs_in(" ".join([*words.values(), *map(str, of)]))
        apart = frozenset((name, text) for name, text in words.items() if not _ID.fullmatch(text))
        own = Fact((*fact.place, id(node)), fact.runs | runs, apart)
        for name, value in node.items():
            yield from _of_json(value, name, own)
    elif isinstance(node, list):
        told = Counter(text for one in node if isinstance(one, Mapping) for text in one.values() if type(text) is str)
        yield from (Quantity(count, "count", key=_LISTED, fact=fact) for count in (len(node), *told.values()))
        for one in node:
            yield from _of_json(one, key, fact)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield from (replace(one, key=key, fact=fact) for one in _by_key(key, node))


def _by_key(key: str, number: float) -> Iterator[Quantity]:
    """A number of JSON as the name of its key says what it is."""
    words = re.split(r"[\W_]+", key.lower().partition("_per_")[0])
    units = next((units_of(word) for word in reversed(words) if units_of(word) and word not in _NO_UNITS), ())
    if words[-1] == "at":
        yield Quantity(number, "date", key=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(number)))
    elif not _SHARES.isdisjoint(words):
        yield Quantity(number, "share", 0.01 if "percent" in words else 1.0)
    kind = "count" if isinstance(number, int) else "number"
    is_open = not units and kind == "number" and "_per_" not in key
    yield from (Quantity(number, of, scale, is_open=is_open) for of, scale in units or [(kind, 1.0)])
