"""How alike short texts are, as edit similarity of 100 on their letters: for duplicates, leaked cases and loops.

Words are told apart in every script: of one that is written without spaces each character counts. The leakage gate asks
whether a row, its whole conversation, holds what a case of a suite asks or answers. It says which case and how alike,
and never what the case asks: a blind one would no longer be. Four looks, the cheap ones first: the same text, the same
words, a run of eight words, and where an embedding model is installed the same sense. A user's own short fixed phrases
(a frame, a closing line) are in every row and every case: runs of words that most cases share count for nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Embedder

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, written without spaces: a class of characters in a pattern."""
_CONTAINED_MIN_CHARS = 40
"""Shorter texts stand in others by chance."""
_SCANNED = 2_000
"""Of more texts only those with as many letters in common are compared: to compare all of 100,000 would take hours."""
_PERMUTATIONS, _SHINGLE, _CANDIDATE = 64, 4, 0.35
"""Of the sketches: short messages have too few words to compare; Jaccard from which letters are compared, well below
that of texts that are alike: with 64 permutations it is off by an eighth."""
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


RUN = 8
"""Words in a row that two texts hardly share by chance."""
_SHARED_CASES = 3
"""A run of words in this many cases is a frame, not a case."""
EMBEDDED = 0.92
"""Cosine from which two texts say the same; high on purpose, as a row is dropped on its word alone."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A row and the case that it gives away."""

    row_id: str
    case_id: str
    how: str
    """exact, normalised, contained, alike, 8-gram, or embedding."""
    score: float
    blind: bool = False
    """Whether the case is a blind one, so that the row's text gives it away."""

    def __str__(self) -> str:
        case = "a blind case" if self.blind else f"case {self.case_id}"
        return f"{self.how} {self.score:.0f} of 100 with {case}"


LEAK = 85.0
"""Similarity to a case's text, of 100, from which a row gives it away, where a request says no other: below the 90 of
duplicates, for a known case is worse than a lost row."""


class LeakGate:
    """The cases, asked about one row after another."""

    def __init__(self, cases: Iterable[Case], slot: str, threshold: float) -> None:
        self.threshold = threshold
        self.blind: set[str] = set()
        self.index = Likeness()
        for case in cases:
            self.blind |= {case.case_id} if case.is_blind else set()
            for text in _asked(case, slot):
                self.index.add(case.case_id, text)
        self.runs = self._runs()

    def _runs(self) -> dict[tuple[str, ...], str]:
        names: dict[tuple[str, ...], str] = {}
        owners: Counter[tuple[str, ...]] = Counter()
        for name, text in zip(self.index.names, self.index.plain[True], strict=True):
            for run in set(runs(text, RUN)):
                names.setdefault(run, name)
                owners[run] += 1
        return {run: name for run, name in names.items() if owners[run] < _SHARED_CASES}

    def check(self, row_id: str, texts: Sequence[str], *, digits_count: bool = False) -> Leak | None:
        """The case that any of a row's texts gives away, or None."""
        for text in texts:
            if (leak := self._check_one(row_id, text, digits_count)) is not None:
                return leak
        return None

    def _check_one(self, row_id: str, text: str, digits_count: bool) -> Leak | None:
        """The four looks but for the embedding, the cheapest first."""
        words = normal(text, digits_count=True)
        if not words:
            return None
        if match := self.index.match(text, self.threshold, digits_count=digits_count):
            return self._leak(row_id, match.name, match.how, match.score)
        if run := next((run for run in runs(words, RUN) if run in self.runs), None):
            return self._leak(row_id, self.runs[run], "8-gram", 100.0)  # eight words in a row are no chance
        if word_count(words) < _WORDS_FOR_ORDER:
            return None
        wanted, choices = normal(text, digits_count=digits_count), self.index.plain[digits_count]
        best = process.extractOne(wanted, choices, scorer=fuzz.token_sort_ratio, score_cutoff=self.threshold)
        return self._leak(row_id, self.index.names[best[2]], "alike", best[1]) if best else None

    def _leak(self, row_id: str, case_id: str, how: str, score: float) -> Leak:
        return Leak(row_id, case_id, how, score, case_id in self.blind)

    def embedded(self, rows: Sequence[tuple[str, str]], embedder: Embedder) -> list[Leak]:
        """The rows that say what a case says in other words, by an embedding model."""
        if not self.index.texts or not rows:
            return []
        import numpy as np

        cases = np.asarray(embedder.embed(self.index.texts), dtype=np.float32)
        leaks = []
        for start in range(0, len(rows), 256):  # their scores against all cases are in memory at once
            part = rows[start : start + 256]
            vectors = np.asarray(embedder.embed([text for _, text in part]), dtype=np.float32)
            scores = vectors @ cases.T
            for (row_id, _), line in zip(part, scores, strict=True):
                place = int(line.argmax())
                if line[place] >= EMBEDDED:
                    # cosines, shown as of 100
                    leaks.append(self._leak(row_id, self.index.names[place], "embedding", float(line[place]) * 100))
        return leaks


_WORDS_FOR_ORDER = 5
"""From here on the same words in another order are the same question; of fewer that is chance."""


def row_texts(row: TrainingRow, text: str) -> list[str]:
    """What a row says, turn by turn: its own text in place of the last message that is rendered around it."""
    turns = [str(m.get("content") or "") for m in row.prompt[:-1] if m.get("role") in ("user", "assistant")]
    return [text, *turns]


def _asked(case: Case, slot: str) -> list[str]:
    if isinstance(text := case.vars.get(slot), str):
        return [text]
    contents = [m.get("content") for m in case.messages if m.get("role") == "user"]
    return [content for content in contents if isinstance(content, str) and content.strip()]


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
