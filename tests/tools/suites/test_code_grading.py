"""Code in an answer: parsed and never run, compared by what it is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Assertion, Response, check_assertion, grade
from tunesmith.tools.suites.grading.code import MAX_CHARS


def passes(answer: str, **value: Any) -> bool:
    assertion = Assertion(type="is-code", value=value)
    check_assertion(assertion)
    return grade(Case(case_id="c", suite="s", messages=(), assertions=(assertion,)), Response(text=answer)).passed


FENCED = "```python\nprint(1)\n```"


@table(
    ("language", "same", "answer", "right"),
    [
        ("python", "print('a', b=1)", 'print("a",b = 1)  # well', True),
        ("python", "print('a', b=1)", FENCED.replace("print(1)", "print('a', b=1)"), True),
        ("python", "print('a', b=1)", "print('a', b=2)", False),
        ("python", "print('a', b=1)", "print('a', c=1)", False),
        ("python", "x = 1\ny = 2", "y = 2\nx = 1", False),
        ("python", "x = 1", "x == 1", False),
        ("python", "x = 1", "x = 1\nimport os", False),
        ("json", '{"a": 1, "b": [2]}', '{"b": [2.0], "a": 1}', True),
        ("json", '{"a": 1}', '{"a": true}', False),
        ("json", '{"a": [1, 2]}', '{"a": [2, 1]}', False),
        ("yaml", "a: 1\nb: [x]", "b:\n  - x\na: 1.0", True),
        ("yaml", "a: 1", "a: '1'", False),
        ("toml", "[a]\nb = 1", "a = {b = 1}", True),
        ("toml", "[a]\nb = 1", "[a]\nb = 2", False),
        ("sql", "SELECT a FROM t WHERE b = 'X'", "select a from t\nwhere b='X';", True),
        ("sql", "SELECT a FROM t WHERE b = 'X'", "select a from t where b='x'", False),
        ("sql", "SELECT a, b FROM t", "SELECT b, a FROM t", False),
        ("sql", "SELECT a FROM t", "SELECT a FROM t; DELETE FROM t", False),
    ],
)
def test_code_is_the_same_where_it_parses_alike(language: str, same: str, answer: str, right: bool) -> None:
    assert passes(same, language=language, same=same)
    assert passes(answer, language=language, same=same) is right


@table(
    ("language", "answer", "right"),
    [
        ("python", "def f(:", False), ("python", "", False), ("python", "the answer is four", False),
        ("python", "raise SystemExit", True), ("python", "9**9**9**9", True), ("python", "x = 1\n  y = 2", False),
        ("json", "{'a': 1}", False), ("json", "NaN", False), ("yaml", "just words", False), ("yaml", "a: b: c", False),
        ("toml", "a = ", False), ("sql", "names of books", False), ("sql", "", False),
        ("sql", "SELECT FROM WHERE", False),
        ("python", "-" * 15_000 + "1", False), ("python", "(" * 15_000, False), ("python", "1" + "+1" * 9_000, False),
        ("json", "[" * 15_000, False), ("yaml", "[" * 15_000, False), ("toml", "a=" + "[" * 15_000, False),
        ("python", "x = 1\n" * MAX_CHARS, False), ("sql", "SELECT " + "(" * 5_000, False),
    ],
)  # fmt: skip
def test_what_cannot_be_parsed_fails_whatever_it_is(language: str, answer: str, right: bool) -> None:
    assert passes(answer, language=language) is right


def test_a_fence_is_wanted_refused_or_either() -> None:
    assert passes(FENCED, language="python") and passes("print(1)", language="python")
    assert passes(FENCED, language="python", fenced=True) and not passes("print(1)", language="python", fenced=True)
    assert passes("print(1)", language="python", fenced=False) and not passes(FENCED, language="python", fenced=False)
    assert not passes(f"Here it is:\n{FENCED}", language="python")


@table(
    "value",
    [{}, None, "python", {"language": "rust"}, {"language": "python", "same": "def f(:"}, {"language": "json", "x": 1},
     {"language": "json", "fenced": "yes"}],
)  # fmt: skip
def test_an_assertion_that_could_never_be_graded_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"is-code"):
        check_assertion(Assertion(type="is-code", value=value))
