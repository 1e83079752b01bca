"""One CSV row as a test: ordinary columns are vars, columns that begin with `__` are promptfoo's special ones."""

from __future__ import annotations

import re
from collections.abc import Callable

from tunesmith.tools.suites.grading.text import split_fields

_SHORT = re.compile(r"(not-)?([a-z][a-z0-9-]*)(?:\(([^()]*)\))?(?::(.*))?", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_CODE = {"javascript": "javascript", "fn": "javascript", "eval": "javascript", "python": "python"}
_LISTS = ("contains-all", "contains-any", "icontains-all", "icontains-any")
_THRESHOLDS = {
    **dict.fromkeys(("latency", "levenshtein", "rouge-n", "starts-with"), 0.75),
    "similar": 0.8,
}
"""promptfoo's for the graded types that it knows in a cell, even where one makes little sense (levenshtein)."""


def test_of_row(row: dict[str, str], is_type: Callable[[str], bool]) -> dict[str, object]:
    """The test that a row stands for. Raises ValueError for a special column that does not exist."""
    variables: dict[str, str] = {}
    assertions: list[dict[str, object]] = []
    sections: dict[str, dict[str, object]] = {"options": {}, "metadata": {}}
    test: dict[str, object] = {"vars": variables, "assert": assertions, **sections}
    thresholds: dict[int, float] = {}
    for column, cell in row.items():
        if not column.startswith("__"):
            variables[column] = cell
        elif re.fullmatch(r"__expected\d*", column):
            if cell.strip():
                assertions.append(assertion_of_text(cell.strip(), is_type))
        elif match := re.fullmatch(r"__config:__expected(\d*):threshold", column):
            thresholds[int(match[1] or 1) - 1] = _number(cell, column)
        else:
            _special(test, sections, column, cell)
    metric = test.pop("metric", None)
    for index, assertion in enumerate(assertions):
        if metric:
            assertion["metric"] = metric
        if index in thresholds:
            assertion["threshold"] = thresholds[index]
    return test


def _special(test: dict[str, object], sections: dict[str, dict[str, object]], column: str, cell: str) -> None:
    name = column.removeprefix("__")
    if name.startswith("metadata:"):
        key = name.removeprefix("metadata:")
        if not cell.strip():
            return
        # promptfoo's own: a comma parts a list, and one behind a backslash stands for itself.
        fields = [field.strip().replace("\\,", ",") for field in re.split(r"(?<!\\),", cell)]
        sections["metadata"][key.removesuffix("[]")] = fields if key.endswith("[]") else cell
    elif name in ("prefix", "suffix"):
        sections["options"][name] = cell
    elif name in ("description", "providerOutput", "metric"):
        if cell:
            test[name] = cell
    elif name == "threshold":
        if cell.strip():
            test["threshold"] = _number(cell, column)
    else:
        raise ValueError(
            f"no special column {column!r}; there are __expected, __expected1…, __prefix, __suffix, __description, "
            "__providerOutput, __metric, __threshold, __metadata:KEY and __config:__expected:threshold"
        )


def _number(cell: str, column: str) -> float:
    if not _NUMBER.fullmatch(cell.strip()):
        raise ValueError(f"{column}: {cell!r} is not a number")
    return float(cell)


def assertion_of_text(text: str, is_type: Callable[[str], bool]) -> dict[str, object]:
    """promptfoo's short form: `contains: x`, `not-regex: y`, `levenshtein(3): z`; any other text means equals."""
    lead = text.split(":", 1)[0]
    if lead in _CODE and ":" in text:
        return {"type": _CODE[lead], "value": text.split(":", 1)[1].strip()}
    if lead in ("grade", "llm-rubric") and ":" in text:
        return {"type": "llm-rubric", "value": text.split(":", 1)[1]}
    match = _SHORT.fullmatch(text)
    if match is None or not is_type(match[2]):
        return {"type": "equals", "value": text}
    negation, kind, threshold, value = match[1] or "", match[2], match[3], match[4]
    assertion: dict[str, object] = {"type": negation + kind}
    if value is not None and value.strip():
        assertion["value"] = split_fields(value) if kind in _LISTS else value.strip()
    if threshold:
        assertion["threshold"] = _number(threshold, kind)
    elif kind in _THRESHOLDS:
        assertion["threshold"] = _THRESHOLDS[kind]
    return assertion
