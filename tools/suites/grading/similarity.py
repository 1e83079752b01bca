"""Assertions of nearness to a reference text: edit distance and n-gram overlap."""

from __future__ import annotations

import re
from collections import Counter

from tunesmith.tools.suites.grading import javascript as js
from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Response, assertion_type

MAX_CELLS = 10**10
"""Pairs of characters that an edit distance compares: a second or so, 64 at a time."""


def _need_string(assertion: Assertion) -> None:
    if not isinstance(assertion.value, str):
        raise ValueError(f"{assertion.type} needs a value in text; put it in quotes")


def _at_least(assertion: Assertion, score: float, default: float, name: str) -> Finding:
    threshold = default if assertion.threshold is None else assertion.threshold
    expected = f"reach {name} {threshold:g}"
    return Finding(score >= threshold, expected, f"{score:.3f}", score, 1 - score)


@assertion_type("levenshtein", check=_need_string)
def levenshtein(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """Edit distance at most `threshold` (promptfoo's: 5), counted in UTF-16 units as JavaScript does."""
    from rapidfuzz.distance import Levenshtein

    limit = 5 if assertion.threshold is None else assertion.threshold
    ours, theirs = js.utf16_units(response.output_text), js.utf16_units(assertion.text)
    if len(ours) * len(theirs) > MAX_CELLS:
        raise js.CannotGrade(f"levenshtein: {len(ours)} characters against {len(theirs)}; use rouge-n for long texts")
    distance = Levenshtein.distance(ours, theirs)
    return Finding(distance <= limit, f"be within {limit:g} edits of the value", f"{distance}")


@assertion_type("rouge-n", check=_need_string, is_share=True)
def rouge_n(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """ROUGE-1 as an F-score over clipped counts, lower-cased, at least `threshold` (promptfoo's: 0.75). Lin 2004."""
    score = rouge_score(response.output_text.lower(), assertion.text.lower())
    return _at_least(assertion, score, 0.75, "ROUGE-N")


def rouge_score(candidate: str, reference: str) -> float:
    """F1 of unigram overlap, each token counted at most as often as the other text has it (Lin 2004)."""
    ours, theirs = treebank_tokens(candidate), treebank_tokens(reference)
    overlap = (Counter(ours) & Counter(theirs)).total()
    if not overlap:
        return 0.0
    low, high = sorted((overlap / len(ours), overlap / len(theirs)))
    # The harmonic mean, in the order of operations that keeps the last bit the same as promptfoo's.
    return low if low == high else min(high, low * (2 / (1 + low / high)))


# The Penn Treebank's tokenizer conventions (MacIntyre 1995): quotes, punctuation, then clitics.
_TREEBANK = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"``", " `` "),
        (r'(^|[\s(\[{<])"(?=\S)', r"\1 `` "),
        (r"\"|''", " '' "),
        (r"\.{3}", " ... "),
        (r"[:,](?!\d)", r" \g<0> "),
        (r"[;@#$%&]", r" \g<0> "),
        (r"([^.])(?<!\b[A-Za-z]\.[A-Za-z])(\.)([\])}>'\s]*)$", r"\1 \2\3 "),
        (r"[?!]", r" \g<0> "),
        (r"[\]\[(){}<>]", r" \g<0> "),
        (r"--", " -- "),
        (r"^|$", " "),
        (r"([^'])' ", r"\1 ' "),
        (r"'([smd]) ", r" '\1 "),
        (r"('ll|'re|'ve|n't) ", r" \1 "),
        (r"\b(can)(not)\b", r"\1 \2"),
        (r"\b(d)('ye)\b", r"\1 \2"),
        (r"\b(gim|lem)(me)\b", r"\1 \2"),
        (r"\b(gon)(na)\b", r"\1 \2"),
        (r"\b(got)(ta)\b", r"\1 \2"),
        (r"\b(wan)(na)(?= )", r"\1 \2"),
        (r"\b(more)('n)\b", r"\1 \2"),
        (r"(?<!\w)('t)(is|was)\b", r"\1 \2"),
    )
]


def treebank_tokens(text: str) -> list[str]:
    """Words and punctuation in the manner of the Penn Treebank."""
    text = " ".join(js.words(text.replace("\x85", " ")))
    if not text:
        return []
    for pattern, replacement in _TREEBANK:
        text = pattern.sub(replacement, text)
    return [token for token in text.split(" ") if token]
