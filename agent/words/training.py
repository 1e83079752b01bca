"""Train the head from the sentences in intents/: `make words`, some minutes on two cores, the same every time.

Softmax regression with an L2 penalty by L-BFGS. First every fifth of the sentences is read by a head that learned from
the others, near copies of one another in the same fifth: what it gets right of them is printed, and the threshold is
the least from which the share that is right is WANTED. Then a head learns from all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.agent.words.encoder import WIDTH, Encoder
from tunesmith.agent.words.lexicon import lexicon, words_of
from tunesmith.agent.words.reading import canonical, flags_of, kind_of, possible, vocabulary_of
from tunesmith.agent.words.slots import empty_words, slots_of
from tunesmith.tools.core.yaml_file import read_own

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

WANTED = 0.95
"""Share of what the head answers by itself that must name the right kind, in cross-validation."""
_PENALTY, _STEPS = 3e-6, 90
_FOLDS = 5
_NEAR_COPY = 0.75
"""Cosine between two centred embeddings from which sentences of a label are near copies."""

_SHARED_BY, _OFTEN = 2, 5
"""How many sentences of a label hold a word that belongs to how it is said; more where texts are looked for."""
_ABOUT_TEXTS = ("case", "row")


def intents() -> dict[str, list[str]]:
    """Label → its sentences, from every file of intents/."""
    found: dict[str, list[str]] = {}
    for file in _files():
        for label, sentences in read_own(file).items():
            found.setdefault(str(label), []).extend(str(sentence) for sentence in sentences)
    return found


def source(name: str) -> Traversable:
    """A file of this package."""
    return files("tunesmith.agent.words") / name


def _files() -> list[Traversable]:
    return sorted((f for f in source("intents").iterdir() if f.name.endswith(".yaml")), key=lambda file: file.name)


def fingerprint() -> str:
    """Of the sentences: the head in the package must have it."""
    digest = hashlib.sha256()
    for file in _files():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def own_words(sentences: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Label → the words with a content that at least two of its sentences hold: how it is said, no argument of it."""
    found, no_way = {}, {*empty_words(), *lexicon()["unspoken"].words()}
    for label, said in sentences.items():
        count = Counter(word for s in said for word in {w.text for w in words_of(s)} - no_way)
        least = _OFTEN if label.partition(".")[0] in _ABOUT_TEXTS else _SHARED_BY
        if words := sorted(word for word, n in count.items() if n >= least and not word.isdigit()):
            found[label] = " ".join(words)
    return found


def fitted(x: Floats, y: NDArray[np.int64], classes: int) -> Floats:
    """The weights of the softmax layer and its bias: classes × (features + 1)."""
    import numpy as np
    from scipy.optimize import minimize

    wanted = np.zeros((len(y), classes), np.float32)
    wanted[np.arange(len(y)), y] = 1.0

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = flat.reshape(classes, -1).astype(np.float32)
        likely = likelihood(x, w)
        error = (likely - wanted) / len(y)
        gradient = np.hstack([error.T @ x + _PENALTY * w[:, :-1], error.sum(axis=0)[:, None]])
        surprise = -np.log(np.maximum((likely * wanted).sum(axis=1), 1e-12)).mean()
        return float(surprise) + 0.5 * _PENALTY * float((w[:, :-1] ** 2).sum()), gradient.ravel().astype(np.float64)

    start = np.zeros(classes * (x.shape[1] + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "maxcor": 6})
    weights: Floats = found.x.reshape(classes, -1).astype(np.float32)
    return weights


def likelihood(x: Floats, w: Floats) -> Floats:
    """The probability of each class for each row."""
    import numpy as np

    scores = x @ w[:, :-1].T + w[:, -1]
    likely: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    return likely


