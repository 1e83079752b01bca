"""Near-duplicates by MinHash, and how various a set of texts is: both in one pass over any number of rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import mean

from rapidfuzz import fuzz

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.similarity import normal

_PERMUTATIONS = 64
_SHINGLE = 5
"""Characters of one shingle: short messages have too few words to be compared by words."""
_CANDIDATE = 0.6
"""Jaccard of shingles from which two texts are compared by their letters."""


class Duplicates:
    """Texts that were kept, each new one asked for the one that it nearly is."""

    def __init__(self, threshold: float) -> None:
        """`threshold`: edit similarity, of 100, from which the later of two texts is a duplicate."""
        from datasketch import MinHash, MinHashLSH

        self.threshold = threshold
        self.empty = MinHash(num_perm=_PERMUTATIONS)  # drawing its permutations takes longer than sketching a row
        self.lsh = MinHashLSH(threshold=_CANDIDATE, num_perm=_PERMUTATIONS)
        self.texts: dict[str, str] = {}
        self.exact: dict[str, str] = {}

    def check(self, row_id: str, text: str, *, digits_count: bool = False) -> tuple[str, float] | None:
        """The row that this text nearly is, with the similarity; None: it is new, and counts from now on."""
        words = normal(text, digits_count=digits_count)
        if words in self.exact:
            return self.exact[words], 100.0
        sketch = self.empty.copy()
        sketch.update_batch([shingle.encode() for shingle in _shingles(words)])
        best = ("", 0.0)
        for other in self.lsh.query(sketch):
            score = fuzz.ratio(words, self.texts[other], score_cutoff=self.threshold)
            best = max(best, (other, score), key=lambda pair: pair[1])
        if best[1] >= self.threshold:
            return best
        self.exact[words] = row_id
        self.texts[row_id] = words
        self.lsh.insert(row_id, sketch, check_duplication=False)
        return None


def _shingles(words: str) -> set[str]:
    return {words[n : n + _SHINGLE] for n in range(max(1, len(words) - _SHINGLE + 1))}


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
