"""What each sentence of a wish tells of a behaviour: which messages it is for, what the answer is, what it never is.

A small layer over the reader's embedding of a sentence and of its neighbours says it; openings.npz holds it, learned
from descriptions that people of many trades might have typed (tests/words/described): `make words`. What is kept of a
sentence is its own letters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.agent.words.reading import reader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

ROLES = ("when", "what", "both", "never", "example", "else")
"""Which messages it is for, or not for; what the answer is; both in one; what it must not be; a message with its
answer, or one of these; none of them."""
SENTENCES_MOST = 40
"""Sentences of one message: each costs some milliseconds."""
_ENDS = re.compile(r"(?<=[.!?…])[\"'”»’)\]]*\s+|\s*\n\s*|(?<=[。！？])")
_SHORT = re.compile(r"(?:\b\w\.\s?\w\.|^\d{1,2}\.|(?:^|[\s(])(?:[a-z]|ca|nr|vs|etc|resp|usw|bzw|ecc|approx)\.)$")
"""The end of a piece that ends no sentence: `e.g.`, a list's number; `A, B or C.` and `from 1 to 5.` end one."""
_PAUSES = re.compile(r"(?<=[,;:–—])\s+|\s+(?=[–—-]\s)")
_PAIRS = {"“": "”", "„": "“”", "«": "»", "‘": "’", '"': '"', "'": "'", "(": ")", "[": "]"}
"""What opens a quotation or a bracket, and what closes it: no clause ends between."""
_CHANGE, _CLAUSE = 0.5, 5
"""How much likelier, by its logarithm, a clause has to tell another thing than the one before it, to be taken to; and
the words below which it counts for less: it may be one of a list. Of 0 to 3 and 1 to 9 the best on descriptions of
other writers whose sentences were joined by commas: 83 of 100 words are kept where they belong."""
_ARROWS, _QUOTES = ("=>", "⇒", "->", "→"), "\"'“„«"
_BESIDE, _FLAG = 0.5, 0.35
"""How much the sentences before and behind count, and what is seen without reading: where it stands, a quotation."""


class Statement(NamedTuple):
    """A sentence, and what it most likely tells."""

    text: str
    role: str
    describes: float
    """The probability that it tells any of the first four."""
    messages: float
    """That it tells which messages it is for, by itself or beside the answer."""
    answer: float
    """That it tells what the answer is, by itself or beside the messages."""


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, each letter for letter; a line is one at least."""
    found: list[str] = []
    start = 0
    for end in (*_ENDS.finditer(text), None):
        # quotation marks behind the stop belong to what they close
        closing = len(end[0]) - len(end[0].lstrip("\"'”»’)]")) if end else 0
        piece = text[start : end.start() + closing if end else None].strip()
        if end and "\n" not in end[0] and _SHORT.search(piece):
            continue
        start = end.end() if end else len(text)
        found += [piece] * bool(piece)
    return found


def statements(text: str) -> list[Statement]:
    """What the sentences of a text tell. Raises NoEncoder."""
    import numpy as np

    said = sentences_of(text)[:SENTENCES_MOST]
    return [_statement(one, row, int(np.argmax(row))) for one, row in zip(said, _likely(said), strict=True)]


def clauses(sentence: str) -> list[Statement]:
    """What the clauses of a long sentence tell, those that tell the same joined; each letter for letter, with the mark
    at its end and without a dash before it. Raises NoEncoder."""
    import numpy as np

    pieces = clauses_in(sentence)
    likely = _likely(pieces)
    weigh = np.array([[min(1.0, len(piece.split()) / _CLAUSE)] for piece in pieces])
    # the likeliest way through the clauses, where each change of what is told costs (Viterbi)
    (best, *rows), ways = np.log(likely + 1e-9) * weigh, []
    for row in rows:
        reached = best[:, None] - _CHANGE * (1 - np.eye(len(ROLES)))
        ways.append(reached.argmax(axis=0))
        best = reached.max(axis=0) + row
    roles = [int(best.argmax())]
    for way in reversed(ways):
        roles.insert(0, int(way[roles[0]]))
    firsts = [at for at in range(len(pieces)) if at == 0 or roles[at] != roles[at - 1]]
    return [
        _statement("".join(pieces[at:to]).strip().lstrip("-–— "), likely[at:to].mean(axis=0), roles[at])
        for at, to in zip(firsts, [*firsts[1:], len(pieces)], strict=True)
    ]


def clauses_in(sentence: str) -> list[str]:
    """The clauses of a sentence by its marks, each letter for letter."""
    within = _within(sentence)
    starts = [0, *(end.end() for end in _PAUSES.finditer(sentence) if not within[end.start()])][:SENTENCES_MOST]
    return [sentence[at:to] for at, to in zip(starts, [*starts[1:], len(sentence)], strict=True)]


def _within(text: str) -> list[bool]:
    """Of each place whether it is within a quotation or a bracket; an apostrophe behind a letter opens none."""
    closes, within = "", []
    for before, mark in zip(f" {text}", text, strict=False):
        within.append(bool(closes))
        if closes:
            closes = "" if mark in closes else closes
        elif mark != "'" or not before.isalnum():
            closes = _PAIRS.get(mark, "")
    return within


def _statement(text: str, likely: Floats, role: int) -> Statement:
    told = dict(zip(ROLES, map(float, likely), strict=True))
    return Statement(
        text, ROLES[role], 1 - told["example"] - told["else"], told["when"] + told["both"], told["what"] + told["both"]
    )


def _likely(said: Sequence[str]) -> Floats:
    """How likely each of some sentences tells each of `ROLES`."""
    import numpy as np

    if not said:
        return np.zeros((0, len(ROLES)), np.float32)
    weights = _weights()
    scores = features(said) @ weights[:, :-1].T + weights[:, -1]
    likely: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    return likely


@cache
def _weights() -> Floats:
    import numpy as np

    with (files("tunesmith.agent.words") / "openings.npz").open("rb") as file, np.load(file) as stored:
        weights: Floats = stored["weights"].astype(np.float32)
        return weights


def features(said: Sequence[str]) -> Floats:
    """What the layer sees of each sentence. Raises NoEncoder."""
    import numpy as np

    own = reader().embed(said)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    none = np.zeros_like(own[:1])
    seen = [
        (at == 0, at == len(said) - 1, any(a in one for a in _ARROWS), any(q in one for q in _QUOTES), "?" in one)
        for at, one in enumerate(said)
    ]
    before, behind = np.concatenate([none, own[:-1]]), np.concatenate([own[1:], none])
    return np.concatenate([own, _BESIDE * before, _BESIDE * behind, _FLAG * np.array(seen, np.float32)], axis=1)
