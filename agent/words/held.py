"""What holds an order back though every argument was found: a condition, a time, a negation that denied nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.agent.words.lexicon import Word, words_in
from tunesmith.agent.words.slots import Slots, empty_words
from tunesmith.agent.words.unmeant import denial_before, passed_over
from tunesmith.agent.words.unread import MARKS, NEAR, Place, found_as_written, idle_places, part_of, reasons_of


def held_back(slots: Slots, places: Sequence[Place]) -> list[Place]:
    """Where words stand that stop an order, whatever they stand beside: `si c'est bon`, `but not now`, `the other one`.

    `places` are those of its arguments. What a reason says limits nothing, nor does a saying such as `when you can`.
    """
    sayings = [one for one in idle_places(slots) if len(slots.between(*one)) > 1]
    harmless = [*sayings, *reasons_of(slots), *_places_of(slots, "again")]
    loose = [*conditions_of(slots, places), *_negations(slots), *_others(slots, places)]
    return [one for one in loose if not _inside(one, harmless)]


def on_condition(slots: Slots) -> list[str]:
    """What holds an order back and begins with such as `if`, as it was typed: `if I had time I'd do 6 epochs`."""
    ifs = {*words_in("conditions"), *_IFS}
    held = (one for one in held_back(slots, ()) if slots.between(*one)[0].written in ifs)
    return [slots.sentence[start:end] for start, end in held]


def taken_back(slots: Slots) -> list[Place]:
    """What is said of a value and leaves none that is meant: `rank 8, no wait`, and `from 8 to 4, no wait, 16`."""
    passed = passed_over(slots)
    meant = [one.meant for one in passed]
    twice = [one.place for one in passed if one.number in meant]
    chains = [(min(one.place[0] for one in passed), max(one.place[1] for one in passed))] if twice else []
    words = slots.words
    loose = (one for one in found_as_written("takes_back", words) if not _inside(one, [one.place for one in passed]))
    return [*chains, *(one for one in loose if any(word.end <= one[0] for word in words))]


def conditions_of(slots: Slots, places: Sequence[Place] = ()) -> Iterator[Place]:
    """Where words such as `if` begin, up to the end of their part of the sentence."""
    for start, end in found_as_written("holds_back", slots.words):
        typed = slots.sentence[start:end].casefold()
        ends = not slots.between(end, len(slots.sentence)) or slots.sentence[end:].lstrip()[:1] in MARKS
        answers = typed in _YES or (ends and typed in _MAY_BE_YES)
        if not (answers or _inside((start, end), places)):
            yield start, end_of_part(slots, end)


_IFS = ("si", "se", "gdyby")
"""Words for `if` that are others too, or only begin what is not so."""
_YES, _MAY_BE_YES = ("sí", "sì"), ("si",)
"""Words that agree, as they are typed; without the accent where a mark stands behind."""


def end_of_part(slots: Slots, end: int) -> int:
    """Where the part of a sentence ends that a place stands in."""
    return max((word.end for word in slots.between(end, part_of(slots, end, end)[1])), default=end)


def _negations(slots: Slots) -> Iterator[Place]:
    """Negations that deny no value, no step and no setting."""
    proposed = found_as_written("no_denial", slots.words)
    targets = [slot.start for slot in slots.named if slot.kind in _DENIED or slot.kind.startswith("choice.")]
    targets += [number.start for number in slots.numbers if not number.weak]
    spent = {denial_before(slots, at) for at in targets}
    denies = words_in("denies")
    for start, end in _all_negations(slots):
        answers = not slots.between(0, start) and slots.sentence[end:].lstrip()[:1] in MARKS  # `no, train it`
        most = 1 if _texts(slots.between(start, end)) <= denies else NEAR  # `cut it down to 2 epochs`
        near = any(at >= end and len(slots.between(end, at)) <= most and _same_part(slots, end, at) for at in targets)
        if start in spent or answers or near or _inside((start, end), proposed):
            continue
        yield start, min(end_of_part(slots, end), _after(slots, end))


def _after(slots: Slots, end: int) -> int:
    """The end of the few words that a negation stands before."""
    return max((word.end for word in [word for word in slots.words if word.start >= end][:NEAR]), default=end)


def _all_negations(slots: Slots) -> list[Place]:
    """`lass` is one of them and also says to do something, so what says nothing is none."""
    said = [(slot.start, slot.end) for slot in slots.all("not")]
    verbs = [one for one in said if not _texts(slots.between(*one)) <= empty_words()]
    denies = words_in("denies")
    return sorted({*verbs, *(one for one in said if _texts(slots.between(*one)) <= denies)})


def _texts(words: Sequence[Word]) -> set[str]:
    return {word.written for word in words}


def _same_part(slots: Slots, end: int, at: int) -> bool:
    return not set(MARKS) & set(slots.sentence[end:at])


_DENIED = ("field", "stage", "factor", "pair", "arm")
"""Kinds of what a negation may deny in an order, which reads that."""


def _others(slots: Slots, places: Sequence[Place]) -> list[Place]:
    """Words for another one, or for more or less, of nothing that is set: `into the other one`, `train r1 more`."""
    return [one for one in _places_of(slots, "unspoken") if not _inside(one, places)]


def _places_of(slots: Slots, kind: str) -> list[Place]:
    return [(slot.start, slot.end) for slot in slots.all(kind)]


def _inside(one: Place, places: Sequence[Place]) -> bool:
    return any(start <= one[0] and one[0] < end for start, end in places)
