"""What a sentence asks for: a label with its probability, from a sentence embedding and a small trained head.

The head is one softmax layer over the embedding, hashed n-grams of the words and which slots are named. It is trained
from the sentences in intents.yaml by `make words` and lies in head.npz, with the fingerprint of those sentences.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tunesmith.agent.words.encoder import WIDTH, Encoder
from tunesmith.agent.words.slots import Slots

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

HASHED = 4096
_FLAGS = (
    "run", "step", "arm", "stage", "block", "outcome", "field", "figure", "metric", "model", "bits", "card", "card_gib",
    "ram_gib", "span", "quote", "path", "pair", "case", "row", "artifact", "verdict", "origin", "decision", "order",
    "again", "factor", "not", "only", "until", "choice.scheme", "pronoun", "number", "asks",
)  # fmt: skip
FEATURES = WIDTH + HASHED + 2 * len(_FLAGS)
_WEIGHTS = (1.0, 0.7, 0.35)
"""How much the embedding, the n-grams and the named slots count."""


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


class Head:
    """The trained layer. Thread-safe: nothing changes after it was made."""

    def __init__(self, stored: Any) -> None:
        import numpy as np

        self._weights: Floats = stored["weights"].astype(np.float32) * stored["scales"][:, None]
        about = json.loads(bytes(stored["about"]).decode())
        self.labels: tuple[str, ...] = tuple(about["labels"])
        self.examples: dict[str, list[str]] = about["examples"]
        self.own_words: dict[str, frozenset[str]] = {k: frozenset(v.split()) for k, v in about["own_words"].items()}
        self.fingerprint: str = about["fingerprint"]
        self.threshold: float = about["threshold"]

    @classmethod
    def load(cls) -> Head:
        """The head of this package."""
        import numpy as np

        with (files("tunesmith.agent.words") / "head.npz").open("rb") as file, np.load(file) as stored:
            return cls({name: stored[name] for name in stored.files})

    def guesses(self, features: Floats) -> list[Guess]:
        """Every label with its probability, the likeliest first."""
        import numpy as np

        scores = self._weights @ features
        likely = np.exp(scores - scores.max())
        likely /= likely.sum()
        return [Guess(self.labels[i], float(likely[i])) for i in np.argsort(-likely)]


def features_of(sentences: Sequence[Slots], encoder: Encoder) -> Floats:
    """The numbers that the head sees of each sentence, a row each."""
    import numpy as np

    plain = [canonical(slots) for slots in sentences]
    x = np.zeros((len(sentences), FEATURES), np.float32)
    x[:, :WIDTH] = encoder.embed(plain) * _WEIGHTS[0]
    for row, (text, slots) in enumerate(zip(plain, sentences, strict=True)):
        grams = np.zeros(HASHED, np.float32)
        for gram in _grams(text):
            code = zlib.crc32(gram.encode())
            grams[code % HASHED] += 1.0 if code & 0x80000000 else -1.0
        x[row, WIDTH : WIDTH + HASHED] = grams / max(float(np.linalg.norm(grams)), 1e-6) * _WEIGHTS[1]
        counts = [_count(slots, flag) for flag in _FLAGS]
        x[row, WIDTH + HASHED :] = np.array([[n > 0, n > 1] for n in counts], np.float32).ravel() * _WEIGHTS[2]
    return x


def _count(slots: Slots, flag: str) -> int:
    if flag == "number":
        return sum(not number.weak for number in slots.numbers)
    return int(slots.asks) if flag == "asks" else len(slots.values(flag))


_PLAIN = {
    "run": "r1", "step": "s1", "artifact": "a1", "row": "g0001", "case": "case-id", "path": "/file", "quote": "“…”",
    "model": "model-7b", "card": "gpu card", "pair": "field=1", "commit": "commit",
}  # fmt: skip


def canonical(slots: Slots) -> str:
    """The sentence in small letters, its misspelt words put right, ids and names of models as any of their kind."""
    parts, at = [], 0
    shapes = sorted((s.start, s.end, _PLAIN[s.kind]) for s in slots.found if s.kind in _PLAIN and s.value != "pronouns")
    words = [(word.start, word.end, word.text) for word in slots.words if word.text != word.written]
    for start, end, text in sorted([*shapes, *words]):
        if start >= at:
            parts += [slots.said[at:start], text]
            at = end
    return " ".join("".join([*parts, slots.said[at:]]).lower().split())[:400]


def _grams(text: str) -> Iterator[str]:
    """Words, pairs of words, and three to five letters in a row within a word."""
    words = ["".join(letter for letter in word if letter.isalnum()) for word in text.split()]
    words = [word for word in words if word]
    for word in words:
        yield f"w:{word}"
        padded = f"<{word}>"
        for size in (3, 4, 5):
            for at in range(len(padded) - size + 1):
                yield padded[at : at + size]
    for one, two in zip(words, words[1:], strict=False):
        yield f"p:{one} {two}"
    if words:
        yield f"first:{words[0]}"


def kinds(guesses: Sequence[Guess]) -> list[Guess]:
    """The guesses by kind, each with the sum of its labels' probabilities and its likeliest label."""
    total: dict[str, float] = {}
    best: dict[str, str] = {}
    for guess in guesses:
        total[guess.kind] = total.get(guess.kind, 0.0) + guess.probability
        best.setdefault(guess.kind, guess.label)
    return sorted((Guess(best[kind], p) for kind, p in total.items()), key=lambda guess: -guess.probability)
