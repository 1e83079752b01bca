"""What the reader is trained from: the sentences in intents/, and what is known of each label without training.

The training itself is `training_job`, which needs torch: `make words`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

import yaml

from tunesmith.agent.words.lexicon import words_of
from tunesmith.agent.words.slots import empty_words

_SHARED_BY, _OFTEN = 2, 5
"""How many sentences of a label hold a word that belongs to how it is said; more where texts are looked for."""
_ABOUT_TEXTS = ("case", "row")
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def intents() -> dict[str, list[str]]:
    """Label → its sentences, from every file of intents/."""
    found: dict[str, list[str]] = {}
    for file in _files():
        for label, sentences in yaml.load(file.read_text(encoding="utf-8"), _LOADER).items():
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
    found = {}
    for label, said in sentences.items():
        count = Counter(word for s in said for word in {w.text for w in words_of(s)} - empty_words())
        least = _OFTEN if label.partition(".")[0] in _ABOUT_TEXTS else _SHARED_BY
        if words := sorted(word for word, n in count.items() if n >= least and not word.isdigit()):
            found[label] = " ".join(words)
    return found
