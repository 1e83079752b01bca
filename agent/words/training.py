"""Train the head from the sentences in intents.yaml: `python -m tunesmith.agent.words.training`; the same every time.

Softmax regression with an L2 penalty by L-BFGS. Each sentence is also learned with slips of the finger and lead-ins, so
that these change nothing. What is not seen in training, five parts in turn, sets the threshold from which the head
answers by itself and is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tunesmith.agent.words.encoder import Encoder
from tunesmith.agent.words.intent import FEATURES, features_of, kind_of
from tunesmith.agent.words.lexicon import folded, words_of
from tunesmith.agent.words.slots import empty_words, slots_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_FOLDS = 5
_PENALTY = 3e-4
_LEAD_INS = ("so, ", "quick question: ", "ok and ", "hey, ", "btw ", "i was wondering, ", "sag mal, ", "oye, ", "one more thing - ")
_WRONG_MOST = 0.02
"""Of what the head answers by itself, at most so much may be of another kind."""
_SHARED_BY = 2


def intents() -> dict[str, list[str]]:
    """Label → its sentences."""
    page = yaml.load(_file("intents.yaml").read_text(encoding="utf-8"), _LOADER)
    return {str(label): [str(sentence) for sentence in sentences] for label, sentences in page.items()}


_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _file(name: str) -> Traversable:
    return files("tunesmith.agent.words") / name


def fingerprint() -> str:
    """Of all sentences and all that is computed from them before the head: the head in the package must have it."""
    digest = hashlib.sha256()
    for name in ("intents.yaml", "lexicon.yaml", "vocab.txt"):
        digest.update(_file(name).read_bytes())
    return digest.hexdigest()


def slips(sentence: str, chance: random.Random) -> list[str]:
    """The sentence with a letter lost, two swapped, a lead-in, and without its marks."""
    words = sentence.split()
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    found = [chance.choice(_LEAD_INS) + sentence]
    if long:
        for swap in (False, True):
            i, changed = chance.choice(long), list(words)
            at = chance.randrange(1, len(words[i]) - 1)
            word = words[i]
            changed[i] = word[:at] + (word[at + 1] + word[at] + word[at + 2 :] if swap else word[at + 1 :])
            found.append(" ".join(changed))
    return found


def own_words(sentences: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Label → the words with a content that at least two of its sentences hold: how it is said, no argument of it."""
    found = {}
    for label, said in sentences.items():
        count = Counter(word for s in said for word in {w.text for w in words_of(s)} - empty_words())
        if words := sorted(word for word, n in count.items() if n >= _SHARED_BY and not word.isdigit()):
            found[label] = " ".join(words)
    return found


def fitted(x: Floats, y: NDArray[np.int64], classes: int, weight: Floats) -> Floats:
    """The weights of the softmax layer: classes × features."""
    import numpy as np
    from scipy.optimize import minimize

    target = np.zeros((len(y), classes), np.float32)
    target[np.arange(len(y)), y] = 1.0
    total = float(weight.sum())

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = flat.reshape(classes, -1).astype(np.float32)
        scores = x @ w.T
        scores -= scores.max(axis=1, keepdims=True)
        likely = np.exp(scores)
        likely /= likely.sum(axis=1, keepdims=True)
        surprise = -np.log(np.maximum((likely * target).sum(axis=1), 1e-12))
        gradient = ((likely - target) * weight[:, None]).T @ x / total + _PENALTY * w
        value = float((surprise * weight).sum()) / total + 0.5 * _PENALTY * float((w * w).sum())
        return value, gradient.ravel().astype(np.float64)

    start = np.zeros(classes * x.shape[1])
    result = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 150, "maxcor": 8})
    weights: Floats = result.x.reshape(classes, -1).astype(np.float32)
    return weights


