"""Grading: promptfoo's declarative assertions, one small function a type.

Semantics are those of promptfoo 0.123.1, held to it by the corpus in tests/promptfoo. Deliberate differences, each
because the measurement would otherwise lie:

- `not-is-valid-openai-tools-call` negates (promptfoo ignores the `not-`).
- A tool call is not a refusal for `is-refusal` (promptfoo takes every output without text for one).
- A regex or a schema's pattern that runs over a second, a missing latency, and a judge that gives no verdict
  make the case an error, not a failure.
- A pattern is read as `new RegExp(pattern)` reads it, over UTF-16 units: an emoji is two (one in a schema's pattern, as
  there). What is no JavaScript is refused when the suite is loaded (`(?i)`, `a++`, `^*`), and so is what JavaScript
  reads in a way that hardly anybody means (`\\a`, `\\c1`, `\\1` before its group). In a repeated group a capture keeps
  what it last matched; JavaScript forgets it at every turn.
- `format` in a schema knows date, time, date-time, email, uuid, ipv4, uri and regex; others are refused. A `$ref`
  is looked up in the schema itself (promptfoo looks in the suite file where the schema is written inline).
- `tool-call-f1` on text reads the whole text or whole lines as JSON, not blocks spread over several lines.
- `contains-any` and `contains-all` with an empty list are refused, and so is a threshold that no score reaches (80).
- A threshold in a CSV cell counts for every type: `rouge-n(0.3): …` (promptfoo drops it for all but a few).
- `bleu`, `gleu`, `perplexity`, SQL, XML and HTML types are refused; the refusal says what to write instead.
- `g-eval` reads a judge's reply that is JSON over several lines (promptfoo wants it on one).
- `is-valid-openai-tools-call` with a value, a list of tools, wants as many calls, each of another of these with
  arguments that fit its parameters (promptfoo looks at the offered tools alone). `is-code` is a type of our own.
"""

# Imported for that alone: each module enters its types of assertion.
from tunesmith.tools.suites.grading import (  # noqa: F401
    calls,
    code,
    json_output,
    judged,
    server_signals,
    similarity,
    text,
)
from tunesmith.tools.suites.grading.core import (
    ASSERT_SET,
    PENDING,
    Assertion,
    Embedder,
    Grade,
    Judge,
    Response,
    asked,
    asks_model,
    check_assertion,
    grade,
    grade_deterministic,
    grade_pending,
    supported_types,
    total,
)
from tunesmith.tools.suites.grading.javascript import CannotGrade

__all__ = [
    "ASSERT_SET", "PENDING", "Assertion", "CannotGrade", "Embedder", "Grade", "Judge", "Response", "asked",
    "asks_model", "check_assertion", "grade", "grade_deterministic", "grade_pending", "supported_types", "total",
]  # fmt: skip
