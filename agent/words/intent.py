"""What a sentence asks for: a label with its probability, from a sentence embedding and a small trained head.

The head is one softmax layer over the embedding and over which slots are named. It is trained from the sentences in
intents/ by `make words` and lies in head.npz, with the fingerprint of those sentences.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from rapidfuzz import process
from rapidfuzz.distance import OSA

from tunesmith.agent.words.lexicon import Word, is_known, words_of
from tunesmith.agent.words.slots import Slots

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_FLAGS = (
    "run", "step", "arm", "stage", "block", "outcome", "field", "figure", "metric", "model", "bits", "card", "card_gib",
    "ram_gib", "span", "quote", "path", "pair", "case", "row", "artifact", "verdict", "origin", "decision", "order",
    "again", "factor", "not", "only", "until", "choice.scheme", "pronoun", "number", "asks",
)  # fmt: skip
_SHORTEST_MISSPELT, _OFTEN = 4, 3
"""Letters of a word that may be put right, and how many sentences hold one that it is put right to."""
_FLAG = 0.35
"""How much a named slot counts beside the embedding's numbers."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A label, `kind` or `kind.choice`, and how likely it is."""

    label: str
    probability: float

    @property
    def kind(self) -> str:
        """The label without its choice; an act or talk keeps its whole name."""
        return kind_of(self.label)


def kind_of(label: str) -> str:
    """The kind of a label: `step` of `step.time`, but `do.train`, `plan.set`, `talk.hello` whole."""
    return label if label.partition(".")[0] in ("do", "plan", "talk", "describe") else label.partition(".")[0]


def possible(label: str, *, planned: bool, describing: bool, follows: bool) -> bool:
    """Whether words can have a label at a moment: what is said of a plan or of a description asks for an open one."""
    needs = {"plan": planned, "describe": describing, "follow": follows}
    return needs.get(label.partition(".")[0], True)


class Head:
    """The trained layer. Thread-safe: nothing changes after it was made."""

    def __init__(self, stored: Mapping[str, NDArray[np.generic]]) -> None:
        import numpy as np

        self._weights: Floats = stored["weights"].astype(np.float32) * stored["scales"].astype(np.float32)[:, None]
        self._bias: Floats = stored["bias"].astype(np.float32)
        about = json.loads(stored["about"].tobytes().decode())
        self.labels: tuple[str, ...] = tuple(about["labels"])
        self.examples: dict[str, list[str]] = about["examples"]
        self.own_words: dict[str, frozenset[str]] = {k: frozenset(v.split()) for k, v in about["own_words"].items()}
        self.fingerprint: str = about["fingerprint"]
        self.threshold: float = about["threshold"]
        self.vocabulary = {word: place for place, word in enumerate(about["vocabulary"].split())}
        self._labels: dict[str, str] = {_key(one): label for label, said in self.examples.items() for one in said}

    @classmethod
    def load(cls) -> Head:
        """The head of this package."""
        import numpy as np

        with (files("tunesmith.agent.words") / "head.npz").open("rb") as file, np.load(file) as stored:
            return cls({name: stored[name] for name in stored.files})

    def label_of(self, said: str) -> str:
        """The label of the example that these words are, whatever run they name; empty: they are none."""
        return self._labels.get(_key(said), "")

    def guesses(self, embedding: Floats, slots: Slots) -> list[Guess]:
        """Every label with its probability, the likeliest first."""
        import numpy as np

        scores = self._weights @ np.concatenate([embedding, flags_of(slots)]) + self._bias
        likely = np.exp(scores - scores.max())
        likely /= likely.sum()
        return [Guess(self.labels[i], float(likely[i])) for i in np.argsort(-likely)]


def _key(said: str) -> str:
    return " ".join(re.sub(r"\b[ras]\d+\b", "r1", said.lower()).strip(" ?!.,¿¡").split())


def flags_of(slots: Slots) -> Floats:
    """Which kinds of slots a sentence names, once and more than once."""
    import numpy as np

    counts = [_count(slots, flag) for flag in _FLAGS]
    return np.array([[n > 0, n > 1] for n in counts], np.float32).ravel() * np.float32(_FLAG)


def _count(slots: Slots, flag: str) -> int:
    if flag == "number":
        return sum(not number.weak for number in slots.numbers)
    return int(slots.asks) if flag == "asks" else len(slots.values(flag))


_PLAIN = {
    "run": "r1", "step": "s1", "artifact": "a1", "row": "g0001", "case": "case-id", "path": "/file", "quote": "“…”",
    "model": "model-7b", "card": "gpu card", "pair": "field=1", "commit": "commit",
}  # fmt: skip


def vocabulary_of(said: Iterable[str]) -> list[str]:
    """The words that several of these sentences hold, the most frequent first: what a misspelt one may be meant for."""
    count = Counter(word.written for one in said for word in words_of(one) if len(word.written) >= _SHORTEST_MISSPELT)
    return [word for word, n in count.most_common() if n >= _OFTEN and word.isalpha()]


def canonical(slots: Slots, vocabulary: Mapping[str, int]) -> str:
    """The sentence in small letters, its misspelt words put right, ids and names of models as any of their kind.

    `vocabulary`: word → its place by frequency.
    """
    parts, at = [], 0
    shapes = [(slot.start, slot.end, _PLAIN[slot.kind]) for slot in slots.found if slot.kind in _PLAIN]
    put_right = ((word, _nearest(word, vocabulary)) for word in slots.words)
    words = [(word.start, word.end, text) for word, text in put_right if text != word.written]
    for start, end, text in sorted([*shapes, *words]):
        if start >= at:
            parts += [slots.said[at:start], text]
            at = end
    return " ".join("".join([*parts, slots.said[at:]]).lower().split())[:400]


def _nearest(word: Word, vocabulary: Mapping[str, int]) -> str:
    """A word as it is, or as the frequent one that is a slip of the finger away."""
    written = word.written
    if written in vocabulary:
        return written
    put_right = word.text != written and word.text[0] == written[0]
    if put_right or len(written) < _SHORTEST_MISSPELT or is_known(written):
        return word.text
    near = process.extract(written, vocabulary.keys(), scorer=OSA.distance, score_cutoff=1, limit=None)
    likely = ((found[0] != written[0], vocabulary[found], found) for found, _, _ in near)
    return min(likely, default=(False, 0, word.text))[2]


def kinds(guesses: Sequence[Guess]) -> list[Guess]:
    """The guesses by kind, each with the sum of its labels' probabilities and its likeliest label."""
    total: dict[str, float] = {}
    best: dict[str, str] = {}
    for guess in guesses:
        total[guess.kind] = total.get(guess.kind, 0.0) + guess.probability
        best.setdefault(guess.kind, guess.label)
    return sorted((Guess(best[kind], p) for kind, p in total.items()), key=lambda guess: -guess.probability)
