"""The settings that a sentence gives values to: `rank 8`, `lr=1e-3`, `2k rows`, `in 4 bit`, `ohne Warmup`.

Every field of every request is within reach by its names; what a value may be is read from the field's own type. Each
value comes with the place in the sentence that it was read from, so that what nothing took can be asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from tunesmith.agent.words.lexicon import lexicon, words_of
from tunesmith.agent.words.slots import Slot, Slots
from tunesmith.agent.words.values import Number, fitting, numbers_in
from tunesmith.tools.core.field_names import ours
from tunesmith.tools.pipeline import catalog

Place = tuple[int, int]
_CAN_BE_NONE = ("warmup_ratio", "lora_dropout", "rehearsal_rows", "rehearsal_weight", "near_miss_rows", "thinking")
"""Fields that `without …` gives a value to: 0, or off."""
_NO_FIELD_UNITS = ("bit", "gib", "params", "s", "min", "h", "day", "x")


@dataclass(frozen=True, slots=True)
class Assigned:
    """A field, its value, and where both were said."""

    field: str
    value: object
    places: tuple[Place, ...]


@cache
def known_fields() -> Mapping[str, tuple[str, ...]]:
    """Field → the stages whose request has it, in the order of the stages; `run` is no setting, and "on" is a word of
    every second sentence."""
    by_name: dict[str, list[str]] = {}
    for entry in catalog.STAGES:
        for name in entry.load().request.model_fields:
            if name not in ("run", "on"):
                by_name.setdefault(name, []).append(entry.name)
    return {name: tuple(stages) for name, stages in by_name.items()}


def info_of(field: str, stages: Sequence[str] = ()) -> FieldInfo | None:
    """What a field of one of these stages, else of any, may hold; None: there is none such."""
    of = [stage for stage in known_fields().get(field, ()) if not stages or stage in stages]
    return catalog.BY_NAME[of[0]].load().request.model_fields[field] if of else None


def assigned(slots: Slots, stages: Sequence[str] = ()) -> list[Assigned]:
    """Every value that the sentence gives to a field of these stages, else of any; of two for a field the last."""
    found = [*_pairs(slots, stages), *_numbers(slots, stages), *_choices(slots, stages), *_without(slots, stages)]
    return list({one.field: one for one in found}.values())


def _pairs(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    for slot in slots.all("pair"):
        name = ours(str(slot.value), known_fields())
        field = name if name in known_fields() else _field_called(name)
        if (info := info_of(field, stages)) is not None:
            yield Assigned(field, _typed(slots.pairs[str(slot.value)], info), ((slot.start, slot.end),))


@cache
def _field_called(name: str) -> str:
    words = words_of(name.replace("_", " "))
    found = lexicon()["fields"].find(words)
    return found[0].name if found and found[0].after == len(words) else ""


def _typed(text: str, info: FieldInfo) -> object:
    if get_origin(info.annotation) in (tuple, list):
        return [part.strip(" '\"") for part in text.strip("[]").split(",") if part.strip()]
    if info.annotation in (int, float) and (numbers := numbers_in(text)):
        return fitting(numbers[0], info)
    return text


def _numbers(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    """Numbers beside the names of their fields, read from left to right."""
    tokens: list[Slot | Number] = [
        *(slot for slot in slots.all("field") if _is_number(info_of(str(slot.value)))),
        *(number for number in slots.numbers if number.unit not in _NO_FIELD_UNITS),
    ]
    tokens.sort(key=lambda token: token.start)
    waiting: Slot | None = None
    at = 0
    while at < len(tokens):
        one, two = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else None
        pair = _pair(slots, one, two) if two is not None else None
        if pair is None:
            if waiting is not None and isinstance(one, Number) and not one.weak:  # `rank 8 was too low, take 16`
                yield from _fitted(waiting, one, stages)
                waiting = None
            at += 1
            continue
        field, number = pair
        if _rejected(slots, field, number):
            waiting = field
        else:
            yield from _fitted(field, number, stages)
        at += 2


def _is_number(info: FieldInfo | None) -> bool:
    return info is not None and info.annotation in (int, float)


def _fitted(field: Slot, number: Number, stages: Sequence[str]) -> Iterator[Assigned]:
    if (info := info_of(str(field.value), stages)) is not None:
        places = ((field.start, field.end), (number.start, number.end))
        yield Assigned(str(field.value), fitting(number, info), places)


def _pair(slots: Slots, one: Slot | Number, two: Slot | Number) -> tuple[Slot, Number] | None:
    """The field and its number, where of two neighbours one is a name, the other a number and they belong together."""
    between = [word.text for word in slots.between(one.end, two.start)]
    if isinstance(one, Number) and isinstance(two, Slot):
        whole = two.value in ("epochs",) or not one.weak
        return (two, one) if whole and set(between) <= _joining("between") else None
    if isinstance(one, Slot) and isinstance(two, Number):
        return (one, two) if not two.weak and set(between) <= _joining("joins") else None
    return None


@cache
def _joining(table: str) -> frozenset[str]:
    return frozenset(lexicon()[table].words())


def _rejected(slots: Slots, field: Slot, number: Number) -> bool:
    """Whether the words say what is not wanted: `rank 8 was too low`, `not rank 8`, `instead of rank 8`."""
    start, end = min(field.start, number.start), max(field.end, number.end)
    after = [slot for slot in slots.all("too_much") if slot.start >= end and len(slots.between(end, slot.start)) <= 3]
    before = [w.text for w in slots.words if w.end <= start][-2:]
    return bool(after) or before[-2:] == ["instead", "of"] or before[-1:] in (["not"], ["statt"], ["nicht"])


def _choices(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    """Fields with a choice of words, and switches."""
    for slot in slots.found:
        if not slot.kind.startswith("choice."):
            continue
        field, value = slot.kind.removeprefix("choice."), str(slot.value)
        if (info := info_of(field, stages)) is None:
            continue
        off = slots.negated(slot, most=1)
        if info.annotation is bool:
            yield Assigned(field, not off, ((slot.start, slot.end),))
        elif not off and get_origin(info.annotation) is Literal:
            if value in get_args(info.annotation):
                yield Assigned(field, value, ((slot.start, slot.end),))
        elif not off:
            kept = [str(other.value) for other in slots.all(slot.kind)]
            yield Assigned(field, kept, tuple((s.start, s.end) for s in slots.all(slot.kind)))
    for field, value, place in _own_words(slots, stages):
        yield Assigned(field, value, (place,))


def _own_words(slots: Slots, stages: Sequence[str]) -> Iterator[tuple[str, str, Place]]:
    """Choices by their own word, such as bf16, where it is no everyday one."""
    for stage in stages:
        for field, info in catalog.BY_NAME[stage].load().request.model_fields.items():
            if get_origin(info.annotation) is not Literal or field in ("arm", "scheme", "thinking"):
                continue
            options = {str(option).lower(): str(option) for option in get_args(info.annotation)}
            named = field in slots.values("field")
            for word in slots.words:
                if word.text in options and (named or not word.text.isalpha()):
                    yield field, options[word.text], (word.start, word.end)


def _without(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    for slot in slots.all("field"):
        if slot.value in _CAN_BE_NONE and slots.negated(slot, most=1) and (info := info_of(str(slot.value), stages)):
            off = "off" if get_origin(info.annotation) is Literal else 0
            yield Assigned(str(slot.value), off, ((slot.start, slot.end),))
