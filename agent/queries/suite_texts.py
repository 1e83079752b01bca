"""The cases of a run's suites: what each asks, and what its checks want of an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from tunesmith.agent.queries.answer import without_instruction
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import read_suite

WHOLE = "answer"
"""The key of an answer that is one value and no JSON."""
_WHOLE_CHECKS = ("equals", "iequals", "contains", "icontains", "starts-with")


def cases_of(store: Store, run: str, suite: str = "") -> Mapping[str, Case]:
    """Case by its id, of a suite of the run, or of its newest; empty where its file is gone."""
    suites = [made for made in store.artifacts(run, "suite") if suite in ("", made.id)]
    if not suites:
        return {}
    path = Path(suites[-1].path)
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, BadInput):  # gone, or of another version
        return {}


@lru_cache(maxsize=8)
def _read(path: Path, changed_ns: int) -> Mapping[str, Case]:
    return {case.case_id: case for case in read_suite(path).cases}


def asked_by(case: Case | None) -> str:
    """The newest message of a case's user; empty for no case."""
    texts = [str(m.get("content", "")) for m in (case.messages if case else ()) if m.get("role") == "user"]
    return without_instruction(texts[-1]) if texts else ""


def wanted_of(case: Case | None) -> Iterator[tuple[str, str]]:
    """The keys of an answer and the values that a case's checks name for them; nothing where they name none."""
    for one in case.assertions if case else ():
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
