"""What a driver says on its way to the user: sentence by sentence, each held to the figures that the turn was told.

A language model states numbers as readily when it has none. Every figure of an answer is therefore looked for in what
the turn was told: the tools' results, the state card, the user's own words. A count needs a count: a size, a time or a
share of that number is none. A sum, a difference, a ratio or a percentage of two that were told passes too, where a
made-up figure would seldom have passed for it. A sentence with any other one is left out, and that is said.

Thoughts are no words: pydantic-ai hands them over as parts of their own, and of those that a template opened unseen
only what follows their end is said.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from pydantic_ai import RunContext
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)

from tunesmith.agent.driver.agent import after_thoughts, looks_like_a_call
from tunesmith.agent.driver.state_summary import STATE_HEADING
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.values import spelt_numbers

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered, and the figures that were left out of it."""

    text: str
    left_out: tuple[str, ...] = ()


class Voice:
    """The events of a turn on their way to the user."""

    def __init__(self, deps: TurnDeps, say: Say) -> None:
        self._deps, self._say = deps, say
        self._text, self._spoken = "", ""
        self._called: set[str] = set()
        self._uttered: list[str] = []
        self._left_out: list[str] = []

    async def hear(self, ctx: RunContext[TurnDeps], events: AsyncIterable[object]) -> None:
        """Take the events of one model request or one round of tool calls."""
        async for event in events:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                self._text, self._spoken = event.part.content, ""
                self._speak()
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                self._text += event.delta.content_delta
                self._speak()
            elif isinstance(event, FunctionToolCallEvent) and event.part.tool_call_id not in self._called:
                self._called.add(event.part.tool_call_id)  # it comes again once it was agreed to
                self._deps.ws.emit(
                    "tool.called", tool=event.part.tool_name, arguments=event.part.args_as_dict(), stage=""
                )
            elif isinstance(event, FunctionToolResultEvent):
                part = event.part
                # whoever follows as JSON needs no page of it
                self._deps.ws.emit("tool.returned", tool=part.tool_name, result=str(part.content)[:2000], stage="")

    def _speak(self) -> None:
        """Say the sentences that are whole; what may turn out to be a call, a thought, or no answer, waits, and so do
        words of code's, which are said in their own lines."""
        waits = self._deps.window.thinks or looks_like_a_call(self._text) or STATE_HEADING in self._text
        if waits or self._text in self._deps.heard:
            return
        whole = sentences(self._text)[:-1]
        for sentence in whole[len(sentences(self._spoken)) :]:
            self._utter(sentence)
        self._spoken = "\n".join(whole)

    def _utter(self, sentence: str) -> None:
        supported, wrong = checked(sentence, self._deps.heard)
        self._left_out += wrong
        if supported:
            self._uttered.append(supported)
            self._say(supported)

    def conclude(self, output: str) -> Reply:
        """Say what is left of the last text, and note what was left out."""
        output = _own_words(after_thoughts(output))
        if output in self._deps.heard:
            rest = output.splitlines()
        else:
            rest = sentences(output)[len(sentences(self._spoken)) :] if self._text else sentences(output)
        for sentence in rest:
            self._utter(sentence)
        if self._left_out:
            figures = ", ".join(dict.fromkeys(self._left_out))
            note = f"(A sentence with a figure that no record holds was left out: {figures}.)"
            self._uttered.append(note)
            self._say(note)
        if not self._uttered:
            self._uttered.append("I have no answer to that; say it in other words, or “help” for what I can do.")
            self._say(self._uttered[-1])
        return Reply(" ".join(self._uttered), tuple(self._left_out))


def _own_words(text: str) -> str:
    """A reply without the state that only the model was to read: a small one says it again, at its end."""
    return text.partition(STATE_HEADING)[0].rstrip(" (")


# Figures

_NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-−+]?\d+)?"
_FIGURE = re.compile(rf"(?<![\w.])(?P<number>{_NUMBER})\s*(?P<unit>%|[a-z]+\b)?", re.IGNORECASE)
_BARE = re.compile(rf"(?P<number>{_NUMBER})", re.IGNORECASE)
_IDENTIFIER = re.compile(
    r"\b[rsap]\d+\b|\b\d+(?:\.\d+){2,}\b|\b[a-z]+[a-z_]*\d+[a-z]\w*\b|\b[a-z]\w*-\d[\w.]*\b", re.IGNORECASE
)
_ID = re.compile(r"\b[rsap]\d+\b")
_LIST_MARK = re.compile(r"(?m)^\s*\d{1,2}[.)]\s")
_ONLY_A_MARK = re.compile(r"\s*\d{1,2}[.)]\s*")
_PROSE = ("zero", "one", "hundred", "thousand", "dozen")  # no figures, where they stand alone
_SENTENCE_END = re.compile(r"(?<=[.!?…:])\s+|\n+")
_SECONDS: Mapping[str, float] = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
}
_BYTES: Mapping[str, float] = {f"{letter}{i}b": (1024.0 if i else 1000.0) ** power
                               for power, letter in enumerate("kmgt", 1) for i in ("i", "")}  # fmt: skip
_SHARES = ("%", "percent", "points")
_FOLD = ("x", "times", "fold")
# Factors by which a stored figure may be said in another unit: s, min, h, ms; bytes in either system; counts.
_TIMES = (1.0, 1 / 60, 60.0, 1 / 3600, 3600.0, 1e-3, 1e3)
_SIZES = (1.0, *(sign for power in (1, 2, 3) for sign in (1024.0**-power, 1000.0**-power)))
_COUNTS = (1.0, 1e-3, 1e-6, 1e-9)
_FACTORS: Mapping[str, tuple[float, ...]] = {
    **dict.fromkeys(_SHARES, (1.0, 100.0)),
    **dict.fromkeys((*_SECONDS, "ms"), _TIMES),
    **dict.fromkeys((*_BYTES, "bytes"), _SIZES),
    **dict.fromkeys(("m", "b", "k", "million", "billion", "thousand"), _COUNTS),
}
"""Unit behind a figure → what a stored number may be multiplied with to give it."""
_COUNTED = (
    "run", "step", "row", "case", "suite", "model", "base", "adapter", "artifact", "server", "approval", "answer",
)  # fmt: skip
"""What tunesmith counts: so many GiB, minutes or percent are no support for so many of these."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as it is written, what it says, and to how many decimals."""

    written: str
    value: float
    decimals: int
    unit: str = ""


def sentences(text: str) -> list[str]:
    """The text cut behind its sentences and lines; joined again it is the text but for white space at the cuts."""
    whole: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        if whole and _ONLY_A_MARK.fullmatch(whole[-1]):
            whole[-1] += f" {sentence}"
        elif sentence.strip():
            whole.append(sentence)
    return whole


def unsupported(text: str, heard: Iterable[str]) -> list[str]:
    """Figures in `text` that nothing in `heard` supports, as they are written.

    Supported is one that is equal once it is rounded as the text rounds it, and where a unit stands behind it also
    the same share in percent, the same duration and the same size in that unit.
    """
    source = "\n".join(heard)
    in_seconds = with_durations_in_seconds(source)
    counts = set(_values(in_seconds, counts=True))
    known = set(_values(in_seconds)) | set(_values(source))
    unknown = [
        figure
        for figure in figures(with_durations_in_seconds(text))
        if not _known(figure, counts if figure.unit.removesuffix("s") in _COUNTED else known)
    ]
    lines = [[*quantities(line)] for line in source.splitlines()] if unknown else []
    return [one.written for one in unknown if not is_computed(one.value, one.decimals, one.unit, lines)]