class _Data:
    """Every sentence with its slips as features, and which sentence each row belongs to."""

    def __init__(self, sentences: Mapping[str, Sequence[str]], encoder: Encoder, cache: Path | None) -> None:
        import numpy as np

        self.labels = sorted(sentences)
        chance = random.Random(0)
        self.said = [(label, one) for label in self.labels for one in sentences[label]]
        rows = [(text, i, k) for i, (_, one) in enumerate(self.said) for k, text in enumerate([one, *slips(one, chance)])]
        known = dict(np.load(cache)) if cache and cache.exists() else {}
        made = {}
        for text, _, _ in rows:
            key = hashlib.sha256(text.encode()).hexdigest()[:24]
            made[key] = known[key] if key in known else features_of(slots_of(text), encoder).astype(np.float16)
        if cache:
            np.savez(cache, **made)
        keys = [hashlib.sha256(text.encode()).hexdigest()[:24] for text, _, _ in rows]
        self.x: Floats = np.stack([made[key] for key in keys]).astype(np.float32)
        self.of = np.array([i for _, i, _ in rows])
        self.plain = np.array([k == 0 for _, _, k in rows])
        self.y = np.array([self.labels.index(self.said[i][0]) for i in self.of])
        self.weight = np.where(self.plain, 1.0, 0.4).astype(np.float32)


def unseen(data: _Data) -> tuple[Floats, Floats]:
    """The probabilities of every plain sentence, and of every slip, by heads that had not seen the sentence."""
    import numpy as np

    fold = np.array([int(hashlib.sha256(one.encode()).hexdigest(), 16) % _FOLDS for _, one in data.said])
    likely = np.zeros((len(data.y), len(data.labels)), np.float32)
    for k in range(_FOLDS):
        test = fold[data.of] == k
        w = fitted(data.x[~test], data.y[~test], len(data.labels), data.weight[~test])
        scores = data.x[test] @ w.T
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely[test] = scores / scores.sum(axis=1, keepdims=True)
    return likely, likely.argmax(axis=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print what the folds say, write the head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(str(_file("head.npz"))))
    parser.add_argument("--cache", type=Path, help="where features of sentences are kept between trainings")
    parser.add_argument("--no-folds", action="store_true", help="keep the threshold that the head in the package has")
    parser.add_argument("--show", action="store_true", help="print what the folds get wrong")
    args = parser.parse_args(argv)
    sentences = intents()
    data = _Data(sentences, Encoder(), args.cache)
    threshold = _examined(data, args.show) if not args.no_folds else 0.5
    write(args.out, data, sentences, threshold)
    return 0


def _examined(data: _Data, show: bool) -> float:
    import numpy as np

    likely, best = unseen(data)
    kinds = [kind_of(label) for label in data.labels]
    names = sorted(set(kinds))
    member = np.array([[kind == name for kind in kinds] for name in names], np.float32)
    by_kind = likely @ member.T
    right = np.array([names[i] for i in by_kind.argmax(axis=1)]) == np.array([kinds[i] for i in data.y])
    sure = by_kind.max(axis=1)
    plain = data.plain
    print(f"{plain.sum()} sentences, {len(data.labels)} labels, {len(names)} kinds")
    print(f"label right {np.mean((best == data.y)[plain]):.1%}, kind right {np.mean(right[plain]):.1%}, with slips "
          f"{np.mean(right[~plain]):.1%}")  # fmt: skip
    threshold = 0.99
    for at in np.arange(0.95, 0.15, -0.05):
        answered = plain & (sure >= at)
        wrong = 1 - np.mean(right[answered]) if answered.any() else 0.0
        print(f"  from {at:.2f}: answers {answered.sum() / plain.sum():.1%}, of those wrong {wrong:.1%}")
        if wrong <= _WRONG_MOST:
            threshold = float(at)
    if show:
        for i in np.flatnonzero(plain & ~right):
            guess = data.labels[best[i]]
            print(f"  {data.labels[data.y[i]]:24} → {guess:24} {sure[i]:.2f}  {data.said[data.of[i]][1]}")
    print(f"threshold {threshold:.2f}")
    return threshold


def write(out: Path, data: _Data, sentences: Mapping[str, Sequence[str]], threshold: float) -> None:
    """Train on everything and write the head: int8 weights with a scale per label, and what belongs to it as JSON."""
    import numpy as np

    weights = fitted(data.x, data.y, len(data.labels), data.weight)
    scales = np.abs(weights).max(axis=1) / 127
    about = {
        "labels": data.labels,
        "threshold": threshold,
        "fingerprint": fingerprint(),
        "examples": {label: list(said) for label, said in sentences.items()},
        "own_words": own_words(sentences),
    }
    raw = np.frombuffer(json.dumps(about, ensure_ascii=False, sort_keys=True).encode(), np.uint8)
    np.savez_compressed(
        out, weights=np.round(weights / scales[:, None]).astype(np.int8), scales=scales.astype(np.float32), about=raw
    )
    print(f"{out.name}: {out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    sys.exit(main())
