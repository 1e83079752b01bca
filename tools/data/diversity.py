"""How various a set of texts is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import mean

from tunesmith.tools.core.stage import Frozen


class Diversity(Frozen):
    """How various texts are. Few of them, or all alike, teach little."""

    texts: int
    distinct_1: float
    """Different words for each word."""
    distinct_2: float
    """Different pairs of words for each pair."""
    openings: float
    """Different first two words for each text."""
    commonest_opening: str
    commonest_opening_share: float
    mean_words: float
    questions: float
    """Share of texts that end with a question mark."""


def diversity(texts: Sequence[str]) -> Diversity:
    """The figures of some texts."""
    split = [re.findall(r"\w+", text.lower()) for text in texts]
    words = [word for own in split for word in own]
    pairs = [pair for own in split for pair in pairwise(own)]
    openings = Counter(" ".join(own[:2]) for own in split if own)
    commonest, count = openings.most_common(1)[0] if openings else ("", 0)
    return Diversity(
        texts=len(texts),
        distinct_1=round(len(set(words)) / max(1, len(words)), 3),
        distinct_2=round(len(set(pairs)) / max(1, len(pairs)), 3),
        openings=round(len(openings) / max(1, len(texts)), 3),
        commonest_opening=commonest,
        commonest_opening_share=round(count / max(1, len(texts)), 3),
        mean_words=round(mean(map(len, split)), 1) if split else 0.0,
        questions=round(sum(text.rstrip().endswith("?") for text in texts) / max(1, len(texts)), 3),
    )
