"""Train the reader from the sentences in intents/ and moments/: `make words`, an hour and a half on two cores.

First a fifth of the sentences is left out, near copies of one another together, and read by what learned from the
others: what it gets right is printed, and the threshold is the least from which the share that is right is WANTED. Then
a reader learns from all.

With --layer the encoder and the threshold stay as they are, and the layer and the neighbours learn from all: some
minutes, for a few new questions. With --more the encoder goes on from where it is, two epochs over all, and the
threshold stays: a quarter of an hour, for a few thousand new sentences.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, get_args
from zipfile import ZIP_DEFLATED, ZipFile

from rapidfuzz.distance import OSA

from tests.words.tuning import Sentences, Tuned, Tuning, layer_alone
from tunesmith.agent.words.encoder import Encoder
from tunesmith.agent.words.head import NOTHING, Head, Moment, flags_of, kind_of, possible
from tunesmith.agent.words.lexicon import lexicon, words_of
from tunesmith.agent.words.neighbours import AXES, Neighbours
from tunesmith.agent.words.slots import empty_words, slots_of
from tunesmith.agent.words.spelling import SHORTEST_SWAPPED, canonical
from tunesmith.tools.core.yaml_file import read_own

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

HERE = Path(__file__).parent
WANTED = 0.95
"""Share of what the head answers by itself that must name the right kind, in cross-validation."""
_FOLDS = 5
"""Each sentence is read once by what learned from the other four fifths."""
_NEAR_COPY = 0.75
"""Cosine between two centred embeddings from which sentences of a label are near copies: these go into one fold, or a
copy would be learned from."""

_SHARED_BY, _OFTEN = 2, 5
"""How many sentences of a label hold a word that belongs to how it is said; more where texts are looked for."""
_ABOUT_TEXTS = ("case", "row")
_IN_SENTENCES, _SLIP = 3, 50
"""How many sentences hold a word that a misspelt one is put right to; and how many times as frequent as a word is what
has the same letters but for two, from which that is a slip of it: `whcih`."""


def intents() -> dict[str, list[str]]:
    """Label → its sentences, from every file of intents/ and moments/."""
    by_label: dict[str, list[str]] = {}
    for file in _files("intents", "moments"):
        for label, sentences in _sentences_of(file).items():
            by_label.setdefault(label, []).extend(sentences)
    return by_label


def moments() -> dict[str, dict[str, list[str]]]:
    """Moment → label → the sentences that were said at it, from moments/."""
    return {file.stem: _sentences_of(file) for file in _files("moments")}


def _sentences_of(file: Path) -> dict[str, list[str]]:
    return {str(label): [str(one) for one in sentences] for label, sentences in read_own(file).items()}


def _files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (HERE / folder).glob("*.yaml"))


def fingerprint() -> str:
    """Of the sentences: the head in the package must have it."""
    digest = hashlib.sha256()
    for file in _files("intents", "moments"):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def own_words(sentences: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Label → the words with a content that at least two of its sentences hold: how it is said, no argument of it."""
    by_label, no_way = {}, {*empty_words(), *lexicon()["unspoken"].words()}
    for label, of_label in sentences.items():
        count = Counter(word for s in of_label for word in {w.text for w in words_of(s)} - no_way)
        least = _OFTEN if label.partition(".")[0] in _ABOUT_TEXTS else _SHARED_BY
        if words := sorted(word for word, n in count.items() if n >= least and not word.isdigit()):
            by_label[label] = " ".join(words)
    return by_label


def vocabulary_of(sentences: Iterable[str]) -> list[str]:
    """The words that several of these sentences hold, the most frequent first: what a misspelt one may be meant for."""
    count = Counter(
        word.written for one in sentences for word in words_of(one) if len(word.written) >= SHORTEST_SWAPPED
    )
    often = [word for word, n in count.most_common() if n >= _IN_SENTENCES and word.isalpha()]
    by_letters: dict[str, list[str]] = {}
    for word in often:
        by_letters.setdefault("".join(sorted(word)), []).append(word)
    slips = {
        two
        for alike in by_letters.values()
        for one, two in combinations(alike, 2)
        if count[one] >= _SLIP * count[two] and OSA.distance(one, two) == 1
    }
    return [word for word in often if word not in slips]


