"""A sentence as the encoder gets it: misspelt words put right, names and ids as any of their kind."""

from __future__ import annotations

from collections.abc import Mapping

from rapidfuzz import process
from rapidfuzz.distance import OSA

from tunesmith.agent.words.lexicon import Word, is_known, lexicon
from tunesmith.agent.words.slots import Slots

SHORTEST_SWAPPED, _SHORTEST_MISSPELT = 3, 4
"""Letters of a word with two of them the wrong way round that may be put right, and of one with any slip."""
_PLAIN = {
    "run": "r1", "step": "s1", "artifact": "a1", "row": "g0001", "case": "case-id", "path": "/file", "quote": "“…”",
    "model": "model-7b", "card": "gpu card", "pair": "field=1", "commit": "commit",
}  # fmt: skip
_MARKS = ",:;.!–—-…"


def begins_at(slots: Slots) -> int:
    """The character at which a sentence begins behind what leads it in and a mark: `quick question: how big is it?`."""
    words, begins = slots.words, 0
    for match in lexicon()["leads_in"].find(words):
        left = words[match.after : match.after + 1]
        marked = left and {*slots.sentence[words[match.after - 1].end : left[0].start]} & {*_MARKS}
        if match.first != begins or not marked:
            break
        begins = match.after
    return words[begins].start if begins else 0


def canonical(slots: Slots, vocabulary: Mapping[str, int]) -> str:
    """The sentence in small letters, its misspelt words put right, names as any of their kind, its lead-in left out.

    `vocabulary`: word → its place by frequency.
    """
    shapes = [(slot.start, slot.end, _PLAIN[slot.kind]) for slot in slots.named if slot.kind in _PLAIN]
    fields = (slot for slot in slots.all("field") if "_" in slots.sentence[slot.start : slot.end])
    shapes += [(slot.start, slot.end, str(slot.value)) for slot in fields]
    put_right = ((word, _nearest(word, vocabulary)) for word in slots.words)
    words = [(word.start, word.end, text) for word, text in put_right if text != word.written]
    stretches, at = list[str](), begins_at(slots)
    for start, end, text in sorted([*shapes, *words]):
        if start >= at:
            stretches += [slots.sentence[at:start], text]
            at = end
    return " ".join("".join([*stretches, slots.sentence[at:]]).lower().split())[:400]  # a paste's beginning tells


def _nearest(word: Word, vocabulary: Mapping[str, int]) -> str:
    """A word as it is, or as the frequent one that is a slip of the finger away."""
    written = word.written
    put_right = word.text != written and word.text[0] == written[0]
    if written in vocabulary:
        return written
    if put_right or len(written) < SHORTEST_SWAPPED or is_known(written, by_stem=False):
        return word.text
    near = process.extract(written, vocabulary.keys(), scorer=OSA.distance, score_cutoff=1, limit=None)
    likely = (
        (other[0] != written[0] and len(written) >= _SHORTEST_MISSPELT, vocabulary[other], other)
        for other, _, _ in near
        if min(len(other), len(written)) >= _SHORTEST_MISSPELT or sorted(other) == sorted(written)
    )
    return min(likely, default=(False, 0, word.text))[2]
