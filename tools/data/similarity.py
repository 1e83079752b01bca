"""How alike short texts are, as edit similarity of 100 on their letters: for duplicates, leaked cases and loops."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rapidfuzz import fuzz, process

_CONTAINED_MIN_CHARS = 40


class Similarity:
    """A growing set of texts, each asked for the one that is most like another text."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: list[str] = []
        self._digits: list[str] = []
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Put a text into the set."""
        self._texts.append(normal(text))
        self._digits.append(normal(text, digits_count=True))

    def nearest(self, text: str, *, digits_count: bool = False) -> tuple[int, float]:
        """Place and similarity of the most similar text; 0 in an empty set.

        Case, punctuation and (unless `digits_count`) the value of digits make no difference. A text of the set that
        stands whole inside a longer one is as similar as can be, from 40 characters on.
        """
        wanted, texts = normal(text, digits_count=digits_count), self._digits if digits_count else self._texts
        for place, other in enumerate(texts):
            if len(other) >= _CONTAINED_MIN_CHARS and other in wanted:
                return place, 100.0
        best = process.extractOne(wanted, texts, scorer=fuzz.ratio)
        return (best[2], best[1]) if best else (0, 0.0)


def normal(text: str, *, digits_count: bool = False) -> str:
    """Lower case, words and digits only; digits become 0 unless they count."""
    text = re.sub(r"[^\w]+", " ", text.lower()).strip()
    return text if digits_count else re.sub(r"\d+", "0", text)


def loops(text: str) -> bool:
    """Whether some five words in a row come again."""
    return _repeated(text) > 0


def only_loops(text: str) -> bool:
    """Whether most of a text is five words in a row that came before."""
    return _repeated(text) > 0.5


def _repeated(text: str) -> float:
    """Of a text's runs of five words, the share that came before."""
    words = text.lower().split()
    runs = [tuple(words[i : i + 5]) for i in range(len(words) - 4)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
