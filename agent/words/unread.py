"""What of a sentence no argument took: words with a content, numbers, names; and whole parts that name nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tunesmith.agent.words.slots import Slots

Place = tuple[int, int]
NEAR = 3
"""Words at most between a negation and what it denies, as in “not with more than 8”; at least of a part that is told
beside a price."""


_NO_ARGUMENTS = ("pronoun", "only", "not", "verdict", "span", "outcome")
"""Kinds of what is named that no field of a step takes."""


def loose_clauses(slots: Slots, places: Sequence[Place], known: Callable[[str], bool]) -> list[Place]:
    """The parts of a sentence, from mark to mark, of at least three words, that name nothing of the trade and hold what
    no argument took: what they say is no argument. None where no other part is left."""
    named = [(slot.start, slot.end) for slot in slots.named if slot.kind not in _NO_ARGUMENTS]
    named += [(number.start, number.end) for number in slots.numbers]
    loose = slots.unread(places, known)
    clauses = []
    for match in re.finditer(r"[^,;:.!?…–—]+", slots.sentence):
        start, end = match.span()
        if not any(a < end and start < b for a, b in named) and len(slots.between(start, end)) >= NEAR:
            clauses += [(start, end)] if any(start <= one.start < end for one in loose) else []
    spoken = any(not any(start <= word.start < end for start, end in clauses) for word in slots.words)
    return clauses if spoken else []


def unread_of(
    slots: Slots, read_places: Sequence[Place], known: Callable[[str], bool], others: Sequence[Place] = ()
) -> tuple[str, ...]:
    """What no argument took, neighbouring words together, as it was typed: words with a content, numbers, paths, and
    the `others` that there was no second argument for."""
    loose = [*others, *((word.start, word.end) for word in slots.unread(read_places, known))]
    hard = [(number.start, number.end) for number in slots.numbers if not number.weak]
    hard += [(slot.start, slot.end) for slot in slots.named if slot.kind in _HARD]
    loose += [one for one in hard if not any(start <= one[0] and one[1] <= end for start, end in read_places)]
    groups: list[Place] = []
    for start, end in sorted(set(loose)):
        if (
            groups
            and slots.sentence[groups[-1][1] : start].count(" ") <= 2
            and len(slots.sentence[groups[-1][1] : start]) <= 12  # one clause: what is farther apart says two things
        ):
            groups[-1] = (groups[-1][0], max(end, groups[-1][1]))
        else:
            groups.append((start, end))
    return tuple(" ".join(_with_article(slots.sentence, start, end).split()) for start, end in groups)


_HARD = ("path", "model", "card", "quote", "commit", "case", "row", "artifact", "step", "pair", "span")


def _with_article(sentence: str, start: int, end: int) -> str:
    """The words with the `my` or the `the` before them, so that they are told as they were said."""
    before = sentence[:start].rstrip().rsplit(" ", 1)[-1]
    return (
        sentence[start - len(before) - 1 : end]
        if before.lower() in ("my", "the", "our", "meine", "mis")
        else sentence[start:end]
    )
