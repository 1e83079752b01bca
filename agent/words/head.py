"""The trained layer over a sentence's embedding: every label with its probability, at the moment it is said.

Head.npz holds it, with the examples, what the encoder was taught, and which kinds of things are said at which moment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from tunesmith.agent.words.neighbours import Neighbours
from tunesmith.agent.words.slots import Slots, slots_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Moment = Literal["price", "planned", "running", "broken_off", "empty", "served", "midway", "finished"]
"""Where somebody stands who says something: at a price, before a plan, while a step runs, after one broke off, in a
home without a run, with a model served, in a run with steps left, in one that has all."""
NOTHING = "none"
"""The label of what asks for something that there is no answer for: never acted on."""

_FLAGS = (
    "run", "step", "arm", "stage", "block", "outcome", "field", "figure", "metric", "model", "bits", "card", "card_gib",
    "ram_gib", "span", "quote", "path", "pair", "case", "row", "artifact", "verdict", "origin", "decision", "order",
    "again", "factor", "not", "only", "until", "choice.scheme", "pronoun", "number", "asks",
)  # fmt: skip
_FOREIGN = {"run", "step", "path", "case", "span", "quote", "artifact", "model", "commit"}
_LOOKED_AT = 40
"""Of a label's sentences, the plainest first: where all these name something, the first has to do."""
_FLAG = 0.35
"""How much a named slot counts beside the embedding's numbers, each of about 0.05 (its length is 1)."""


class NoEncoder(Exception):
    """The package with the weights is not installed, or is not the one that is known."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A label, `kind` or `kind.choice`, and how likely it is."""

    label: str
    probability: float


def kind_of(label: str) -> str:
    """The kind of a label: `step` of `step.time`, but `do.train`, `plan.set`, `talk.hello` whole."""
    return label if label.partition(".")[0] in ("do", "plan", "talk", "describe") else label.partition(".")[0]


def possible(label: str, *, planned: bool, describing: bool, follows: bool) -> bool:
    """Whether words can have a label at a moment: what is said of a plan or of a description asks for an open one."""
    needs = {"plan": planned, "describe": describing, "follow": follows}
    return needs.get(label.partition(".")[0], True)


_MOMENT = "moment."


class Head:
    """The trained layer. Thread-safe: what is kept after it was made is the same whoever asks first."""

    def __init__(self, stored: Mapping[str, NDArray[np.generic]]) -> None:
        import numpy as np

        self._weights: Floats = stored["weights"].astype(np.float32) * stored["scales"].astype(np.float32)[:, None]
        self._bias: Floats = stored["bias"].astype(np.float32)
        self.added = {
            name: array.astype(np.float16) for name, array in stored.items() if name.endswith((".in", ".out"))
        }
        """What the encoder was taught, as `Encoder` takes it."""
        about = json.loads(stored["about"].tobytes().decode())
        self.labels: tuple[str, ...] = tuple(about["labels"])
        self.examples: dict[str, list[str]] = about["examples"]
        self.own_words: dict[str, frozenset[str]] = {k: frozenset(v.split()) for k, v in about["own_words"].items()}
        self.fingerprint: str = about["fingerprint"]
        self._offers: dict[str, str] = {}
        self.threshold: float = about["threshold"]
        self.vocabulary = {word: place for place, word in enumerate(about["vocabulary"].split())}
        sizes = [len(self.examples[label]) for label in self.labels]
        self._near = Neighbours.stored(stored, np.repeat(np.arange(len(sizes)), sizes))
        self._moments: dict[str, Floats] = {
            name.removeprefix(_MOMENT): array.astype(np.float32)
            for name, array in stored.items()
            if name.startswith(_MOMENT)
        }
        self._labels: dict[str, str] = {
            _key(one): label for label, sentences in self.examples.items() for one in sentences
        }

    @classmethod
    def load(cls) -> Head:
        """The head of this package."""
        import numpy as np

        with (files("tunesmith.agent.words") / "head.npz").open("rb") as file, np.load(file) as stored:
            return cls({name: stored[name] for name in stored.files})

    def label_of(self, sentence: str) -> str:
        """The label of the example that these words are, whatever run they name; empty: they are none."""
        return self._labels.get(_key(sentence), "")

    def offer(self, label: str) -> str:
        """The sentence that stands for a label where somebody was not understood: the first example that names nothing
        of another's, such as a run or a file."""
        if label not in self._offers:
            looked_at = self.examples[label][:_LOOKED_AT]
            own = (one for one in looked_at if not _FOREIGN & {slot.kind for slot in slots_of(one).named})
            self._offers[label] = next(own, looked_at[0])
        return self._offers[label]

    def guesses(self, embedding: Floats, slots: Slots, moment: str = "") -> list[Guess]:
        """Every label with its probability at a moment, the likeliest first; without one, at any."""
        import numpy as np

        scores = self._weights @ np.concatenate([embedding, flags_of(slots)]) + self._bias
        likely = np.exp(scores - scores.max())
        likely = self._near.beside((likely / likely.sum())[None], embedding[None])[0]
        if moment:
            likely = likely * self._moments[moment]
            likely /= likely.sum()
        return [Guess(self.labels[i], float(likely[i])) for i in np.argsort(-likely)]


def _key(sentence: str) -> str:
    return " ".join(re.sub(r"\b[ras]\d+\b", "r1", sentence.lower()).strip(" ?!.,¿¡").split())


def flags_of(slots: Slots) -> Floats:
    """Which kinds of slots a sentence names, once and more than once."""
    import numpy as np

    counts = [_count(slots, flag) for flag in _FLAGS]
    return np.array([[n > 0, n > 1] for n in counts], np.float32).ravel() * np.float32(_FLAG)


def _count(slots: Slots, flag: str) -> int:
    if flag == "number":
        return sum(not number.weak for number in slots.numbers)
    return int(slots.asks) if flag == "asks" else len(slots.values(flag))


def kinds(guesses: Sequence[Guess]) -> list[Guess]:
    """The guesses by kind, each with the sum of its labels' probabilities and its likeliest label."""
    total: dict[str, float] = {}
    best: dict[str, str] = {}
    for guess in guesses:
        kind = kind_of(guess.label)
        total[kind] = total.get(kind, 0.0) + guess.probability
        best.setdefault(kind, guess.label)
    return sorted((Guess(best[kind], p) for kind, p in total.items()), key=lambda guess: -guess.probability)
