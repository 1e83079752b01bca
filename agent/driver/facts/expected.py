"""What a case's answer is held to, as far as its checks name values: the keys of a JSON answer, or the whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import read_suite

WHOLE = "answer"
"""The key of an answer that is one value and no JSON."""
_WHOLE_CHECKS = ("equals", "iequals", "contains", "icontains", "starts-with")


@lru_cache(maxsize=8)
def expected_in(path: str) -> Mapping[str, Mapping[str, str]]:
    """Case → key → the value that is wanted, of a suite file; empty where it is gone or cannot be read."""
    try:
        suite = read_suite(Path(path))
    except (OSError, ValueError, BadInput):
        return {}
    return {case.case_id: dict(wanted_of(case)) for case in suite.cases}


def wanted_of(case: Case) -> Iterator[tuple[str, str]]:
    """The keys of an answer and the values that a case's checks name for them; nothing where they name none."""
    for one in case.assertions:
        if one.type == "is-json" and isinstance(one.value, Mapping):
            properties = one.value.get("properties")
            for key, schema in properties.items() if isinstance(properties, Mapping) else ():
                if isinstance(schema, Mapping) and "const" in schema:
                    yield str(key), plain(schema["const"])
        elif one.type in _WHOLE_CHECKS and isinstance(one.value, str):
            yield WHOLE, one.value


def given_in(output: str, key: str) -> str:
    """The value that an answer has for a key; empty where it is no JSON object."""
    if key == WHOLE:
        return " ".join(output.split())
    try:
        answer = json.loads(output)
    except ValueError:
        return ""
    return plain(answer.get(key, "nothing")) if isinstance(answer, dict) else ""


def is_json(output: str) -> bool:
    """Whether an answer can be read as JSON."""
    try:
        json.loads(output)
    except ValueError:
        return False
    return True


def plain(value: object) -> str:
    """A value of a JSON answer in words."""
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
