"""Assertions on how the answer was served: time, stop reason, log probabilities."""

from __future__ import annotations

import math

from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Response, assertion_type
from tunesmith.tools.suites.grading.javascript import CannotGrade


def _need_threshold(assertion: Assertion) -> None:
    if assertion.threshold is None:
        raise ValueError(f"{assertion.type} needs a threshold in milliseconds")


@assertion_type("latency", check=_need_threshold, needs_value=False)
def latency(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """Answered within `threshold` milliseconds."""
    if response.latency_ms is None:
        raise CannotGrade("latency: this output was stored without its time; run the case again")
    limit = assertion.threshold if assertion.threshold is not None else math.inf
    return Finding(response.latency_ms <= limit, f"come within {limit:g} ms", f"{response.latency_ms:g} ms")


def _need_reason(assertion: Assertion) -> None:
    if not isinstance(assertion.value, str) or not assertion.value:
        raise ValueError("finish-reason needs a value: stop, length, tool_calls or content_filter")


@assertion_type("finish-reason", check=_need_reason)
def finish_reason(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    actual = response.finish_reason or ""
    return Finding(assertion.text.lower() == actual.lower(), f"finish by {assertion.value!r}", actual or "no reason")


def _mean_logprob(assertion: Assertion, response: Response) -> float:
    if not response.logprobs:
        raise CannotGrade(
            f"{assertion.type}: no log probabilities were stored; ask the server for them (logprobs: true)"
        )
    return math.fsum(response.logprobs) / len(response.logprobs)


@assertion_type("perplexity", needs_value=False)
def perplexity(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """exp(-mean log probability) at most `threshold`; without one it always passes."""
    value = math.exp(-_mean_logprob(assertion, response))
    holds = value <= assertion.threshold if assertion.threshold is not None else not assertion.inverse
    return Finding(holds, f"have a perplexity of at most {assertion.threshold}", f"{value:.2f}")


@assertion_type("perplexity-score", needs_value=False, is_share=True)
def perplexity_score(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """1 / (1 + perplexity) at least `threshold`; without one it always passes."""
    score = 1 / (1 + math.exp(-_mean_logprob(assertion, response)))
    holds = score >= assertion.threshold if assertion.threshold is not None else not assertion.inverse
    return Finding(
        holds, f"have a perplexity score of at least {assertion.threshold}", f"{score:.3f}", score, 1 - score
    )
