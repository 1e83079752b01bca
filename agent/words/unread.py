"""What of a sentence no argument took: words with a content, numbers, names; and whole parts that name nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

from tunesmith.agent.words.lexicon import Word, lexicon, words_in
from tunesmith.agent.words.slots import Slot, Slots, empty_words
from tunesmith.agent.words.spelling import slip_of
from tunesmith.agent.words.values import Number

Place = tuple[int, int]
NEAR = 3
"""Words at most between a negation and what it denies, as in “not with more than 8”; at least of a part that is told
beside a price."""
MARKS = ",;.!?"

_NO_ARGUMENTS = ("pronoun", "only", "not", "verdict", "span", "outcome")
"""Kinds of what is named that no field of a step takes."""
_OF_A_SPEAKER = (*_NO_ARGUMENTS, "work", "made")
_OF_A_REASON = (
    "pronoun", "only", "not", "verdict", "outcome", "work", "made", "again", "unspoken", "decision", "order",
)  # fmt: skip
"""Kinds of what is named that orders nothing where somebody tells what he does: `I'll serve it myself`; and of what a
reason names: `because it got worse again`."""
_SHORTEST_PUT_RIGHT = 5
"""Letters of a word that says nothing, of which a word that is none may be a slip: `sory`."""


def loose_clauses(
    slots: Slots,
    places: Sequence[Place],
    known: Callable[[str], bool],
    own: Sequence[str] = (),
    *,
    strict: bool = False,
) -> list[Place]:
    """The parts of a sentence, of at least three words, that name nothing of the trade and hold what no argument took:
    what they say is no argument. None where no other part is left.

    A part goes from mark to mark, or from a word such as `because` to the next mark; a reason, and what a speaker says
    of himself, may name a stage of `own`, which another part names too, and a reason also such a field. `strict`: a
    part is none that limits something, or begins as an argument does.
    """
    loose = unread_words(slots, places, known)
    clauses = []
    for part in _parts(slots):
        if len(slots.between(part.start, part.end)) < NEAR or _named(slots, part, own):
            continue
        if strict and not part.reason and _may_be_argument(slots, part):
            continue
        clauses += [(part.start, part.end)] if any(part.start <= one.start < part.end for one in loose) else []
    spoken = any(not any(start <= word.start < end for start, end in clauses) for word in slots.words)
    return clauses if spoken else []


def reasons_of(slots: Slots) -> list[Place]:
    """The parts that a word such as `because` begins, where another part is left."""
    parts = [*_parts(slots)]
    return [(one.start, one.end) for one in parts if one.reason] if any(not one.reason for one in parts) else []


@dataclass(frozen=True, slots=True)
class _Part:
    start: int
    end: int
    reason: bool
    """Whether a word such as `because` begins it."""


def _parts(slots: Slots) -> Iterator[_Part]:
    """A sentence from mark to mark, each part also before a word that begins a reason."""
    for match in re.finditer(r"[^,;:.!?…–—]+", slots.sentence):
        words = slots.between(*match.span())
        begins = [words[one.first].start for one in lexicon()["because"].find(words)]
        cuts = [match.start(), *(at for at in begins if at > words[0].start), match.end()]
        for start, end in pairwise(cuts):
            first = next((word.start for word in words if word.start >= start), end)
            yield _Part(start, end, first in begins)


def _named(slots: Slots, part: _Part, own: Sequence[str]) -> bool:
    """Whether a part names what may be an argument."""
    first = next(word.written for word in slots.words if word.start >= part.start)
    speaks = first in words_in("speakers")
    orders_nothing = _OF_A_REASON if part.reason else _OF_A_SPEAKER if speaks else _NO_ARGUMENTS

    def again(slot: Slot) -> bool:
        kind = part.reason if slot.kind == "field" else slot.kind == "stage" and (part.reason or speaks)
        same = (one for one in slots.all(slot.kind) if one.value == slot.value)
        return bool(kind and slot.value in own and any(not _within(one, part) for one in same))

    inside = [slot for slot in slots.named if _within(slot, part)]
    numbers = [one for one in slots.numbers if _within(one, part) and not (one.weak and part.reason)]
    if any(slot.kind == "field" and again(slot) for slot in inside):  # `because rank 16 was too slow`
        numbers = [one for one in numbers if one.unit]
    return bool(numbers) or any(slot.kind not in orders_nothing and not again(slot) for slot in inside)


def part_of(slots: Slots, start: int, end: int) -> Place:
    """From the mark before a place to the one behind it."""
    before = (at + 1 for mark in MARKS if (at := slots.sentence.rfind(mark, 0, start)) >= 0)
    behind = (at for mark in MARKS if (at := slots.sentence.find(mark, end)) >= 0)
    return max(before, default=0), min(behind, default=len(slots.sentence))


def _within(one: Slot | Number, part: _Part) -> bool:
    return one.start < part.end and part.start < one.end


def _may_be_argument(slots: Slots, part: _Part) -> bool:
    """Whether a part limits something, `no wait, leave it`, or begins as an argument does, `, on my emails`."""
    words = [word.text for word in slots.between(part.start, part.end)]
    first = next((word for word in words if word not in (words_in("contrast") | words_in("joints"))), "")
    limits = (*slots.all("not"), *slots.all("only"))
    return first in words_in("attaches") or any(part.start <= one.start < part.end for one in limits)


def unread_of(
    slots: Slots,
    read_places: Sequence[Place],
    known: Callable[[str], bool],
    others: Sequence[Place] = (),
    *,
    by_part: bool = False,
) -> tuple[str, ...]:
    """What no argument took, neighbouring words together, as it was typed: words with a content, numbers, paths, and
    the `others` that there was no second argument for. `by_part`: together over no mark."""
    loose = [*others, *((word.start, word.end) for word in unread_words(slots, read_places, known))]
    hard = [(number.start, number.end) for number in slots.numbers if not number.weak]
    hard += [(slot.start, slot.end) for slot in slots.named if slot.kind in _HARD]
    loose += [one for one in hard if not any(start <= one[0] and one[1] <= end for start, end in read_places)]
    groups: list[Place] = []
    for start, end in sorted(set(loose)):
        between = slots.sentence[groups[-1][1] : start] if groups else ""
        # one clause: what is farther apart says two things
        near = bool(groups) and between.count(" ") <= 2 and len(between) <= 12
        if near and not (by_part and set(MARKS) & set(between)):
            groups[-1] = (groups[-1][0], max(end, groups[-1][1]))
        else:
            groups.append((start, end))
    return tuple(" ".join(with_article(slots.sentence, start, end).split()) for start, end in groups)


_HARD = ("path", "model", "card", "quote", "commit", "case", "row", "artifact", "step", "pair", "span")


def with_article(sentence: str, start: int, end: int) -> str:
    """The words with the `my` or the `the` before them, so that they are told as they were said."""
    before = sentence[:start].rstrip().rsplit(" ", 1)[-1]
    return sentence[start - len(before) - 1 if before.lower() in ("my", "the", "our", "meine", "mis") else start : end]


# What says nothing


def unread_words(slots: Slots, places: Sequence[Place], known: Callable[[str], bool]) -> list[Word]:
    """The words that nothing took and that say something of what is to be done."""
    loose = slots.unread([*places, *idle_places(slots)], known)
    return [word for word in loose if not _slip_of_nothing(word)]


def idle_places(slots: Slots) -> list[Place]:
    """Where words stand that say nothing of what is to be done, in whatever language: `straight away`, `hazme`, `and
    the rest stays`, `200 rows are enough` (which `not_enough` looks at)."""
    words = _as_written(slots.words)
    places = [*found_as_written("says_nothing", words), *found_as_written("suffices", words)]
    places += [] if slots.all("stage") else found_as_written("leaves", words)
    places += [] if any(slot.kind in _ASKED_FOR for slot in slots.named) else found_as_written("shows", words)
    for part in _parts(slots):
        own = [word for word in words if part.start <= word.start < part.end]
        rest, stays = found_as_written("the_rest", own), found_as_written("stays", own)
        fine = found_as_written("enough", own) if not slots.all("not") else []  # `the rest is ok`
        places += [*rest, *stays, *fine] if rest and (stays or fine) else []
    return places


def misspelt(slots: Slots, stage: str, places: Sequence[Place], known: Callable[[str], bool]) -> list[Place]:
    """Another word that was typed for the step which is ordered and named nowhere else: `quantity it`."""
    if stage in slots.values("stage"):
        return []
    names = [word for word, name in lexicon()["stages"].single_words().items() if name == stage]
    near = (word for word in unread_words(slots, places, known) if slip_of(word.written, names, of_any=True))
    return [(word.start, word.end) for word in near][:1]


_ASKED_FOR = ("outcome", "metric", "figure", "verdict", "reason", "decision")
"""Kinds of what only a question is about."""


def own_nouns(slots: Slots, stages: Sequence[str]) -> list[Place]:
    """Where words stand for what these steps are about in any case: `the held-out set` of a test. None of another one,
    `in another format`."""
    words = _as_written(slots.words)
    own = {*stages, *(["made"] if {"merge", "quantize", "deploy", "release"} & {*stages} else [])}
    return [
        (words[match.first].start, words[match.after - 1].end)
        for match in lexicon()["own_nouns"].find(words)
        if match.name in own and not {word.text for word in words[: match.first][-1:]} & words_in("unspoken")
    ]


def _as_written(words: Sequence[Word]) -> list[Word]:
    return [replace(word, text=word.written) for word in words]


def found_as_written(table: str, words: Sequence[Word]) -> list[Place]:
    """Where the names of a table of everyday words stand, none put right."""
    words = _as_written(words)
    return [(words[one.first].start, words[one.after - 1].end) for one in lexicon()[table].find(words)]


@cache
def _english() -> tuple[str, ...]:
    """The English words that say nothing: of another language's, a word that is none here may be a name there."""
    return tuple(word for word, language in lexicon()["says_nothing"].single_words().items() if language == "en")


def _slip_of_nothing(word: Word) -> bool:
    """Whether a word that is none is a slip of one that says nothing: `ot`, `sory`."""
    if word.written in words_in("from_a"):  # `form` for `from`
        return True
    if len(word.written) == 2:
        return word.written[::-1] in empty_words()
    return slip_of(word.written, [one for one in _english() if len(one) >= _SHORTEST_PUT_RIGHT])
