"""What is to be done: a step with its fields, and the values that a sentence gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from tunesmith.agent.words.held import held_back, taken_back
from tunesmith.agent.words.lexicon import lexicon, near_name, words_in, words_of
from tunesmith.agent.words.slots import Slot, Slots, empty_words, stages_of
from tunesmith.agent.words.unmeant import (
    PassedOver,
    denial_before,
    denied,
    denied_values,
    factors,
    lowered,
    not_enough,
    passed_over,
)
from tunesmith.agent.words.unread import (
    MARKS,
    Place,
    loose_clauses,
    misspelt,
    own_nouns,
    reasons_of,
    unread_of,
)
from tunesmith.agent.words.values import Number, fitting, numbers_alone, numbers_in
from tunesmith.tools.core.auto import is_open, is_switch
from tunesmith.tools.core.field_names import ours
from tunesmith.tools.pipeline import catalog

OWN_SLOTS = ("run", "not", "again", "only", "pronoun", "until", "which_run")
"""Slots that any order may hold and that are no argument of it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A step that is to be carried out, once it was priced and agreed to."""

    stage: str
    fields: Mapping[str, object] = field(default_factory=dict)
    run: str = ""
    again: bool = False
    """Whether it is to be as it was before, where nothing else was said."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Field → what its value so far is multiplied by: `twice the rank`."""
    foreign: tuple[str, str] = ("", "")
    """A field that was given a value and that this stage has not, and the stage that has it."""
    unvalued: str = ""
    """A field that is named without a value."""
    another: bool = False
    """Whether that field is to be another than before: `a higher rank`."""
    unread: tuple[str, ...] = ()
    """What no argument took, as it was typed."""
    denied: bool = False
    """Whether words say not to: `don't import rows.csv`."""
    beside: tuple[str, ...] = ()
    """Whole parts of the sentence that name nothing of the trade: a reason, or a remark."""


def order_of(stage: str, slots: Slots, known: Callable[[str], bool], taken: Sequence[Place] = ()) -> Order:
    """The step that a sentence orders; `known` tells the words by which such a step is ordered, `taken` is where what
    somebody else read stands."""
    request = catalog.BY_NAME[stage].load().request.model_fields
    assignments = assigned(slots, (stage,))
    fields = {one.field: one.value for one in assignments}
    places = [place for one in assignments for place in one.places]
    others: list[Place] = []
    multiples = {name: one for name, one in factors(slots).items() if name in request}
    if "arm" in request and (arms := slots.all("arm")):
        against = catalog.BY_NAME[stage].load().measures and slots.all("pronoun")  # `test that one against the base`
        meant = [one for one in arms if one.value in get_args(request["arm"].annotation)] or ([] if against else arms)
        fields |= {"arm": str(meant[0].value)} if meant else {}
        others = [(slot.start, slot.end) for slot in meant if slot.value != meant[0].value]
        places += [one for one in places_of(slots, ("arm",)) if one not in others]
    if "model" in request:
        named = [slot for slot in slots.named if slot.kind in ("model", "path", "commit")]
        for slot in named:
            fields.setdefault("revision" if slot.kind == "commit" else "model", str(slot.value))
        places += [(slot.start, slot.end) for slot in named]
    if "source" in request and (source := next(iter((*slots.all("path"), *slots.all("model"))), None)):
        fields["source"] = str(source.value)
        places.append((source.start, source.end))
    if "system_prompt" in request and (quote := slots.first("quote")):
        fields["system_prompt"] = quote
    fields = {name: value for name, value in fields.items() if name not in multiples}
    step = "stage" if set(stages_of(slots)) <= {stage} else ""
    places += [*taken, *(place for _, place in multiples.values()), *places_of(slots, (*OWN_SLOTS, step))]
    if fields or multiples:  # `longer, 5 epochs`; without a value it is an order that nothing took
        places += places_of(slots, ("unspoken",))
    foreign = next((one for one in assigned(slots) if one.field not in request), None)
    unvalued, another, unvalued_places = _unvalued(slots, request, {*fields, *multiples})
    places += [*unvalued_places, *own_nouns(slots, (stage,)), *misspelt(slots, stage, places, known)]
    others = [*others, *denied_values(slots), *not_enough(slots), *held_back(slots, places), *taken_back(slots)]
    clauses = [] if others else loose_clauses(slots, places, known, (stage, *fields), strict=True)
    unread = unread_of(slots, [*places, *clauses], known, others)
    if not (fields or multiples) and (bare := bare_number(stage, unread)):
        fields, unread = bare, ()
    return Order(
        stage, fields, slots.first("run"), bool(slots.all("again")), {name: one[0] for name, one in multiples.items()},
        (foreign.field, _owner(foreign.field)) if foreign else ("", ""), unvalued, another, unread,
        denied=any(denied(slots, one) for one in slots.all("stage") if one.value == stage)
        or (fields.get("rollback") is False and not slots.all("stage")),  # `don't go back to the old one`
        beside=tuple(slots.sentence[start:end].strip() for start, end in clauses),
    )  # fmt: skip


