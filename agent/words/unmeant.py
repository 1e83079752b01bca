"""Values that a sentence names and does not mean: denied, or only what comes before the one that is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tunesmith.agent.words.lexicon import Word, everyday, lexicon, words_in
from tunesmith.agent.words.slots import Slot, Slots, empty_words
from tunesmith.agent.words.unread import MARKS, NEAR, Place, part_of
from tunesmith.agent.words.values import Number


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A number that another one stands for: 3 of `from 3 to 6`, 23 of `23, sorry, 32`."""

    number: Number
    meant: Number
    place: Place
    """Both, with the words that say so."""


def passed_over(slots: Slots) -> list[PassedOver]:
    """The numbers of a sentence that give way to the next one, with nothing named between them."""
    return [one for old, new in pairwise(slots.numbers) if (one := _passed(slots, old, new))]


def _passed(slots: Slots, old: Number, new: Number) -> PassedOver | None:
    if new.weak or any(old.end <= slot.start < new.start for slot in slots.named if slot.kind in _APART):
        return None
    between = slots.between(old.end, new.start)
    corrects = [*_places("corrects", between), *_places("corrects", _behind(slots, new.end, NEAR))]
    if corrects and len(between) <= NEAR:
        return PassedOver(old, new, (old.start, max(new.end, *(end for _, end in corrects))))
    if len(between) == 1 and between[0].text in words_in("to_b"):
        before = [word for word in slots.words if word.end <= old.start][-_FROM:]
        names = [slot.start for slot in slots.all("field")]
        start = next((word.start for word in reversed(before) if word.text in words_in("from_a")), None)
        if start is not None and (start == before[-1].start or any(start < at < old.start for at in names)):
            return PassedOver(old, new, (start, new.end))
    return None


_APART = ("field", "stage", "run", "instead")
"""What between two numbers says that each is one of its own."""
_FROM = 4
"""Words before a number among which one such as `from` stands: `from a batch size of 8 to 16`."""


def resolved(slots: Slots, now: Mapping[str, object]) -> Slots:
    """The slots, a number that says by how much a setting is to change, `one epoch less`, put as what that comes to
    from the value that stands `now`; where that is not certain it is no number. More rows are written beside others."""
    numbers, words, named = list(slots.numbers), slots.words, slots.named
    for at, number in reversed([*enumerate(slots.numbers)]):
        if found := _by_how_much(slots, number):
            name, by, taken = found
            had = now.get(name) if taken and not (number.unit or slots.all("run")) else None
            value = had + by if isinstance(had, int | float) else 0.0
            if value > 0:
                words = tuple(word for word in words if word not in taken)
                named = tuple(one for one in named if not any(word.start <= one.start < word.end for word in taken))
            more_rows = name == "rows" and by > 0 and name not in now
            numbers[at : at + 1] = [replace(number, value=value, weak=False)] if value > 0 else [number] * more_rows
    return replace(slots, words=words, named=named, numbers=tuple(numbers))


_SIGNS = {"more": 1, "less": -1}


def _by_how_much(slots: Slots, number: Number) -> tuple[str, float, Sequence[Word]] | None:
    """The setting that is to change by a number, by how much, and the words that say more or less; none of these where
    words behind, such as `than before`, may have to do with it."""
    before = slots.between(part_of(slots, number.start, number.end)[0], number.start)
    after = _part_behind(slots, number.end)
    from_to = any(one.number is number for one in passed_over(slots))
    changed = None if from_to else _said_before(slots, before, after) or _behind_its_value(slots, number, after)
    if changed := changed or _both_behind(slots, number, after):
        name, sign, said = changed
        return name, sign * number.value, said
    return None


def _said_before(slots: Slots, before: Sequence[Word], after: Sequence[Word]) -> tuple[str, int, Sequence[Word]] | None:
    """`raise the rank by 4`, `fewer by one epoch`, `add 100 rows`: the setting's name on either side."""
    places = lexicon()["changes_by"].find(before)
    by = bool(before) and before[-1].text in words_in("by_so_much")
    sign = _SIGNS[places[-1].name] if places else 0
    adds = sign > 0 and not by and _adds(slots, before)
    if not sign or not (by or adds):
        return None
    part = _up_to_joint(after)
    behind = [one for one in lexicon()["fields"].find(part)[:1] if one.first == 0 or adds]
    named = behind or ([] if adds else lexicon()["fields"].find(before)[-1:])
    if not named or any({word.text for word in part[: one.first]} - words_in("between") for one in behind):
        return None
    said = [*(word for one in places for word in before[one.first : one.after]), *([before[-1]] if by else [])]
    return named[0].name, sign, said if _is_all(part[behind[0].after :] if behind else part) else ()


