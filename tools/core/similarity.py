"""How alike short texts are, as edit similarity of 100 on their letters: for duplicates, leaked cases and loops.

Words are told apart in every script: of one that is written without spaces each character counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, written without spaces: a class of characters in a pattern."""
_CONTAINED_MIN_CHARS = 40
"""Shorter texts stand in others by chance."""
_SCANNED = 2_000
"""Of more texts only those with as many letters in common are compared: to compare all of 100,000 would take hours."""
_PERMUTATIONS, _SHINGLE, _CANDIDATE = 64, 4, 0.35
"""Of the sketches: short messages have too few words to compare; Jaccard from which letters are compared, well below
that of texts that are alike: with 64 permutations it is off by an eighth."""
RUN = 8
"""Words in a row that two texts hardly share by chance."""
_UNITS = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_CHARACTER = re.compile(rf"[{UNSPACED}]")
_CHARACTERS_A_WORD = 2


@dataclass(frozen=True, slots=True)
class Match:
    """The text that another one is, holds or is nearly."""

    name: str
    how: str
    """exact, normalised (but for case and marks), contained, or alike."""
    score: float


class Likeness:
    """A growing set of named texts, asked for the one that another text gives away or repeats.

    Case, punctuation and, unless they count, the value of digits make no difference. A text of the set that stands
    whole inside a longer one is as similar as can be, from 40 characters on.
    """

    def __init__(self, texts: Iterable[tuple[str, str]] = ()) -> None:
        self.names: list[str] = []
        self.texts: list[str] = []
        self.plain: dict[bool, list[str]] = {True: [], False: []}
        """Whether digits count → the texts as they are compared."""
        self._exact: dict[str, int] = {}
        self._sketches: _Sketches | None = None
        for name, text in texts:
            self.add(name, text)

    def add(self, name: str, text: str) -> None:
        """Put a text into the set."""
        self.names.append(name)
        self.texts.append(text)
        for digits_count, plain in self.plain.items():
            plain.append(normal(text, digits_count=digits_count))
        self._exact.setdefault(self.plain[True][-1], len(self.texts) - 1)

    def match(self, text: str, threshold: float, *, digits_count: bool = False, contained: bool = True) -> Match | None:
        """The most similar text where it is at least so similar, of 100; one that is `contained` where that counts."""
        wanted, texts = normal(text, digits_count=digits_count), self.plain[digits_count]
        if (place := self._exact.get(normal(text, digits_count=True))) is not None:
            return Match(self.names[place], "exact" if text.strip() == self.texts[place].strip() else "normalised", 100)
        places: Sequence[int] = range(len(texts)) if len(texts) <= _SCANNED else self._candidates(wanted)
        for place in places if contained else ():
            if len(texts[place]) >= _CONTAINED_MIN_CHARS and texts[place] in wanted:
                return Match(self.names[place], "contained", 100)  # the whole case stands in it
        some = texts if len(places) == len(texts) else {place: texts[place] for place in places}
        best = process.extractOne(wanted, some, scorer=fuzz.ratio, score_cutoff=threshold)
        return Match(self.names[best[2]], "alike", best[1]) if best else None

    def _candidates(self, wanted: str) -> Sequence[int]:
        self._sketches = self._sketches or _Sketches()
        self._sketches.take(self.plain[False])
        return self._sketches.near(re.sub(r"\d+", "0", wanted))


class _Sketches:
    """MinHash sketches of many texts, so that one is not compared with all of them."""

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH

        self.empty = MinHash(num_perm=_PERMUTATIONS)  # drawing its permutations takes longer than sketching a row
        self.lsh = MinHashLSH(threshold=_CANDIDATE, num_perm=_PERMUTATIONS)
        self.count = 0

    def take(self, texts: Sequence[str]) -> None:
        """Sketch the texts that are new since it was last asked."""
        for place in range(self.count, len(texts)):
            self.lsh.insert(place, self._sketch(texts[place]), check_duplication=False)
        self.count = len(texts)

    def near(self, text: str) -> list[int]:
        """The places of texts that share letters enough."""
        return sorted(self.lsh.query(self._sketch(text)))

    def _sketch(self, words: str) -> object:
        # A copy has the permutations already: see `empty`.
        sketch = self.empty.copy()
        shingles = {words[n : n + _SHINGLE] for n in range(max(1, len(words) - _SHINGLE + 1))}
        sketch.update_batch([shingle.encode() for shingle in shingles])
        return sketch


def normal(text: str, *, digits_count: bool = False) -> str:
    """Lower case, words and digits only; digits become 0 unless they count."""
    text = re.sub(r"[^\w]+", " ", text.lower()).strip()
    return text if digits_count else re.sub(r"\d+", "0", text)


def units(text: str) -> list[str]:
    """The words of a text in small letters; of a script without spaces its characters."""
    return _UNITS.findall(text.lower())


def word_count(text: str) -> int:
    """How many words a text has; two characters of a script without spaces count as one."""
    words = units(text)
    characters = sum(_CHARACTER.match(unit) is not None for unit in words)
    return len(words) - characters + -(-characters // _CHARACTERS_A_WORD)


def runs(text: str, words: int) -> list[tuple[str, ...]]:
    """The runs of so many words in a row; of a script without spaces they are half as long again in characters."""
    tokens = units(text)
    length = words + words // 2 if _CHARACTER.search(text) else words
    return [tuple(tokens[n : n + length]) for n in range(len(tokens) - length + 1)]


def loops(text: str) -> bool:
    """Whether some five words in a row come again."""
    return _repeated(text) > 0


def only_loops(text: str) -> bool:
    """Whether most of a text is five words in a row that came before."""
    return _repeated(text) > 0.5


def _repeated(text: str) -> float:
    """Of a text's runs of five words, the share that came before."""
    # Five: two or three words come again in honest text, as in greetings and names.
    sequences = runs(text, 5)
    return 1 - len(set(sequences)) / len(sequences) if sequences else 0.0


_STOP_WORDS = (
    "a an the and or but is are was were be been to of in on at by for from with as it its this that i you we they he "
    "she my your our their not no do does did has have had will would can could should so if then than there here"
)
STOP = frozenset(_STOP_WORDS.split())
"""Words that mean little by themselves."""


def overlap(values: Mapping[str, str | None], text: str) -> float:
    """How much of the values' words stands in a text, from 0 to 1."""
    words = stems(" ".join(value for value in values.values() if value))
    return len(words & stems(text)) / len(words) if words else 0.0


def stems(text: str) -> set[str]:
    """The beginnings of the words that mean something."""
    words = [w for w in re.findall(r"[^\W_]{2,}", text.lower()) if w not in STOP]
    # "deliver" and "delivery" meet
    return {re.sub(r"(?:ations?|ings?|ies|es|ed|s|y|e)$", "", w)[:6] if len(w) > 3 else w for w in words}
