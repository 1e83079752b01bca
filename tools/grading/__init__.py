"""Grading: promptfoo's deterministic assertions, one small function a type.

Semantics are those of promptfoo 0.123.1. Deliberate differences, each because the measurement would otherwise lie:

- `not-is-valid-openai-tools-call` negates (promptfoo ignores the `not-`).
- A tool call is not a refusal for `is-refusal` (promptfoo takes every output without text for one).
- A regex or a schema's pattern that runs over a second, a missing latency or missing log probabilities make the
  case an error, not a failure. Patterns that only Python would understand are refused when the suite is loaded.
- `format` in a schema knows date, time, date-time, email, uuid, ipv4, uri and regex; others are refused.
- `tool-call-f1` on text reads the whole text or whole lines as JSON, not blocks spread over several lines.
- `contains-any` and `contains-all` with an empty list are refused.
"""

from tunesmith.tools.grading import calls, json_output, served, similarity, text
from tunesmith.tools.grading.core import (
    ASSERT_SET,
    Assertion,
    AssertionResult,
    Grade,
    Response,
    check_assertion,
    grade,
    supported_types,
)
from tunesmith.tools.grading.javascript import CannotGrade

__all__ = [
    "ASSERT_SET",
    "Assertion",
    "AssertionResult",
    "CannotGrade",
    "Grade",
    "Response",
    "calls",
    "check_assertion",
    "grade",
    "json_output",
    "served",
    "similarity",
    "supported_types",
    "text",
]
