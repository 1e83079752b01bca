"""What is to be done: a step with its fields, a change of the plan, and the values that a sentence gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from tunesmith.agent.words.lexicon import Match, Word, as_written, lexicon, near_name, words_in, words_of
from tunesmith.agent.words.slots import FILES, Slot, Slots, empty_words, stages_of
from tunesmith.agent.words.values import Number, fitting, numbers_in
from tunesmith.tools.core.auto import is_open, is_switch
from tunesmith.tools.core.field_names import ours
from tunesmith.tools.pipeline import catalog

Place = tuple[int, int]
OWN_SLOTS = ("run", "again", "only", "pronoun", "which_run", "unspoken", "pace", "factor")
"""Slots that any order may hold and that are no argument of it."""
_HARD = ("path", "model", "card", "quote", "commit", "case", "row", "artifact", "step", "pair", "span")
"""What an order is no longer the same without."""
_EVERYDAY_FIELDS = ("rows", "cases_per_block", "model")
"""Fields whose names are words of anybody's."""
_CAN_BE_NONE = ("warmup_ratio", "lora_dropout", "rehearsal_rows", "rehearsal_weight", "near_miss_rows", "thinking")
"""Fields that `without …` gives a value to: 0, or off."""
_NO_FIELD_UNITS = ("bit", "gib", "params", "s", "min", "h", "day", "x")


@dataclass(frozen=True, slots=True)
class Assigned:
    """A field, its value, and where both were said."""

    field: str
    value: object
    places: tuple[Place, ...]


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
    unread: tuple[str, ...] = ()
    """Numbers, names and values that no argument took, as they were typed."""
    loose: tuple[str, ...] = ()
    """Words that nothing took: the price is shown beside them."""