def features(said: Sequence[str], vocabulary: Sequence[str], cache: Path | None) -> Floats:
    """The embedding and the flags of each sentence. A cache keeps embeddings between trainings."""
    import numpy as np

    slots = [slots_of(one) for one in said]
    places = {word: place for place, word in enumerate(vocabulary)}
    plain = [canonical(one, places) for one in slots]
    known = dict(np.load(cache)) if cache and cache.exists() else {}
    keys = [hashlib.sha256(one.encode()).hexdigest()[:24] for one in plain]
    lacking = {key: text for key, text in zip(keys, plain, strict=True) if key not in known}
    known |= zip(lacking, Encoder().embed(list(lacking.values())), strict=True)
    if cache and lacking:
        np.savez(cache, **known)
    embedded = np.stack([known[key] for key in keys]).astype(np.float32)
    return np.hstack([embedded, np.stack([flags_of(one) for one in slots])])


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print what sentences that were left out say, write the head."""
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(str(source("head.npz"))))
    parser.add_argument("--cache", type=Path, help="where embeddings are kept between trainings")
    args = parser.parse_args(argv)
    sentences = intents()
    labels = sorted(sentences)
    said = [(label, one) for label in labels for one in sentences[label]]
    vocabulary = vocabulary_of(one for _, one in said)
    x, y = (
        features([one for _, one in said], vocabulary, args.cache),
        np.array([labels.index(label) for label, _ in said]),
    )
    mean, spread = x[:, :WIDTH].mean(axis=0), x[:, :WIDTH].std(axis=0) * WIDTH**0.5
    x[:, :WIDTH] = (x[:, :WIDTH] - mean) / spread
    likely, fold = np.zeros((len(y), len(labels)), np.float32), folds(x[:, :WIDTH], y)
    for one in range(_FOLDS):
        likely[fold == one] = likelihood(x[fold == one], fitted(x[fold != one], y[fold != one], len(labels)))
    threshold = calibrated(likely, y, labels)
    w = fitted(x, y, len(labels))
    own = w[:, :WIDTH] / spread  # the spread and the mean go into the weights and the bias
    weights, bias = np.hstack([own, w[:, WIDTH:-1]]), w[:, -1] - own @ mean
    scales = np.maximum(np.abs(weights).max(axis=1), 1e-12) / 127
    about = {"labels": labels, "threshold": threshold, "fingerprint": fingerprint(),
             "examples": sentences, "own_words": own_words(sentences), "vocabulary": " ".join(vocabulary)}  # fmt: skip
    raw = np.frombuffer(json.dumps(about, ensure_ascii=False, sort_keys=True).encode(), np.uint8)
    rounded = np.round(weights / scales[:, None]).astype(np.int8)
    np.savez_compressed(
        args.out, about=raw, bias=bias.astype(np.float32), weights=rounded, scales=scales.astype(np.float32)
    )
    print(f"{args.out}: {args.out.stat().st_size / 1024:.0f} KiB")
    return 0


def folds(embedded: Floats, y: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fifth that each sentence is left out with; near copies, and copies of these, have the same."""
    import numpy as np

    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    fold = np.zeros(len(y), np.int64)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        near, group = unit[own] @ unit[own].T >= _NEAR_COPY, np.arange(len(own))
        while (wider := np.where(near, group, len(own)).min(axis=1)).tolist() != group.tolist():
            group = wider
        fold[own] = (np.unique(group, return_inverse=True)[1] + label) % _FOLDS
    return fold


def calibrated(likely: Floats, y: NDArray[np.int64], labels: Sequence[str]) -> float:
    """The least probability from which the share that names the right kind is WANTED; prints what the head can do."""
    import numpy as np

    kinds = [kind_of(label) for label in labels]
    names = sorted(set(kinds))
    moments = np.array([_possible_beside(label, labels) for label in labels], np.float32)
    likely = likely * moments[y]
    likely /= likely.sum(axis=1, keepdims=True)
    by_kind = likely @ np.array([[kind == name for name in names] for kind in kinds], np.float32)
    right = by_kind.argmax(axis=1) == np.array([names.index(kinds[i]) for i in y])
    whole = likely.argmax(axis=1) == y
    print(f"of {len(y)} sentences, each left out once: label {whole.mean():.1%}, kind {right.mean():.1%} right")
    best, order = by_kind.max(axis=1), np.argsort(-by_kind.max(axis=1), kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(y) + 1)
    threshold = float(best[order[np.flatnonzero(share >= WANTED)[-1]]])
    for at in sorted((0.5, 0.6, 0.7, 0.8, 0.9, threshold)):
        has = best >= at
        shares = f"right kind {right[has].mean():.1%}, label {whole[has].mean():.1%}"
        print(f"  from {at:.2f}: answers {has.mean():.1%}; {shares}")
    return round(threshold, 3)


def _possible_beside(label: str, labels: Sequence[str]) -> list[bool]:
    """Which labels are possible where words with this one are said."""
    family = label.partition(".")[0]
    moment = {"planned": family == "plan", "describing": family == "describe", "follows": family == "follow"}
    return [possible(other, **moment) for other in labels]


if __name__ == "__main__":
    sys.exit(main())
