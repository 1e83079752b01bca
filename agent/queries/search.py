"""Which stored texts hold some words: by shared stems, a rare one counting for more than a common one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping

_ENDINGS = ("ingly", "ings", "ing", "ied", "ies", "ed", "es", "s")
_COMMON_WORDS = """about and answer answered answers are ask asked asks can case cases could did does for from gave get
give got had has have her here him how into its one onto please prompt question right run said say says show tell than
that the them then there they this want wants was were what when which who will with would you your"""
_COMMON = frozenset(_COMMON_WORDS.split())


def matching(words: str, texts: Mapping[str, str], most: int = 5) -> list[str]:
    """The ids of the texts that some words speak of, the likeliest first; none where nothing telling is shared."""
    if named := [one for one in texts if one.lower() in words.lower()]:
        return sorted(named, key=len, reverse=True)
    stems = {one: {*_stems(text), *_stems(one.replace("-", " "))} for one, text in texts.items()}
    holding = Counter(stem for of_one in stems.values() for stem in of_one)
    weight = {stem: math.log(1 + len(texts) / holding[stem]) for stem in _stems(words) if holding[stem]}
    scored = {one: sum(weight[stem] for stem in weight.keys() & of_one) for one, of_one in stems.items()}
    best = max(scored.values(), default=0.0)
    if best < max(0.3 * sum(weight.values()), math.log(3)):
        return []
    ranked = sorted(scored, key=lambda one: (-scored[one], one))
    return [one for one in ranked[:most] if scored[one] >= 0.6 * best]


def _stems(text: str) -> list[str]:
    return [_stem(word) for word in re.findall(r"[^\W_]{3,}", text.lower()) if word not in _COMMON]


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e")