def _adds(slots: Slots, before: Sequence[Word]) -> bool:
    """Whether `add` stands before a number, with nothing between them but other such numbers and their settings."""
    at = next((at for at in reversed(range(len(before))) if before[at].text in words_in("adds")), len(before))
    between = before[at + 1 :]
    said = [between[one.first : one.after] for table in ("fields", "joints") for one in lexicon()[table].find(between)]
    rest = [word for word in between if not any(word in words for words in said)]
    return at < len(before) and all(any(n.start <= word.start < n.end for n in slots.numbers) for word in rest)


def _behind_its_value(slots: Slots, number: Number, after: Sequence[Word]) -> tuple[str, int, Sequence[Word]] | None:
    """`rank 4 less`, and not `rank 8 more epochs`."""
    part = _up_to_joint(after)
    by = next((one for one in lexicon()["by_how_much"].find(part) if one.first == 0), None)
    if by is None or not (own := _own(slots, number)) or lexicon()["fields"].find(part):
        return None
    return own[-1], _SIGNS[by.name], part[: by.after] if _is_all(part[by.after :]) else ()


def _both_behind(slots: Slots, number: Number, after: Sequence[Word]) -> tuple[str, int, Sequence[Word]] | None:
    """`one epoch less`, `two more epochs`."""
    two = [one for table in ("fields", "by_how_much") for one in lexicon()[table].find(after)[:1]]
    if len(two) < 2 or _own(slots, number):
        return None
    (field, by), (one, other) = two, sorted(two, key=lambda match: match.first)
    behind, before = after[other.after :], {word.text for word in after[: one.first]}
    if one.after != other.first or not before <= words_in("between") or lexicon()["by_how_much"].find(behind[:2]):
        return None  # `3 epochs more or less`
    certain = not everyday("before_that", behind) and {word.text for word in behind[:1]} <= empty_words()
    return field.name, _SIGNS[by.name], after[by.first : by.after] if certain else ()


def factors(slots: Slots) -> dict[str, tuple[float, Place]]:
    """Fields that are to be a multiple of what they were, `twice the rank`, `half as many rows`, `the rank four times
    smaller`, and where that is. Of two as near it is the one behind; one before has nothing else behind it."""
    multiples = {}
    said = [(one.start, one.end, float(str(one.value))) for one in slots.all("factor")]
    said += [(one.start, one.end, one.value) for one in slots.numbers if one.unit == "x" and one.value > 0]
    for start, end, by in (one for one in said if denial_before(slots, one[0]) is None):
        if size := [one for one in lexicon()["as_much"].find(_part_behind(slots, end))[:1] if one.first == 0]:
            end = _part_behind(slots, end)[size[0].after - 1].end
            by = 1 / by if size[0].name == "less" and by > 1 else by
        places = [((end, one.start) if one.start >= end else (one.end, start), one) for one in slots.all("field")]
        near = [(len(slots.between(*at)), at[0] != end, one) for at, one in places if _together(slots, *at, end)]
        for _, _, one in sorted(near, key=lambda found: found[:2])[:1]:
            multiples[str(one.value)] = by, (min(start, one.start), max(end, one.end))
    return multiples


_MULTIPLE = 4
"""Words at most between a multiple and its setting: `twice as much of the rank`."""


def _together(slots: Slots, since: int, until: int, end: int) -> bool:
    """Whether a setting behind the multiple that ends at `end`, with no joint between, or before it is its own."""
    words = slots.between(since, until)
    alone = not lexicon()["joints"].find(words) if since == end else _is_all(_up_to_joint(_part_behind(slots, end)))
    values = any(since <= one.start < until for one in slots.numbers)
    return alone and not values and len(words) <= _MULTIPLE and not set(MARKS) & set(slots.sentence[since:until])


def _part_behind(slots: Slots, end: int) -> Sequence[Word]:
    return slots.between(end, part_of(slots, end, end)[1])


