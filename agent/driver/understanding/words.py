"""A sentence made readable: small letters, no misspelt terms, the German words of this trade in English.

Only for understanding. What is written down, searched for or put into a request is always the user's own text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml
from rapidfuzz import fuzz, process


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of prompts/vocabulary.yaml."""

    terms: tuple[str, ...]
    ordinary: frozenset[str]
    common: frozenset[str]
    german: Mapping[str, str]


@cache
def vocabulary() -> Vocabulary:
    """The words that sentences are understood by, read once."""
    held = yaml.safe_load((files("tunesmith.prompts") / "vocabulary.yaml").read_text())
    terms, ordinary, common = (held[name].split() for name in ("terms", "ordinary", "common"))
    return Vocabulary(tuple(terms), frozenset(ordinary), frozenset(common), dict(held["german"]))


_SURELY_GERMAN = re.compile(
    r"\b(?:wie|warum|wieso|welche[rsn]?|wer|wann|zeig\w*|läuft|laeuft|reicht|hat|ist|sind|bitte|"
    r"danke|hallo|vergleiche|"
    r"trainiere|quantisiere|bewerte|das|der|die|und|ich|kann|gibt|kostet|hilfe|tschüss)\b"
)
_SHORT_FORMS = (
    (re.compile(r"\bwhat'?s\b|\bwhats\b"), "what is"),
    (re.compile(r"\bhow'?s\b|\bhows\b"), "how is"),
    (re.compile(r"\bwhere'?s\b|\bwheres\b"), "where is"),
    (re.compile(r"\bwho'?s\b|\bwhos\b"), "who is"),
    (re.compile(r"\bdid ?n'?t\b"), "did not"),
    (re.compile(r"\bdoes ?n'?t\b"), "does not"),
    (re.compile(r"\bdo ?n'?t\b"), "do not"),
    (re.compile(r"\bis ?n'?t\b"), "is not"),
    (re.compile(r"\bwas ?n'?t\b"), "was not"),
    (re.compile(r"\bca ?n'?t\b|\bcannot\b"), "can not"),
    (re.compile(r"\bwo ?n'?t\b"), "will not"),
    (re.compile(r"\bi'?m\b"), "i am"),
    (re.compile(r"\bpls\b|\bplz\b"), "please"),
    (re.compile(r"\bu\b"), "you"),
    (re.compile(r"\br\b(?= (?:you|u|there|we)\b)"), "are"),
    (re.compile(r"\benuf\b"), "enough"),
    (re.compile(r"\bgonna\b"), "going to"),
    (re.compile(r"\bwanna\b"), "want to"),
    (re.compile(r"\bquantis"), "quantiz"),
    (re.compile(r"\bfine[ -]?tun"), "finetun"),
    (re.compile(r"\bbehavior"), "behaviour"),
    (re.compile(r"\bvs\.?(?=\s|$)|\bversus\b"), "vs"),
)
_WORD = re.compile(r"[^\W\d_]{5,}")


def readable(text: str) -> str:
    """The sentence in small letters and one space, its short forms written out, misspelt terms put right."""
    plain = " ".join(text.replace("’", "'").lower().split())
    plain = _in_english(plain)
    for form, written in _SHORT_FORMS:
        plain = form.sub(written, plain)
    return _WORD.sub(lambda found: _put_right(found[0]), plain)


def _in_english(text: str) -> str:
    if len(_SURELY_GERMAN.findall(text)) < 2 and not re.search(r"\b(?:wie|warum|welche\w?|zeig|läuft|reicht)\b", text):
        return text
    known = vocabulary().german
    for german in sorted(known, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){german}(?![\w-])", known[german], text)
    return text


@cache
def _put_right(word: str) -> str:
    """The term that a word misspells; the word itself where it is one, or near none."""
    known = vocabulary()
    if word in known.terms or word in known.ordinary:
        return word
    found = process.extractOne(word, known.terms, scorer=fuzz.ratio, score_cutoff=86)
    if found is None or abs(len(found[0]) - len(word)) > 2 or word[0] != found[0][0]:
        return word
    return found[0]
