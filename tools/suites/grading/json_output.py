"""Assertions on JSON in the output, with or without a schema."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from tunesmith.tools.core.yaml_nodes import YamlRefused, parse_yaml
from tunesmith.tools.suites.grading import javascript as js
from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Response, assertion_type
from tunesmith.tools.suites.grading.schema import check_schema, violations
from tunesmith.tools.suites.grading.text import quoted

MAX_OBJECT_CHARS = 100_000
"""Ten times the longest answer's; looking for objects within costs more than reading one."""
# Characters looked at before the search for objects gives up: "{{{{…" would otherwise cost its length squared.
_SEARCH_BUDGET = 2_000_000
_LOOSE_S = 2.0
"""Processor time after which no further object is read loosely, thirty times slower than strict JSON."""


def _schema_of(assertion: Assertion) -> dict[str, object] | None:
    """The schema, given as an object or as YAML or JSON text; None where there is none."""
    value = assertion.value
    if value is None or value == "" or value is False:
        return None
    if isinstance(value, str):
        value = parse_yaml(value, "schema").plain
    if not isinstance(value, dict):
        raise ValueError(
            f"{assertion.type} takes a JSON schema, an object, as its value; got {js.as_text(value)[:60]!r}"
        )
    return value


def _need_schema(assertion: Assertion) -> None:
    schema = _schema_of(assertion)
    if schema is not None:
        check_schema(schema)


@assertion_type("is-json", check=_need_schema, needs_value=False)
def is_json(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """The whole output is one JSON value; with a schema, one that conforms."""
    try:
        value = js.parse_json(response.output_text)
    except ValueError:
        return Finding(False, "be valid JSON", quoted(response.output_text))
    schema = _schema_of(assertion)
    broken = violations(schema, value) if schema is not None else ""
    return Finding(not broken, "be valid JSON" + (" that conforms to the schema" if schema is not None else ""), broken)


@assertion_type("contains-json", check=_need_schema, needs_value=False)
def contains_json(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """An object in braces stands somewhere in the output; with a schema, one that conforms.

    As in promptfoo an object may be written loosely (`{a: 1}`, comments), and a list counts only inside an object.
    """
    schema, broken = _schema_of(assertion), "no JSON object"
    expected = "contain a JSON object" + (" that conforms to the schema" if schema is not None else "")
    for value in json_objects(response.output_text):
        broken = violations(schema, value) if schema is not None else ""
        if not broken:
            return Finding(True, expected)
    return Finding(False, expected, broken)


def json_objects(text: str) -> Iterator[object]:
    """The objects in `text`, outermost first, left to right. Raises CannotGrade where the search gets too long."""
    start, budget = text.find("{"), _SEARCH_BUDGET
    began = time.thread_time()
    while 0 <= start < len(text) - 1:
        end, missing = _balanced_end(text, start)
        budget -= end - start
        if budget < 0:
            raise js.CannotGrade("over 2,000,000 characters looked at for JSON objects: too many unclosed braces")
        if time.thread_time() - began > _LOOSE_S:
            raise js.CannotGrade(f"the search for JSON objects took over {_LOOSE_S:g} s: too many that are not strict")
        value = _loose_object(text[start:end] + "}" * missing)
        if value is not None:
            yield value
        start = text.find("{", end if value is not None else start + 1)


def _balanced_end(text: str, start: int) -> tuple[int, int]:
    """Where the object that opens at `start` ends, and how many closing braces it lacks; quotes are not looked at."""
    depth, limit = 0, min(len(text), start + MAX_OBJECT_CHARS)
    for brace in re.compile(r"[{}]").finditer(text, start, limit):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return brace.end(), 0
    return limit, depth


def _loose_object(text: str) -> object:
    try:
        return js.parse_json(text)
    except ValueError:  # then as people write it, below
        pass
    try:
        value = parse_yaml(_COMMENT.sub(" #", text), "output", lenient=True).plain
    except YamlRefused:  # not even loosely an object
        return None
    return value if isinstance(value, dict | list) else None


_COMMENT = re.compile(r"(?<=\s)//(?=[^\n\"']*$)", re.MULTILINE)