def bare_number(stage: str, unread: Sequence[str]) -> dict[str, object]:
    """The one number that people give to a step, where a number alone was left unread: `200 that you write`."""
    own = [name for name in catalog.BY_NAME[stage].load().settable if _is_number(info_of(name, (stage,)))]
    number = next(iter(numbers_in(unread[0])), None) if len(unread) == 1 and numbers_alone(unread) else None
    if len(own) != 1 or number is None or number.unit or (info := info_of(own[0], (stage,))) is None:
        return {}
    return {own[0]: fitting(number, info)}


def _owner(name: str) -> str:
    stages = known_fields()[name]
    return "train" if "train" in stages else stages[0]


def places_of(slots: Slots, kinds: Sequence[str]) -> list[Place]:
    """Where slots of some kinds stand."""
    return [(slot.start, slot.end) for slot in slots.named if slot.kind in kinds]


def _unvalued(slots: Slots, request: Mapping[str, object], have: set[str]) -> tuple[str, bool, list[Place]]:
    """A field that is named and gets no value, whether words want it to be another, and where all of them stand."""
    for slot in slots.all("field"):
        if slot.value in request and slot.value not in have:
            wants = [
                s for s in slots.all("unspoken") if s.end <= slot.start and len(slots.between(s.end, slot.start)) < 2
            ]
            before = {word.text for word in [w for w in slots.words if w.end <= slot.start][-2:]}
            taken = any(one.start >= slot.end and not slots.between(slot.end, one.start) for one in slots.numbers)
            # `put it on the port`, `stop after 2 epochs`
            if not wants and (taken or before & words_in("indefinite") or slot.value == "port"):
                return "", False, [(slot.start, slot.end)]
            if wants or slot.value not in _UNSAID:
                return str(slot.value), bool(wants), [(slot.start, slot.end), *((s.start, s.end) for s in wants)]
    return "", False, []


_UNSAID = ("rows", "port")
"""Fields whose word names what a step makes or uses anyway: `put it on the port`."""
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
    assignments = [*_pairs(slots, stages), *_numbers(slots, stages), *_choices(slots, stages), *_without(slots, stages)]
    reasons = reasons_of(slots)
    meant = {one.field for one in assignments if not _inside(one.places, reasons)}
    # `rank 8, because rank 16 was too slow`
    said = [one for one in assignments if one.field not in meant or not _inside(one.places, reasons)]
    return list({one.field: one for one in said}.values())


def _inside(places: Sequence[Place], parts: Sequence[Place]) -> bool:
    return any(start <= place[0] < end for place in places for start, end in parts)