def figures(text: str) -> Iterator[Figure]:
    """What states a number in a text; identifiers, versions and the marks of a list do not."""
    bare = _IDENTIFIER.sub(" ", _LIST_MARK.sub(" ", text))
    for match in _FIGURE.finditer(bare):
        number = match["number"].rstrip(",").replace(",", "").replace("−", "-")
        unit = (match["unit"] or "").lower()
        written = match.group().strip() if unit in _FACTORS else match["number"]
        decimals = len(number.partition(".")[2].partition("e")[0])
        yield Figure(written, float(number), decimals, unit)
    for number in spelt_numbers(bare):
        written = bare[number.start : number.end]
        if written.lower() in _PROSE:
            continue
        after = bare[number.end :].split(maxsplit=1)[:1]
        unit = after[0].strip(".,;:!?").lower() if after else ""
        yield Figure(written, number.value, 0 if number.value.is_integer() else 1, unit)


def _values(text: str, *, counts: bool = False) -> Iterator[float]:
    """Every number in what was heard, or those alone that no size, time or share stands behind; the ids of runs, steps,
    artifacts and approvals count nothing."""
    text = _ID.sub(" ", text)
    for match in (_FIGURE if counts else _BARE).finditer(text):
        if not counts or (match["unit"] or "").lower() not in _FACTORS:
            yield _number(match["number"])
    yield from (number.value for number in spelt_numbers(text))


def _number(written: str) -> float:
    return float(written.rstrip(",").replace(",", "").replace("−", "-"))


def _known(figure: Figure, known: set[float]) -> bool:
    # Half of the last digit that was said, and a hair, as floats are not exact.
    half = 0.5 * 10.0**-figure.decimals * (1 + 1e-9)
    for factor in _FACTORS.get(figure.unit, (1.0,)):
        for stored in known:
            value = stored * factor
            rounded = not value.is_integer() or figure.unit in _FACTORS
            if abs(value - figure.value) <= (half if rounded else 1e-9):  # floats are not exact
                return True
    return False


def checked(text: str, heard: Iterable[str]) -> tuple[str, list[str]]:
    """The text without the sentences that state unsupported figures, and those figures."""
    sources = list(heard)
    supported, wrong = [], []
    for sentence in sentences(text):
        unknown = unsupported(sentence, sources)
        wrong += unknown
        if not unknown:
            supported.append(sentence)
    return ("\n" if "\n" in text.strip() else " ").join(supported), wrong


_UNITS = "|".join(sorted({*_SECONDS, *_BYTES}, key=len, reverse=True))
_MEASURED = re.compile(rf"(?<![\w.])(\d[\d,]*(?:\.\d+)?)\s?({_UNITS})\b", re.IGNORECASE)
_OUT_OF = re.compile(r"(?<![\w.])(\d[\d,]*) (?:of|out of|/) (\d[\d,]*)\b")
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
    for match in _OUT_OF.finditer(plain):
        yield from (Quantity(_number(part), f"of {_number(match[2]):g}") for part in match.groups())


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
    # Figures with so many decimals between half of the value and twice of it: 1.5 times the value.
    possible = max(1.0, 1.5 * value * 10.0**decimals)
    return round(value, decimals) in near and len(near) / possible <= _MOST_CHANCE


def _derived(unit: str, known: Sequence[Quantity]) -> Iterator[float]:
    """In the unit of a figure: whatever two quantities that are alike come to."""
    for a, b in permutations(known, 2):
        if a.kind != b.kind:
            continue
        if unit in (*_SHARES, *_FOLD) and b.value:
            share = 100.0 if unit in _SHARES else 1.0
            yield from (share * a.value / b.value, share * abs(a.value - b.value) / b.value)
        elif unit not in (*_SHARES, *_FOLD) and _kind_of(unit) in (a.kind, a.kind[:2]):
            yield from ((a.value + b.value) / _scale(unit), abs(a.value - b.value) / _scale(unit))


def _sum(unit: str, known: Sequence[Quantity]) -> list[float]:
    """All of those in the unit of a figure added up."""
    of_kind = [one.value for one in known if one.kind == _kind_of(unit)]
    return [sum(of_kind) / _scale(unit)] if of_kind else []


def _kind_of(unit: str) -> str:
    return "time" if unit in _SECONDS else "size" if unit in _BYTES else "of"


def _scale(unit: str) -> float:
    return _SECONDS.get(unit) or _BYTES.get(unit) or 1.0