def neighbours_of(embedded: Floats, labels: NDArray[np.int64]) -> Neighbours:
    """Of examples × width, and their labels' numbers; rounded as it is stored."""
    import numpy as np

    spread = embedded.std(axis=0)
    standard = (embedded - embedded.mean(axis=0)) / spread
    _, directions = np.linalg.eigh(standard.T @ standard)
    axes = (directions[:, ::-1].T[:AXES] / spread).astype(np.float16)
    along = embedded @ axes.astype(np.float32).T
    origin = along.mean(axis=0)
    scales = 127 / np.abs(along - origin).max(axis=1, keepdims=True)  # one byte a number
    rounded = np.round((along - origin) * scales).astype(np.int8)
    return Neighbours.stored({"axes": axes, "origin": origin, "places": rounded}, labels)


def arrays_of(near: Neighbours) -> dict[str, NDArray[np.generic]]:
    """As head.npz holds it: places are whole numbers up to 127."""
    import numpy as np

    scales = 127 / np.abs(near.places).max(axis=1, keepdims=True)  # one byte a number
    places = np.round(near.places * scales).astype(np.int8)
    return {"axes": near.axes.astype(np.float16), "origin": near.origin, "places": places}


def prepared(
    texts: Sequence[str], numbers: NDArray[np.int64], vocabulary: Sequence[str], encoder: Encoder
) -> Sentences:
    """The sentences as the encoder and the head take them."""
    import numpy as np

    slots = [slots_of(one) for one in texts]
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
    return neighbours_of(encoder.embed_ids(learned.ids), learned.labels).beside(likely, embedded)


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence of intents/ or moments/."""

    label: str
    text: str
    moment: str = ""
    """At which it was said; empty: at any."""
    also: str = ""
    """A label under which it is answered as well; empty: none is known."""


def all_examples() -> list[Example]:
    """Every sentence, those of one label together, as the stored head counts them."""
    of_moments = [
        Example(label, one, at) for at, labels in moments().items() for label in labels for one in labels[label]
    ]
    at_one = {(one.label, one.text): one.moment for one in of_moments}
    also, examples = read_own(HERE / "also.yaml"), intents()
    return [
        Example(label, one, at_one.get((label, one), ""), str(also.get(one, "")))
        for label in sorted(examples)
        for one in examples[label]
    ]


def moment_factors(labelled: Sequence[Example], labels: Sequence[str]) -> dict[str, Floats]:
    """Moment → of every label, how many times as often its kind is said then as at any: an event of a Poisson count,
    with one more seen and expected, so that what is rare is left as it is."""
    import numpy as np

    timed = [one for one in labelled if one.moment]
    of_kind = Counter(kind_of(one.label) for one in timed)
    factors = {}
    for moment in get_args(Moment):
        then = Counter(kind_of(one.label) for one in timed if one.moment == moment)
        share = then.total() / max(1, len(timed))
        kinds = [kind_of(label) for label in labels]
        factors[moment] = np.array([(then[kind] + 1) / (of_kind[kind] * share + 1) for kind in kinds], np.float32)
    return factors


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print what sentences that were left out say, write the head."""
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(str(files("tunesmith.agent.words") / "head.npz")))
    parser.add_argument("--layer", action="store_true", help="leave the encoder and the threshold as they are")
    parser.add_argument("--more", action="store_true", help="have the encoder go on from what it learned")
    args = parser.parse_args(argv)
    examples, labelled = intents(), all_examples()
    labels = sorted(examples)
    vocabulary = vocabulary_of(one.text for one in labelled)
    numbers = np.array([labels.index(one.label) for one in labelled])
    encoder = Encoder()
    sentences = prepared([one.text for one in labelled], numbers, vocabulary, encoder)
    print(f"{len(labelled)} sentences of {len(labels)} labels", flush=True)
    if args.more:
        before = Head.load()
        tuned = Tuning(encoder, sentences).learned(np.arange(len(labelled)), before=before.added)
        threshold, embedded = before.threshold, Encoder(added=tuned.added).embed_ids(sentences.ids)
    elif args.layer:
        before = Head.load()
        embedded = Encoder(added=before.added).embed_ids(sentences.ids)
        tuned, threshold = layer_alone(before.added, embedded, sentences), before.threshold
    else:
        fold, tuning = folds(encoder.embed_ids(sentences.ids), numbers), Tuning(encoder, sentences)
        left_out, taught = np.flatnonzero(fold == 0), np.flatnonzero(fold != 0)
        tuned = tuning.learned(taught)
        likely = likelihood(Encoder(added=tuned.added), tuned, sentences.some(left_out), sentences.some(taught))
        factors = moment_factors([labelled[i] for i in taught], labels)
        threshold = calibrated(likely, [labelled[i] for i in left_out], labels, factors)
        tuned = tuning.learned(np.arange(len(labelled)))
        embedded = Encoder(added=tuned.added).embed_ids(sentences.ids)
    scales = np.maximum(np.abs(tuned.weights).max(axis=1), 1e-12) / 127  # no division by zero; one byte a number
    about = {"labels": labels, "threshold": threshold, "fingerprint": fingerprint(),
             "examples": examples, "own_words": own_words(examples), "vocabulary": " ".join(vocabulary)}  # fmt: skip
    arrays = {
        "about": np.frombuffer(json.dumps(about, ensure_ascii=False, sort_keys=True).encode(), np.uint8),
        "bias": tuned.bias.astype(np.float32),
        "weights": np.round(tuned.weights / scales[:, None]).astype(np.int8),
        "scales": scales.astype(np.float32),
        **{f"moment.{name}": array for name, array in moment_factors(labelled, labels).items()},
        **tuned.added,
        **arrays_of(neighbours_of(embedded, numbers)),
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


def calibrated(
    likely: Floats, labelled: Sequence[Example], labels: Sequence[str], factors: Mapping[str, Floats]
) -> float:
    """The least probability from which the share that names the right kind is WANTED, of what strangers said at a
    moment; prints what the head can do. What there is no answer for is wrong whatever is answered."""
    import numpy as np

    kinds = [kind_of(label) for label in labels]
    names = sorted(set(kinds))
    likely = likely * np.stack([_possible_beside(one, labels, factors) for one in labelled])
    likely /= likely.sum(axis=1, keepdims=True)
    by_kind = likely @ np.array([[kind == name for name in names] for kind in kinds], np.float32)
    read = [names[i] for i in by_kind.argmax(axis=1)]
    right = np.array(
        [name in (kind_of(one.label), kind_of(one.also)) for name, one in zip(read, labelled, strict=True)]
    )
    best = np.where([name == NOTHING for name in read], 0.0, by_kind.max(axis=1))
    whole = np.array([labels[i] == one.label for i, one in zip(likely.argmax(axis=1), labelled, strict=True)])
    timed = np.array([one.moment != "" for one in labelled])
    order = np.argsort(-best[timed], kind="stable")
    share = np.cumsum(right[timed][order]) / np.arange(1, timed.sum() + 1)
    threshold = float(best[timed][order[np.flatnonzero(share >= WANTED)[-1]]])
    for what, some in (("of intents/", ~timed), ("of moments/", timed)):
        print(f"{some.sum()} sentences {what}, each left out once: label {whole[some].mean():.1%}, "
              f"kind {right[some].mean():.1%} right")  # fmt: skip
        for at in sorted((0.5, 0.6, 0.7, 0.8, 0.9, threshold)):
            has = some & (best >= at)
            shares = f"right kind {right[has].mean():.1%}, label {whole[has].mean():.1%}"
            print(f"  from {at:.2f}: answers {has.sum() / some.sum():.1%}; {shares}")
    return round(threshold, 3)


def _possible_beside(example: Example, labels: Sequence[str], factors: Mapping[str, Floats]) -> Floats:
    """How much likelier each label is where this was said; 0 for what is not possible there."""
    import numpy as np

    family = example.label.partition(".")[0]
    moment = {"planned": example.moment in ("planned", "price") or family == "plan", "describing": family == "describe"}
    open_ = [possible(other, **moment, follows=family == "follow") for other in labels]
    possible_: Floats = np.array(open_, np.float32) * factors.get(example.moment, 1.0)
    return possible_


if __name__ == "__main__":
    sys.exit(main())
