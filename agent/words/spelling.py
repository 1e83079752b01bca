"""A sentence as the encoder gets it: misspelt words put right, names and ids as any of their kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rapidfuzz import process
from rapidfuzz.distance import OSA

from tunesmith.agent.words.lexicon import Word, is_known, lexicon
from tunesmith.agent.words.slots import Slot, Slots

SHORTEST_SWAPPED, _SHORTEST_MISSPELT = 3, 4
"""Letters of a word with two of them the wrong way round that may be put right, and of one with any slip."""
_LONG = 8
"""Letters from which a word may have two slips: of shorter ones two make another word."""
_PLAIN = {
    "run": "r1", "step": "s1", "artifact": "a1", "row": "g0001", "case": "case-id", "path": "/file", "quote": "“…”",
    "model": "model-7b", "card": "gpu card", "pair": "field=1", "commit": "commit",
}  # fmt: skip


def begins_at(slots: Slots) -> int:
    """The character at which a sentence begins behind what leads it in and a mark: `quick question: how big is it?`."""
    words, begins = slots.words, 0
    for match in lexicon()["leads_in"].find(words):
        left = words[match.after : match.after + 1]
        if match.first != begins or not left:
            break
        if not set(slots.sentence[words[match.after - 1].end : left[0].start]) & set(_MARKS):
            break
        begins = match.after
    return words[begins].start if begins else 0


_MARKS = ",:;.!–—-…"
"""One of them ends what leads a sentence in."""


def canonical(slots: Slots, vocabulary: Mapping[str, int]) -> str:
    """The sentence in small letters, its misspelt words put right, ids and names of models as any of their kind,
    without what leads it in.

    `vocabulary`: word → its place by frequency.
    """
    stretches: list[str] = []
    at = begins_at(slots)
    shapes = [(slot.start, slot.end, _PLAIN[slot.kind]) for slot in slots.named if slot.kind in _PLAIN]
    shapes += [(slot.start, slot.end, str(slot.value)) for slot in slots.all("field") if _is_name(slots, slot)]
    put_right = ((word, _nearest(word, vocabulary)) for word in slots.words)
    words = [(word.start, word.end, text) for word, text in put_right if text != word.written]
    for start, end, text in sorted([*shapes, *words]):
        if start >= at:
            stretches += [slots.sentence[at:start], text]
            at = end
    return " ".join("".join([*stretches, slots.sentence[at:]]).lower().split())[:400]  # a paste's beginning tells


def _is_name(slots: Slots, slot: Slot) -> bool:
    """Whether a setting is named as a request names it, rightly or not."""
    return "_" in slots.sentence[slot.start : slot.end]


def slip_of(word: str, words: Collection[str], *, of_any: bool = False) -> bool:
    """Whether a word that is none is a slip of the finger from one of these, with which it begins alike: `qunatise`.
    `of_any`: one that is a word may be too, `quantity` for quantize."""
    if len(word) < _SHORTEST_MISSPELT or not word.isalpha() or (not of_any and is_known(word, by_stem=False)):
        return False
    most = 1 if len(word) < _LONG else 2
    return any(
        one[0] == word[0] and abs(len(one) - len(word)) <= most and OSA.distance(one, word, score_cutoff=most) <= most
        for one in words
        if len(one) >= _SHORTEST_MISSPELT
    )


def _nearest(word: Word, vocabulary: Mapping[str, int]) -> str:
    """A word as it is, or as the frequent one that is a slip of the finger away."""
    written = word.written
    if written in vocabulary:
        return written
    put_right = word.text != written and word.text[0] == written[0]
    if put_right or len(written) < SHORTEST_SWAPPED or is_known(written, by_stem=False):
        return word.text
    near = process.extract(written, vocabulary.keys(), scorer=OSA.distance, score_cutoff=1, limit=None)
    likely = (
        (word_near[0] != written[0] and len(written) >= _SHORTEST_MISSPELT, vocabulary[word_near], word_near)
        for word_near, _, _ in near
        if min(len(word_near), len(written)) >= _SHORTEST_MISSPELT or sorted(word_near) == sorted(written)
    )
    return min(likely, default=(False, 0, word.text))[2]
