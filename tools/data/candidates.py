"""Which of a few given answers a model gives, and with what probability: told from one short answer.

The server is held to the candidates, so each token that it might have written belongs to some of them. Where a token
parts two candidates, its probability against the other's is theirs. Nothing is sampled: one request tells the value and
how far it is from the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunesmith.tools.core.stats import wilson_interval
from tunesmith.tools.serving.client import ChatResponse

YES_NO = ("yes", "no")
_FLOOR = 1e-6
"""Probability of a candidate that is not among the likeliest tokens."""


def held_to(candidates: Sequence[str]) -> dict[str, object]:
    """The fields of a request that has one of the candidates answered, with the likeliest tokens of each step."""
    return {"structured_outputs": {"choice": list(candidates)}, "logprobs": True, "top_logprobs": 20}


def probabilities(response: ChatResponse, candidates: Sequence[str]) -> dict[str, float]:
    """Candidate → its probability against the others; by the answered words where the server gave no log probabilities.

    Case and space before an answer make no difference, for a server that is not held to the candidates.
    """
    scores = dict.fromkeys(candidates, 0.0)
    open_ = {one: _plain(one) for one in candidates}
    before = ""
    for token, likeliest in response.steps:
        if len(open_) < 2:
            break
        by_candidate = {one: _mass(text, before, likeliest) for one, text in open_.items()}
        if not any(by_candidate.values()):
            break
        for one, mass in by_candidate.items():
            scores[one] += math.log(max(mass, _FLOOR))
        before = _plain(before + token)
        open_ = {one: text for one, text in open_.items() if text.startswith(before)}
    else:  # the answer ended: of candidates that one begins another with, it is the one that was answered
        if response.steps and before in open_.values():
            scores |= {one: scores[one] + math.log(_FLOOR) for one, text in open_.items() if text != before}
    if not response.steps:
        return {one: float(_plain(response.text) == _plain(one)) for one in candidates}
    most = max(scores.values())
    shares = {one: math.exp(score - most) for one, score in scores.items()}
    return {one: share / sum(shares.values()) for one, share in shares.items()}


def _mass(text: str, before: str, likeliest: Mapping[str, float]) -> float:
    """Of a step behind `before`, the probability of the tokens that `text` goes on with."""
    tokens = ((_plain(before + token), logprob) for token, logprob in likeliest.items())
    return sum(math.exp(logprob) for begun, logprob in tokens if len(begun) > len(before) and text.startswith(begun))


def _plain(text: str) -> str:
    return text.lower().lstrip()


def margin(likely: Mapping[str, float], value: str) -> float:
    """Log-odds, in nats, of a candidate against the likeliest of the others; below 0 another one is likelier."""
    others = max((share for one, share in likely.items() if one != value), default=0.0)
    return round(math.log(max(likely.get(value, 0.0), _FLOOR)) - math.log(max(others, _FLOOR)), 2)


def calibrated(likely: Mapping[str, float], bias: Mapping[str, float]) -> dict[str, float]:
    """Probabilities without what a model has for or against a candidate whatever it reads: `bias`, in nats."""
    shares = {one: share * math.exp(-bias.get(one, 0.0)) for one, share in likely.items()}
    whole = sum(shares.values())
    return {one: share / whole for one, share in shares.items()} if whole else shares


def least_margin(response: ChatResponse) -> float | None:
    """Of a whole answer, the log-odds of its least certain token against the next; None where nobody said."""
    gaps = []
    for token, likeliest in response.steps:
        others = max((logprob for other, logprob in likeliest.items() if other != token), default=-math.inf)
        gaps.append(likeliest.get(token, -math.inf) - max(others, math.log(_FLOOR)))
    return round(min(gaps), 2) if gaps else None


def yes(response: ChatResponse) -> float:
    """The probability of yes against no."""
    return probabilities(response, YES_NO)["yes"]


def right_where_two_agree(agreed: int, judged: int, confidence: float = 0.95) -> float:
    """Share that is right of what two agree on, at least, were both right equally often and their errors independent.

    All errors of both are taken to be one and the same other value: they agree on a = p² + (1 - p)², and those that
    are right are p² / a of these. 0 where they agree no oftener than two that guess between two values. What the two
    misunderstand alike is not seen. For two raters of one accuracy: Dawid and Skene 1979, doi 10.2307/2346806.
    """
    a = wilson_interval(agreed, judged, confidence)[0]
    return ((1 + math.sqrt(2 * a - 1)) / 2) ** 2 / a if a > 0.5 else 0.0
