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
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from tunesmith.tools.core.stated import EACH, LISTED, Figure, Quantity, beginnings, figures, quantities, runs_in

MARK = "[not in the records]"
_TURNS = 3
_MOST_CHANCE = 0.075
"""Share of the figures of about that size which may pass for computed; twice and three times that, where the sentence
speaks of what they would come of in one or two words."""
_MOST_OF_ITSELF = 0.35
"""The same where the sentence itself names what a figure comes of."""
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
    found = [(one, _runs_before(sentence, one)) for one in figures(sentence)]
    if any(_is_of_these_alone(one, told, runs) for one, runs in found if runs):
        found = [(one, frozenset()) for one, _ in found]  # beside its own a run may be compared with another one's
    supported = [one for one, runs in found if _is_known(one, told, runs)]
    missing, speaks_of = list[Figure](), beginnings(sentence)
    for one, runs in found:
        if one in supported:
            continue
        own = [[reading for other in supported for reading in other.readings]]
        computed = (
            _is_computed(said, operands, most_chance, speaks_of, runs)
            for said in one.readings
            for operands, most_chance in ((own, _MOST_OF_ITSELF), (told, _MOST_CHANCE))
        )
        (supported if _is_known(one, own, runs) or any(computed) else missing).append(one)
    for one in reversed(missing):
        sentence = f"{sentence[: one.start]}{MARK}{sentence[one.end :]}"
    return sentence, [one.written for one in missing]


# Known figures


def _named(sentence: str) -> tuple[Quantity, ...]:
    """How many runs and steps a sentence names."""
    return tuple(Quantity(count, "count") for count in Counter(name[0] for name in {*_ID.findall(sentence)}).values())


def _runs_before(sentence: str, figure: Figure) -> frozenset[str]:
    """The runs that a figure may be of: all that are named, where one of them is named before it."""
    return runs_in(sentence) if runs_in(sentence[: figure.start]) else frozenset()


def _is_of(known: Quantity, runs: frozenset[str]) -> bool:
    return not (runs and known.fact.runs) or bool(known.fact.runs & runs)


def _is_of_these_alone(figure: Figure, told: Sequence[Sequence[Quantity]], runs: frozenset[str]) -> bool:
    about = [one for result in told for one in result if one.fact.runs and one.key != LISTED]
    its, others = ([one for one in about if bool(one.fact.runs & runs) is of] for of in (True, False))
    return _is_known(figure, [its], runs) and not _is_known(figure, [others], frozenset())


def _is_known(figure: Figure, results: Sequence[Sequence[Quantity]], runs: frozenset[str]) -> bool:
    return any(
        _is_of(known, runs) and _says(said, known) for said in figure.readings for some in results for known in some
    )


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
    return abs(said - known) <= half * (1 + 1e-9)  # floats are not exact


# Computed figures


def _is_computed(
    said: Quantity,
    results: Sequence[Sequence[Quantity]],
    most_chance: float,
    speaks_of: frozenset[str],
    runs: frozenset[str],
) -> bool:
    """Whether a figure comes of two quantities of one result, in a way in which few of about its size would.

    What the sentence speaks of is tried first, then what fewer figures come of, then what was told last; it ends where
    too many figures would have passed by then.
    """
    pools: defaultdict[tuple[int, int, str], set[float]] = defaultdict(set)
    for place, result in enumerate(results):
        for spoken_of, way, value in _computed(said, result, speaks_of, runs):
            if said.value <= 2 * value <= 4 * said.value:
                pools[spoken_of, place, way].add(value)
    possible, chance = max(1.0, 0.75 * said.value / said.margin), 0.0
    for (spoken_of, *_), pool in sorted(pools.items(), key=lambda one: (-one[0][0], len(one[1]), -one[0][1])):
        chance += len({round(value / (2 * said.margin)) for value in pool}) / possible
        if chance > most_chance * min(3, 1 + spoken_of):
            return False
        if any(_is_near(said.value, value, said.margin) for value in pool):
            return True
    return False


Way = tuple[int, str, float]
"""How much a sentence speaks of what a figure may come of, by which way it may, and what comes of that."""


def _computed(
    said: Quantity, result: Sequence[Quantity], speaks_of: frozenset[str], runs: frozenset[str]
) -> Iterator[Way]:
    """What the quantities of a result come to, of the kind of a figure."""
    of_kind: defaultdict[str, list[tuple[Quantity, frozenset[str]]]] = defaultdict(list)
    for one in result:
        if one.key != LISTED:
            of_kind[one.kind].append((one, speaks_of & one.about))
    for kind in (said.kind, *(("time", "size") if said.kind == "share" else ())):
        yield from _of_all(said, [one for one, _ in of_kind[kind]], speaks_of)
    for kinds in _OPERANDS.get(said.kind, ()):
        for (a, of_a), (b, of_b) in product(*(of_kind[kind] for kind in kinds)):
            if a is b or not (_is_of(a, runs) or _is_of(b, runs)):
                continue
            # One thing differs between their facts, or one is of the other, or the sentence speaks of both.
            alike = a.key == b.key and len(a.fact.words ^ b.fact.words) <= 2
            like = alike or a.fact.is_part(b.fact) or (of_a and of_b)
            if like if a.kind == b.kind else of_b or said.key == EACH:
                for way, value in _of_two(said, a, b, alike=alike):
                    yield len(of_a | of_b) + bool(of_a and a.fact == b.fact), f"{way} {a.key} {b.key}", value


def _of_all(said: Quantity, known: Sequence[Quantity], speaks_of: frozenset[str]) -> Iterator[Way]:
    """All of a key, or of those of its facts that say the same; a word less need be said of them."""
    columns: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for one in known:
        if one.kind == "share":
            yield len(speaks_of & one.about), "the rest", 1.0 - one.value
            continue
        for word in ("", *(text for _, text in one.fact.words)):
            columns[one.key, word].append(one.value)
    for (key, word), column in columns.items():
        if len(column) > 2 and (total := sum(column)):
            whole = [total] if known[0].kind == said.kind else [value / total for value in column]
            yield from ((1 + len(speaks_of & beginnings(f"{key} {word}")), "all", value) for value in whole)


def _of_two(said: Quantity, a: Quantity, b: Quantity, *, alike: bool) -> Iterator[tuple[str, float]]:
    if a.kind == b.kind and said.kind in (a.kind, "points"):
        yield "difference", a.value - b.value
        # Of two facts what can be summed up; of the sentence itself whatever it names.
        if alike and (not a.fact.place or (said.kind in ("time", "size") and a.fact != b.fact)):
            yield "sum", a.value + b.value
    elif b.value and said.kind in ("share", "fold"):
        if alike or a.value <= b.value:  # a part of a whole
            yield from (("ratio", a.value / b.value), ("change", abs(a.value - b.value) / b.value))
    elif b.value and (a.fact.is_part(b.fact) or a.fact.is_line(b.fact)):
        yield "quotient", a.value / b.value


_ALIKE = [("time", "time"), ("size", "size"), ("count", "count"), ("number", "number")]
_OPERANDS = {
    "time": [("time", "time"), ("time", "count")],
    "size": [("size", "size"), ("size", "count")],
    "rate": [("count", "time"), ("size", "time")],
    "count": [("count", "count")],
    "each": [("count", "count")],
    "number": [("number", "number")],
    "share": [*_ALIKE, ("share", "share")],
    "points": [("share", "share")],
    "fold": _ALIKE,
}
"""Of which kinds a figure may be computed: like ones, and seconds for each of some steps."""