@dataclass(frozen=True, slots=True)
class Edits:
    """What a sentence changes of the plan."""

    values: Mapping[str, object] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    """Named and not left out: where the values belong, or what is to be added."""
    factors: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    unread: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is given another value, or left out."""
        return bool(self.values or self.without or self.factors or self.model)


def order_of(stage: str, slots: Slots, known: Callable[[str], bool]) -> Order:
    """The step that a sentence orders; `known` tells the words by which such a step is ordered."""
    request = catalog.BY_NAME[stage].load().request.model_fields
    assignments = assigned(slots, (stage,))
    multiples = {name: by for name, by in factors(slots).items() if name in request}
    fields = {one.field: one.value for one in assignments if one.field not in multiples}
    places = [place for one in assignments for place in one.places]
    step = "stage" if {*stages_of(slots)} <= {stage} else ""
    places += places_of(slots, (*OWN_SLOTS, step, *(("field",) if multiples else ())))
    if "arm" in request:
        arms = [one for one in slots.all("arm") if one.value in get_args(request["arm"].annotation)]
        fields |= {"arm": str(arms[0].value)} if arms else {}
        places += places_of(slots, ("arm",)) if len({one.value for one in arms}) < 2 else []
    for name, kinds in (("model", ("model", "path")), ("revision", ("commit",)), ("source", ("path", "model")),
                        ("system_prompt", ("quote",))):  # fmt: skip
        named = [one for one in slots.named if one.kind in kinds] if name in request else []
        fields |= {name: str(named[0].value)} if named else {}
        places += [(one.start, one.end) for one in named[:1]]
    hard = [text for place, text in _hard(slots) if not _inside(place, places)]
    if not (fields or multiples):  # `longer, 5 epochs` says by how much, `train it more` does not
        others = (one for one in slots.all("unspoken") if not known(slots.sentence[one.start : one.end].lower()))
        hard += [slots.sentence[one.start : one.end] for one in others]
    places += [_place(slots, one) for one in as_written("says_nothing", slots.words)]  # `straight away`
    words = slots.unread(places, known)
    loose = [slots.sentence[one.start : one.end] for one in words]
    if "arm" in request and "arm" not in fields:
        hard += [slots.sentence[one.start : one.end] for one in words if _names_a_model(slots, one)]
    again = bool(slots.all("again"))
    return Order(stage, fields, slots.first("run"), again, multiples, tuple(hard), tuple(loose))


def _names_a_model(slots: Slots, word: Word) -> bool:
    """Whether a word stands right before what models are called, `the turbo model`: there is no arm of that name."""
    after = slots.words[slots.words.index(word) + 1 :]
    return bool(after) and after[0].written in words_in("model")


def edits_of(slots: Slots, planned: Sequence[str], *, leaves_out: bool) -> Edits:
    """What a sentence changes of a plan of these stages; `leaves_out`: it is about steps to leave out."""
    stages = [slot for slot in slots.all("stage") if slot.value in catalog.BY_NAME]
    assignments, multiples = assigned(slots, tuple(planned)), factors(slots)
    left_out, since = list[Slot](), 0
    for slot in stages:
        joined = left_out and left_out[-1].end == since and _joins(slots, since, slot)
        denied = any(since <= no.start and _denies(slots, no, slot) for no in slots.all("not"))
        left_out, since = left_out + [slot] * bool(joined or denied), slot.end
    if leaves_out and not left_out and not assignments:
        left_out = stages or [replace(one, value=planned[-1]) for one in _last_step(slots)]
    model = model_in(slots)
    places = [place for one in assignments for place in one.places]
    places += [(model.start, model.end)] if model else []
    unread = tuple(text for place, text in _hard(slots) if not _inside(place, places))
    known = {*multiples, *(one.field for one in assignments), *_EVERYDAY_FIELDS, *_CAN_BE_NONE}
    if known - {*_EVERYDAY_FIELDS, *_CAN_BE_NONE}:  # `keep the rank we had, and three epochs`
        unread += tuple(slots.sentence[s.start : s.end] for s in slots.all("field") if s.value not in known)
    without = tuple(dict.fromkeys(str(one.value) for one in left_out if one.value in planned))
    others = tuple(dict.fromkeys(str(one.value) for one in stages if one not in left_out))
    values = {one.field: one.value for one in assignments if one.field not in multiples}
    return Edits(values, without, others, multiples, str(model.value) if model else "", unread)


def _last_step(slots: Slots) -> list[Slot]:
    """The last of the steps, where it is named so: `leave out the last step`."""
    return [Slot("stage", "", *_place(slots, one)) for one in as_written("last_step", slots.words)]


def _joins(slots: Slots, since: int, stage: Slot) -> bool:
    """Whether only words without a content join a stage to one that is left out, and none of its settings follows:
    `without the merge or the deploy`, but `no deploy and train with rank 8`."""
    begins = [start for one in assigned(slots, (str(stage.value),)) for start, _ in one.places if start >= stage.end]
    set_ = any(not {*",;."} & {*slots.sentence[stage.end : start]} for start in begins)
    return not set_ and all(word.text in empty_words() for word in slots.between(since, stage.start))


def model_in(slots: Slots) -> Slot | None:
    """The model that a sentence names; a file of rows is none."""
    named = (slot for slot in slots.named if slot.kind in ("model", "path"))
    return next((slot for slot in named if not re.search(f"{FILES}$", str(slot.value))), None)


def holds_back(slots: Slots, *, of_the_plan: bool = False) -> str:
    """The first words of an order that deny it, put it off, or leave it to a condition; empty: none do.

    Of the plan a step or a setting may be denied, `without quantizing`.
    """
    sayings = [_place(slots, one) for one in as_written("says_nothing", slots.words) if one.after > one.first + 1]
    held = [_place(slots, one) for one in as_written("holds_back", slots.words)]
    nos = [*slots.all("not"), *slots.all("instead")]
    if of_the_plan:
        denied = (
            *slots.all("stage"),
            *_last_step(slots),
            *(one for one in slots.all("field") if one.value in _CAN_BE_NONE),
        )
        nos = [one for one in nos if one.kind != "not" or not any(_denies(slots, one, two) for two in denied)]
        nos = [one for one in nos if not _lowers(slots, one)]
    below_zero = [(one.start, one.end) for one in slots.numbers if one.value < 0]  # `minus two`
    held += [(one.start, one.end) for one in nos if not _inside((one.start, one.end), below_zero)]
    first = min((one for one in held if not _inside(one, sayings)), default=None)
    return slots.sentence[first[0] : first[1]] if first else ""


def _lowers(slots: Slots, no: Slot) -> bool:
    """Whether a word that could leave something out gives a value: `cut the rows to 250`."""
    number = next((one for one in slots.numbers if one.start >= no.end), None)
    between = slots.between(no.end, number.start) if number else []
    lowers = slots.sentence[no.start : no.end].lower() in words_in("changes_by")
    return lowers and 1 < len(between) <= 4 and between[-1].text in words_in("to_b")


def _denies(slots: Slots, no: Slot, one: Slot) -> bool:
    return no.end <= one.start and len(slots.between(no.end, one.start)) <= 3  # as far as a negation reaches


def _place(slots: Slots, match: Match) -> Place:
    return slots.words[match.first].start, slots.words[match.after - 1].end


def _hard(slots: Slots) -> Iterator[tuple[Place, str]]:
    """Numbers and names that an argument has to take, with what was typed."""
    choices = [one.kind for one in slots.named if one.kind.startswith("choice.")]
    of_names, named = places_of(slots, _HARD), places_of(slots, ("bits", "arm", *choices))
    numbers = [(one.start, one.end) for one in slots.numbers if not one.weak and one.unit != "x"]
    for place in (*of_names, *(one for one in numbers if not _inside(one, named))):
        yield place, slots.sentence[slice(*place)]


def _inside(one: Place, places: Sequence[Place]) -> bool:
    return any(start <= one[0] < end for start, end in places)


def places_of(slots: Slots, kinds: Sequence[str]) -> list[Place]:
    """Where slots of some kinds stand."""
    return [(slot.start, slot.end) for slot in slots.named if slot.kind in kinds]


def factors(slots: Slots) -> dict[str, float]:
    """The field that is to be so many times what it is, where one field and one factor are named: `double the rows`."""
    times, named = slots.values("factor"), [one for one in slots.values("field") if _is_number(info_of(one))]
    return {named[0]: float(times[0])} if len(times) == 1 and len(named) == 1 else {}


# Values of fields


@cache
def known_fields() -> Mapping[str, tuple[str, ...]]:
    """Field → the stages whose request has it, in their order; `run` is no setting, and "on" is an everyday word."""
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


def bare_number(stage: str, number: Number) -> dict[str, object]:
    """The one number that people give to a step; empty where it has several."""
    own = [name for name in catalog.BY_NAME[stage].load().settable if _is_number(info_of(name, (stage,)))]
    info = info_of(own[0], (stage,)) if len(own) == 1 and not number.unit else None
    return {own[0]: fitting(number, info)} if info else {}


def _pairs(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    for slot in slots.all("pair"):
        name = ours(str(slot.value), known_fields())
        called = name if name in known_fields() else _field_called(name)
        if (info := info_of(called, stages)) is not None:
            yield Assigned(called, _typed(slots.pairs[str(slot.value)], info), ((slot.start, slot.end),))


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
    named = (slot for slot in slots.all("field") if _is_number(info_of(str(slot.value))))
    numbers = (one for one in slots.numbers if one.unit not in _NO_FIELD_UNITS)
    tokens: list[Slot | Number] = sorted([*named, *numbers], key=lambda token: token.start)
    at = 0
    while at + 1 < len(tokens):
        pair = _pair(slots, tokens[at], tokens[at + 1])
        if pair and at + 2 < len(tokens) and pair[1] is tokens[at + 1]:  # `with r1's rows, 2 epochs`
            behind = _pair(slots, tokens[at + 1], tokens[at + 2])
            pair = None if behind and not slots.sentence[behind[1].end : behind[0].start].strip() else pair
        info = info_of(str(pair[0].value), stages) if pair else None
        meant = _corrected(slots, pair[1]) if pair else None
        if pair and meant and info is not None:
            places = ((pair[0].start, pair[0].end), (pair[1].start, meant.end))
            # 0 of a field where that leaves it to the model, which nobody means who says no epochs, is refused
            value = fitting(meant, info) if meant.value or not is_open(info, 0) else "zero"
            yield Assigned(str(pair[0].value), value, places)
        at += 2 if pair else 1


def _corrected(slots: Slots, number: Number) -> Number:
    """The number that is meant where one is the old value: of `from 8 to 4` the second."""
    behind = next((one for one in slots.numbers if one.start >= number.end), number)
    between = {word.text for word in slots.between(number.end, behind.start)}
    return behind if between and between <= words_in("to_b") else number


def _is_number(info: FieldInfo | None) -> bool:
    return info is not None and info.annotation in (int, float)


def _pair(slots: Slots, one: Slot | Number, two: Slot | Number) -> tuple[Slot, Number] | None:
    """The field and its number, where of two neighbours one is a name, the other a number and they belong together."""
    between = {word.text for word in slots.between(one.end, two.start)}
    if isinstance(one, Number) and isinstance(two, Slot):
        return (two, one) if (two.value == "epochs" or not one.weak) and between <= words_in("between") else None
    if isinstance(one, Slot) and isinstance(two, Number):
        turned = between & words_in("to_b") and between <= words_in("to_b") | words_in("again") | empty_words()
        return (one, two) if not two.weak and (turned or between <= words_in("joins")) else None
    return None


def _choices(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    """Fields with a choice of words, and switches."""
    for slot in (one for one in slots.named if one.kind.startswith("choice.")):
        name, value = slot.kind.removeprefix("choice."), str(slot.value)
        off, info = slots.negated(slot, most=1), info_of(name, stages)
        if info is not None and is_switch(info):
            yield Assigned(name, not off, ((slot.start, slot.end),))
        elif info is not None and not off and get_origin(info.annotation) is Literal:
            if value in get_args(info.annotation):
                yield Assigned(name, value, ((slot.start, slot.end),))
        elif info is not None and not off:
            values = [str(other.value) for other in slots.all(slot.kind)]
            yield Assigned(name, values, tuple((s.start, s.end) for s in slots.all(slot.kind)))
    for stage in stages:
        yield from _own_words(slots, stage)


def _own_words(slots: Slots, stage: str) -> Iterator[Assigned]:
    """Choices by their own word, such as bf16, where it is no everyday one."""
    for name, info in catalog.BY_NAME[stage].load().request.model_fields.items():
        if get_origin(info.annotation) is not Literal or name in ("arm", "scheme", "thinking"):
            continue
        options = {str(option).lower(): str(option) for option in get_args(info.annotation)}
        for word in slots.words:
            plain = word.text.isalpha() or word.text.isdigit()
            if word.text in options and (name in slots.values("field") or not plain):
                yield Assigned(name, options[word.text], ((word.start, word.end),))


def _without(slots: Slots, stages: Sequence[str]) -> Iterator[Assigned]:
    for slot in slots.all("field"):
        info = info_of(str(slot.value), stages) if slot.value in _CAN_BE_NONE else None
        if info is not None and slots.negated(slot, most=1):
            off = "off" if get_origin(info.annotation) is Literal else 0
            yield Assigned(str(slot.value), off, ((slot.start, slot.end),))
