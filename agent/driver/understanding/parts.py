"""A sentence that asks for several things one after the other, cut into them."""

from __future__ import annotations

import re

STEPS_PER_TURN = 4
_ASKS_ON = (
    r"how (?:many|long|much|big)|which|what|who|why did|why was|when|wie (?:viele|lange|gro)|welche|was|wer|wann|warum|"
    r"combien|quel|qui|quand|pourquoi|cuánt|qué|cuál|quién|por qué"
)
_JOINT = re.compile(
    r"(?:\s*[,;.?!]\s*|\s+)(?:and )?(?:then|after(?:wards| that)|next)[, ]+(?!i\b|we\b|you\b|there\b|it (?:is|was)\b)"
    r"|\s*[?.!;]\s+(?:and |also |please )*(?=[a-z])|\s*[,;]\s+and (?:also |please )*(?=(?:what|which|how|why|when|who|"
    r"show|train|evaluate|merge|quantize|deploy|generate)\b)"
    rf"|\s+(?:and|und|et|y) (?=(?:{_ASKS_ON})\w*\b.{{6}})",
    re.IGNORECASE,
)
_FEWEST_WORDS = 2


def parts_of(words: str) -> list[str]:
    """The parts, in order, at most so many as a turn has steps; one where nothing joins several."""
    if "\n" in words or '"' in words or len(words) > 400:
        return [words]
    cut = [part.strip(" ,;") for part in _JOINT.split(words)]
    cut = [part + ("?" if f"{part}?" in words else "") for part in cut if part]
    if not 2 <= len(cut) <= STEPS_PER_TURN or any(len(part.split()) < _FEWEST_WORDS for part in cut):
        return [words]
    return cut