def _pairs(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    for slot in slots.all("pair"):
        if denial_before(slots, slot.start) is not None:
            continue
        name = ours(str(slot.value), known_fields())
        field = name if name in known_fields() else _field_called(name)
        if (info := info_of(field, stages)) is not None:
            yield Assigned(field, _typed(slots.pairs[str(slot.value)], info), ((slot.start, slot.end),))


@cache
def _field_called(name: str) -> str:
    words = words_of(name.replace("_", " "))
    matches = lexicon()["fields"].find(words)
    called = matches[0].name if matches and matches[0].after == len(words) else ""
    return called or near_name(name, [*known_fields()])


def _typed(text: str, info: FieldInfo) -> object:
    if get_origin(info.annotation) in (tuple, list):
        return [part.strip(" '\"") for part in text.strip("[]").split(",") if part.strip()]
    if info.annotation in (int, float) and (numbers := numbers_in(text)):
        return fitting(numbers[0], info)
    return text


def _numbers(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    """Numbers beside the names of their fields, read from left to right."""
    passed = passed_over(slots)
    meant = [number for number in slots.numbers if number not in [one.number for one in passed]]
    named = (slot for slot in slots.all("field") if _is_number(info_of(str(slot.value))))
    tokens: list[Slot | Number] = [*named, *(one for one in meant if one.unit not in _NO_FIELD_UNITS)]
    tokens.sort(key=lambda token: token.start)
    at = 0
    while at < len(tokens):
        pair = _pair(slots, tokens[at], tokens[at + 1], passed) if at + 1 < len(tokens) else None
        off = pair is not None and _is_denied(slots, tokens[at]) and not lowered(slots, *pair)
        # of two names beside a number it is the second's: `with r1's rows, 2 epochs`, `stop after 2 epochs`
        if pair and at + 2 < len(tokens) and (_marked(slots, *pair) or not isinstance([*tokens, None][at + 3], Number)):
            behind = _pair(slots, tokens[at + 1], tokens[at + 2], passed) if pair[1] == tokens[at + 1] else None
            pair = None if behind and not slots.sentence[behind[1].end : behind[0].start].strip() else pair
        if pair and not off:
            yield from _fitted(*pair, stages, [one.place for one in passed if one.meant == pair[1]])
        at += 2 if pair and not (off and _marked(slots, *pair)) else 1  # `not enough rows, 500 rows`


def _marked(slots: Slots, field: Slot, number: Number) -> bool:
    """Whether a mark parts a name from the number behind it."""
    return bool(set(MARKS) & set(slots.sentence[field.end : number.start]))


def _is_denied(slots: Slots, one: Slot | Number) -> bool:
    """Whether a negation stands before a value, right before it or with a verb between."""
    proposed = any(match for match in lexicon()["no_denial"].find(slots.between(0, one.start)))
    return denial_before(slots, one.start) is not None or (slots.negated(one, most=0) and not proposed)


def _is_number(info: FieldInfo | None) -> bool:
    return info is not None and info.annotation in (int, float)


def _fitted(field: Slot, number: Number, stages: Sequence[str], more: Sequence[Place]) -> Iterator[Assigned]:
    if (info := info_of(str(field.value), stages)) is not None:
        places = ((field.start, field.end), (number.start, number.end), *more)
        value = fitting(number, info) if number.value or not is_open(info, 0) else _NONE_OF_IT
        yield Assigned(str(field.value), value, places)


_NONE_OF_IT = "zero"
"""A value that is refused: 0 of a field where that leaves it to the model, which nobody means who says no epochs."""


def _pair(
    slots: Slots, one: Slot | Number, two: Slot | Number, passed: Sequence[PassedOver]
) -> tuple[Slot, Number] | None:
    """The field and its number, where of two neighbours one is a name, the other a number and they belong together."""
    over = [other.place for other in passed]
    words = slots.between(one.end, two.start)
    between = [word.text for word in words if not any(start <= word.start < end for start, end in over)]
    if isinstance(one, Number) and isinstance(two, Slot):
        whole = two.value in ("epochs",) or not one.weak
        return (two, one) if whole and set(between) <= words_in("between") else None
    if isinstance(one, Slot) and isinstance(two, Number):
        turned = len(between) == 2 and between[1] in words_in("to_b")  # `rank back to 8`, `rank hoch auf 16`
        if between and between[-1] in {*words_in("to_b"), *words_in("joins")} and not _marked(slots, one, two):
            turned = turned or {*between} <= {*empty_words(), *words_in("joins"), *words_in("again")}  # `wieder auf 8`
        return (one, two) if not two.weak and (turned or set(between) <= words_in("joins")) else None
    return None


def settled(
    assignments: Sequence[Assigned], unread: Sequence[str], now: Mapping[str, object]
) -> tuple[tuple[Assigned, ...], tuple[str, ...]]:
    """The values and what is left unread, where a number that nothing took is the old or the new value of a field.

    `now` has the values of today: of `16 instead of 8` and of `8 was too low, take 16` the one that is there already is
    the old one, in any language.
    """
    left, values = list(unread), []
    for one in assignments:
        loose = {text: numbers[0] for text in left if len(numbers := numbers_in(text)) == len(text.split()) == 1}
        had, info = now.get(one.field), info_of(one.field)
        old = next((text for text, number in loose.items() if number.value == had), "")
        last = len(loose) == 1 and [*loose] == left[-1:]  # `400 rows, 100 of them in German` sets no 100
        if not old and one.value == had and last and info is not None and _is_number(info):
            old, number = next(iter(loose.items()))
            one = replace(one, value=fitting(number, info))
        left = [text for text in left if text != old]
        values.append(one)
    if not values and (renamed := _by_its_value(left, now)) is not None:
        return (renamed,), ()
    return tuple(values), tuple(left)


def _by_its_value(left: Sequence[str], now: Mapping[str, object]) -> Assigned | None:
    """The field that two numbers are about, of which one is what it is now and no other one: `400 is a lot, make it a
    hundred and fifty`."""
    numbers = [one for text in left for one in numbers_in(text)]
    if len(numbers) != 2 or len(numbers_alone(left)) != len(left):
        return None
    for old, new in (numbers, numbers[::-1]):
        numeric = {name: info for name in now if (info := info_of(name)) is not None and _is_number(info)}
        fields = [name for name in numeric if now[name] == old.value]
        if len(fields) == 1:
            return Assigned(fields[0], fitting(new, numeric[fields[0]]), ())
    return None


def _choices(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    """Fields with a choice of words, and switches."""
    for slot in slots.named:
        if not slot.kind.startswith("choice."):
            continue
        field, value = slot.kind.removeprefix("choice."), str(slot.value)
        if (info := info_of(field, stages)) is None:
            continue
        off = slots.negated(slot, most=1) or denial_before(slots, slot.start) is not None
        if is_switch(info):
            yield Assigned(field, not off, ((slot.start, slot.end),))
        elif not off and get_origin(info.annotation) is Literal:
            if value in get_args(info.annotation):
                yield Assigned(field, value, ((slot.start, slot.end),))
        elif not off:
            values = [str(other.value) for other in slots.all(slot.kind)]
            yield Assigned(field, values, tuple((s.start, s.end) for s in slots.all(slot.kind)))
    for field, value, place in _own_words(slots, stages):
        yield Assigned(field, value, (place,))
    yield from _other_bits(slots, stages)


def _other_bits(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    """Bits that no model is quantized to, `0.3 bits`, as the value that is refused; 16 and 32 are a precision too."""
    if info_of("scheme", stages) is None:
        return
    taken = [slot for slot in slots.named if slot.kind.startswith("choice.") or slot.kind == "arm"]
    for number in (one for one in slots.numbers if one.unit == "bit"):
        inside = any(slot.start < number.end and number.start < slot.end for slot in taken)
        of_old = any(one.end <= number.start and len(slots.between(one.end, number.start)) < 2
                     for one in (*slots.all("instead"), *slots.all("not")))  # fmt: skip
        if not inside and not of_old and (len(stages) == 1 or number.value not in (16, 32)):
            yield Assigned("scheme", f"{number.value:g} bits", ((number.start, number.end),))


def _own_words(slots: Slots, stages: Sequence[str]) -> Iterator[tuple[str, str, Place]]:
    """Choices by their own word, such as bf16, where it is no everyday one."""
    for stage in stages:
        for name, info in catalog.BY_NAME[stage].load().request.model_fields.items():
            if get_origin(info.annotation) is not Literal or name in ("arm", "scheme", "thinking"):
                continue
            options = {str(option).lower(): str(option) for option in get_args(info.annotation)}
            named = name in slots.values("field")
            for word in slots.words:
                if word.text in options and (named or not (word.text.isalpha() or word.text.isdigit())):
                    yield name, options[word.text], (word.start, word.end)


def _without(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    for slot in slots.all("field"):
        if slot.value in _CAN_BE_NONE and slots.negated(slot, most=1) and (info := info_of(str(slot.value), stages)):
            off = "off" if get_origin(info.annotation) is Literal else 0
            yield Assigned(str(slot.value), off, ((slot.start, slot.end),))
