"""Train the reader from the sentences in intents/: `make words`, half an hour on two cores.

First a fifth of the sentences is left out, near copies of one another together, and read by what learned from the
others: what it gets right is printed, and the threshold is the least from which the share that is right is WANTED. Then
a reader learns from all.
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
from zipfile import ZIP_DEFLATED, ZipFile

from tunesmith.agent.words.encoder import Encoder
from tunesmith.agent.words.lexicon import lexicon, words_of
from tunesmith.agent.words.neighbours import Neighbours
from tunesmith.agent.words.reading import flags_of, kind_of, possible
from tunesmith.agent.words.slots import empty_words, slots_of
from tunesmith.agent.words.spelling import canonical, vocabulary_of
from tunesmith.tools.core.yaml_file import read_own

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tunesmith.agent.words.tuning import Sentences, Tuned

    Floats = NDArray[np.float32]

WANTED = 0.95
"""Share of what the head answers by itself that must name the right kind, in cross-validation."""
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


def prepared(said: Sequence[str], numbers: NDArray[np.int64], vocabulary: Sequence[str], encoder: Encoder) -> Sentences:
    """The sentences as the encoder and the head take them."""
    import numpy as np

    from tunesmith.agent.words.tuning import Sentences

    slots = [slots_of(one) for one in said]
    places = {word: place for place, word in enumerate(vocabulary)}
    ids = [encoder.token_ids(canonical(one, places)) for one in slots]
    return Sentences(ids, np.stack([flags_of(one) for one in slots]), numbers, int(numbers.max()) + 1)


def likelihood(encoder: Encoder, tuned: Tuned, sentences: Sentences, learned: Sentences) -> Floats:
    """The probability of each label for each sentence, as a reader computes it that learned from others.

    `encoder` has what was learned added to it.
    """
    import numpy as np

    embedded = encoder.embed_ids(sentences.ids)
    scores = np.hstack([embedded, sentences.flags]) @ tuned.weights.T + tuned.bias
    likely: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    return Neighbours.of(encoder.embed_ids(learned.ids), learned.labels).beside(likely, embedded)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print what sentences that were left out say, write the head."""
    import numpy as np

    from tunesmith.agent.words.tuning import Tuning

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(str(source("head.npz"))))
    args = parser.parse_args(argv)
    examples = intents()
    labels = sorted(examples)
    said = [(label, one) for label in labels for one in examples[label]]
    vocabulary = vocabulary_of(one for _, one in said)
    numbers = np.array([labels.index(label) for label, _ in said])
    encoder = Encoder()
    sentences = prepared([one for _, one in said], numbers, vocabulary, encoder)
    fold = folds(encoder.embed_ids(sentences.ids), numbers)
    tuning, left_out = Tuning(encoder, sentences), np.flatnonzero(fold == 0)
    print(f"{len(said)} sentences of {len(labels)} labels; {len(left_out)} of them are left out first", flush=True)
    tuned = tuning.learned(taught := np.flatnonzero(fold != 0))
    held_out = sentences.some(left_out)
    likely = likelihood(Encoder(added=tuned.added), tuned, held_out, sentences.some(taught))
    threshold = calibrated(likely, held_out.labels, labels)
    tuned = tuning.learned(np.arange(len(said)))
    scales = np.maximum(np.abs(tuned.weights).max(axis=1), 1e-12) / 127
    about = {"labels": labels, "threshold": threshold, "fingerprint": fingerprint(),
             "examples": examples, "own_words": own_words(examples), "vocabulary": " ".join(vocabulary)}  # fmt: skip
    arrays = {
        "about": np.frombuffer(json.dumps(about, ensure_ascii=False, sort_keys=True).encode(), np.uint8),
        "bias": tuned.bias.astype(np.float32),
        "weights": np.round(tuned.weights / scales[:, None]).astype(np.int8),
        "scales": scales.astype(np.float32),
        **tuned.added,
        **Neighbours.of(Encoder(added=tuned.added).embed_ids(sentences.ids), numbers).arrays(),
    }
    with ZipFile(args.out, "w", ZIP_DEFLATED) as packed:  # as numpy.savez does, whose names its types do not know
        for name, array in arrays.items():
            with packed.open(f"{name}.npy", "w") as opened:
                np.save(opened, array)
    print(f"{args.out}: {args.out.stat().st_size / 1024:.0f} KiB")
    return 0


def folds(embedded: Floats, y: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fifth that each sentence is left out with; near copies, and copies of these, have the same."""
    import numpy as np

    centred = (embedded - embedded.mean(axis=0)) / embedded.std(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
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
