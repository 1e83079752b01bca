"""Whether a row, its whole conversation, holds what a case of a suite asks or answers.

The gate says which case and how alike, and never what the case asks: a blind one would no longer be. Four looks, the
cheap ones first: the same text, the same words, a run of eight words, and where an embedding model is installed the
same sense. A user's own short fixed phrases (a frame, a closing line) are in every row and every case: runs of words
that most cases share count for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.similarity import RUN, Likeness, normal, runs, word_count
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Embedder

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
