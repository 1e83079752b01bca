"""Assertions on how the answer was served: time and stop reason."""

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
