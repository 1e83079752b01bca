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
    languages: Mapping[str, Mapping[str, str]]
    """Language → its words of this trade in English."""
    sure: Mapping[str, re.Pattern[str]]
    """Language → words by which a sentence is known to be in it."""


@cache
def vocabulary() -> Vocabulary:
    """The words that sentences are understood by, read once."""
    page = yaml.safe_load((files("tunesmith.prompts") / "vocabulary.yaml").read_text())
    terms, ordinary, common = (page[name].split() for name in ("terms", "ordinary", "common"))
    languages = page["languages"]
    return Vocabulary(
        tuple(terms),
        frozenset(ordinary),
        frozenset(common),
        {name: dict(one["words"]) for name, one in languages.items()},
        {name: re.compile(one["sure"]) for name, one in languages.items()},
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
    (re.compile(r"\b(i|we|you|they)'d\b"), r"\1 would"),
    (re.compile(r"\b(i|we|you|they)'ve\b"), r"\1 have"),
    (re.compile(r"\b(it|that)'s\b"), r"\1 is"),
    (re.compile(r"\bpls\b|\bplz\b"), "please"),
    (re.compile(r"\bu\b"), "you"),
    (re.compile(r"\br\b(?= (?:you|u|there|we)\b)"), "are"),
    (re.compile(r"\benuf\b"), "enough"),
    (re.compile(r"\bhow(?=(?:many|much|long|big|well|fast)\b)"), "how "),
    (re.compile(r"\b(?:ru|r u)\b"), "are you"),
    (re.compile(r"\bgonna\b"), "going to"),
    (re.compile(r"\bwanna\b"), "want to"),
    (re.compile(r"\bquantis"), "quantiz"),
    (re.compile(r"\bfine[ -]?tun"), "finetun"),
    (re.compile(r"\bbehavior"), "behaviour"),
    (re.compile(r"\badaptor"), "adapter"),
    (re.compile(r"\bwich\b|\bwhic\b"), "which"),
    (re.compile(r"\bgraphic card"), "graphics card"),
    (re.compile(r"\bvs\.?(?=\s|$)|\bversus\b"), "vs"),
)
_WORD = re.compile(r"[^\W\d_]{3,}")
_SHORT_WORDS = [
    "how",
    "what",
    "when",
    "where",
    "which",
    "why",
    "the",
    "and",
    "with",
    "show",
    "does",
    "much",
    "many",
    "long",
]
_INFLECTED = frozenset(["s", "es", "d", "ed", "r", "er", "rs", "ers", "ing", "ings", "ly", "al", "or", "ive"])


def readable(text: str) -> str:
    """The sentence in small letters and one space, its short forms written out, misspelt terms put right."""
    plain = " ".join(text.replace("’", "'").lower().split())
    plain = _in_english(plain)
    for form, written in _SHORT_FORMS:
        plain = form.sub(written, plain)
    return _WORD.sub(lambda match: _put_right(match[0]), plain)


def _in_english(text: str) -> str:
    """The words of the language that a sentence is in, put into English; unchanged in one that is not known."""
    language = next((name for name, sure in vocabulary().sure.items() if sure.search(text)), "")
    if not language:
        return text
    pattern, english = _dictionary(language)
    return pattern.sub(lambda match: english[match.lastgroup or ""], text)


@cache
def _dictionary(language: str) -> tuple[re.Pattern[str], Mapping[str, str]]:
    """All words of a language as one pattern, the longest first, and what each of its groups is in English."""
    known = vocabulary().languages[language]
    longest = sorted(known, key=len, reverse=True)
    groups = {f"w{number}": word for number, word in enumerate(longest)}
    pattern = "|".join(f"(?P<{group}>{word})" for group, word in groups.items())
    return re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])"), {group: known[word] for group, word in groups.items()}


@cache
def _put_right(word: str) -> str:
    """The term that a word misspells; the word itself where it is one, or near none."""
    known = vocabulary()
    if word in known.terms or word in known.ordinary:
        return word
    if len(word) < 5:
        return _transposed().get(word, word)
    swapped = [term for term in known.terms if _two_swapped(word, term)]
    if swapped:
        return swapped[0]
    nearest = process.extractOne(word, known.terms, scorer=fuzz.ratio, score_cutoff=86)
    if (
        nearest is None
        or abs(len(nearest[0]) - len(word)) > 2
        or word[0] != nearest[0][0]
        or _inflected(word, nearest[0])
    ):
        return word
    return nearest[0]


def _two_swapped(word: str, term: str) -> bool:
    """Whether a word is a term with two neighbouring letters the wrong way round."""
    differ = [at for at, (one, other) in enumerate(zip(word, term, strict=False)) if one != other]
    return (
        len(word) == len(term)
        and len(differ) == 2
        and word[differ[0]] == term[differ[1]]
        and (differ[1] - differ[0] == 1 and word[differ[1]] == term[differ[0]])
    )


def _inflected(one: str, other: str) -> bool:
    """Whether two words are forms of one, such as `write` and `writer`: neither misspells the other."""
    short, long = sorted((one, other), key=len)
    stem = short.removesuffix("e")
    return (long.startswith(short) and long[len(short) :] in _INFLECTED) or (
        long.startswith(stem) and long[len(stem) :] in _INFLECTED and stem != long
    )


@cache
def _transposed() -> Mapping[str, str]:
    """Short words with two letters the wrong way round, as fast fingers type them: `hwo`, `teh`."""
    return {
        word[:at] + word[at + 1] + word[at] + word[at + 2 :]: word
        for word in _SHORT_WORDS
        for at in range(len(word) - 1)
        if word[at] != word[at + 1]
    }