def _own(slots: Slots, number: Number) -> list[str]:
    """The settings before a number whose value it is, as in `rank 8`, `with a rank of 8`."""
    names = [slot for slot in slots.all("field") if slot.end <= number.start]
    joined = ({word.text for word in slots.between(slot.end, number.start)} for slot in names)
    return [str(slot.value) for slot, words in zip(names, joined, strict=True) if words <= words_in("joins")]


def _up_to_joint(words: Sequence[Word]) -> Sequence[Word]:
    return words[: next((one.first for one in lexicon()["joints"].find(words)), len(words))]


def _is_all(behind: Sequence[Word]) -> bool:
    return not everyday("before_that", behind) and {word.text for word in behind} <= empty_words()


def _behind(slots: Slots, end: int, most: int) -> list[Word]:
    """The next words, up to a field's name."""
    names = {slot.start for slot in slots.all("field")}
    words = [word for word in slots.words if word.start >= end][:most]
    return words if not names & {word.start for word in words} else []


def _places(table: str, words: Sequence[Word]) -> list[Place]:
    return [(words[one.first].start, words[one.after - 1].end) for one in lexicon()[table].find(words)]


def denial_before(slots: Slots, at: int) -> int | None:
    """Where a negation begins that denies the value named at a place, as in `don't raise the rank to 16`; None: it is
    meant. A negation reaches over no mark, no joint, no other thing that is named, and `why not` denies nothing."""
    none = _places("no_denial", slots.words)
    for start, end in _places("denies", slots.words):
        between = slots.between(end, at)
        if not {word.text for word in slots.between(start, end)} <= words_in("denies"):
            continue  # `nos` is no `no`
        if end > at or len(between) > NEAR or set(MARKS) & set(slots.sentence[end:at]):
            continue
        apart = any(lexicon()[table].find(between) for table in ("joints", "contrast", "forgotten"))
        named = any(end <= slot.start < at for slot in slots.named if slot.kind in ("stage", "field"))
        if not (apart or named or any(a <= start < b for a, b in none)):
            return start
    return None


def denied(slots: Slots, slot: Slot, since: int = 0) -> bool:
    """Whether a negation denies a slot with no mark between them: shortly before it, or behind it as the last word of
    that part of the sentence that says anything, as in `die Quantisierung brauche ich nicht`; none before `since`,
    and none of `why not`, `don't forget to`."""
    none = _places("no_denial", slots.words)
    for no in (one for one in slots.all("not") if one.start >= since and not any(a <= one.start < b for a, b in none)):
        start, end = min(no.end, slot.end), max(no.start, slot.start)
        last = all(word.text in empty_words() for word in _part_behind(slots, no.end))
        near = len(slots.between(start, end)) <= NEAR and not set(MARKS) & set(slots.sentence[start:end])
        if near and (no.end <= slot.start or last):
            return True
    return False


def lowered(slots: Slots, field: Slot, number: Number) -> bool:
    """Whether what stands before a name only lowers it: `cut epochs to 1`; `don't raise it to 16` denies."""
    return bool(_places("to_b", slots.between(field.end, number.start))) and denial_before(slots, field.start) is None


def not_enough(slots: Slots) -> Iterator[Place]:
    """Words that a value is enough, behind a negation: `rank 8 is not enough`; and that it is too much."""
    for start, end in _places("too_much", slots.words):
        begins, ends = part_of(slots, start, end)
        if all(begins <= one.start < ends for one in slots.numbers if not one.weak):  # `16 is too much, make it 8`
            yield start, end
    for start, end in _places("suffices", slots.words):
        before = [
            slot for slot in slots.all("not") if slot.end <= start and len(slots.between(slot.end, start)) <= NEAR
        ]
        behind = [slot for slot in slots.all("not") if slot.start >= end and not slots.between(end, slot.start)]
        if any(not set(MARKS) & set(slots.sentence[slot.end : start]) for slot in before) or behind:
            yield start, end


def denied_values(slots: Slots) -> Iterator[Place]:
    """From a negation to the number that it denies, where another number could be taken for what is meant instead."""
    for number in (one for one in slots.numbers if not one.unit) if len(slots.numbers) > 1 else ():
        fields = [slot.start for slot in slots.all("field") if slot.end <= number.start]
        at = next((at for at in (number.start, *fields[-1:]) if denial_before(slots, at) is not None), None)
        if at is not None and len(slots.between(at, number.start)) <= NEAR + 1:
            yield denial_before(slots, at) or 0, number.end
