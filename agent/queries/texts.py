"""The texts of a suite and of answers to it: what was asked, wanted and given, and why it does not pass."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from tunesmith.agent.queries.answer import clip, without_instruction
from tunesmith.agent.queries.facts import Fact
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import read_suite

LONGEST_LABEL = 40
"""Characters: a longer value is a text that is wanted word for word."""
WHOLE = "answer"
"""The key of an answer that is one value and no JSON."""
_WHOLE_CHECKS = ("equals", "iequals", "contains", "icontains", "starts-with")
Cases = Mapping[str, Case]


def cases_of(store: Store, run: str, suite: str = "") -> Cases:
    """Case by its id, of a suite of the run, or of its newest; empty where its file is gone."""
    suites = [artifact for artifact in store.artifacts(run, "suite") if suite in ("", artifact.id)]
    if not suites:
        return {}
    path = Path(suites[-1].path)
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, BadInput):  # gone, or of another version
        return {}


# suites of the runs that are asked about
@lru_cache(maxsize=8)
def _read(path: Path, changed_ns: int) -> Cases:
    return {case.case_id: case for case in read_suite(path).cases}


def labels_of(store: Store, run: str) -> tuple[str, ...]:
    """The labels by which the cases of a run can be told apart: values that its open cases want again and again."""
    open_cases = [case for case in cases_of(store, run).values() if not case.is_blind]
    return tuple(dict.fromkeys(label for labels in labels_in(open_cases).values() for label in labels))


def labels_in(cases: Sequence[Case]) -> Mapping[str, tuple[str, ...]]:
    """Key of an answer → the labels that cases want for it; without keys whose values do not come again."""
    wanted: dict[str, list[str]] = {}
    for key, value in (pair for case in cases for pair in wanted_of(case)):
        wanted.setdefault(key, []).append(value)
    return {
        key: tuple(dict.fromkeys(label for label in values if 0 < len(label) <= LONGEST_LABEL))
        for key, values in wanted.items() if _come_again(values)
    }  # fmt: skip


def _come_again(values: Sequence[str]) -> bool:
    """Whether values are wanted again and again, as labels are and numbers of orders are not."""
    return len(values) >= 2 * len(set(values))


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
                    yield str(key), _plain(schema["const"])
        elif one.type in _WHOLE_CHECKS and isinstance(one.value, str):
            yield WHOLE, one.value


def given_in(output: str, key: str) -> str:
    """The value that an answer has for a key; empty where it is no JSON object."""
    if key == WHOLE:
        return " ".join(output.split())
    answer = json_of(output)
    return _plain(answer.get(key, "nothing")) if isinstance(answer, dict) else ""


def json_of(output: str) -> object:
    """An answer read as JSON; the exception as a value where it is none."""
    try:
        return json.loads(output)
    except (ValueError, RecursionError) as error:  # that is the answer
        return error


def _plain(value: object) -> str:
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def given_by(one: EvalResult) -> str:
    """An answer's text, else the calls that it made."""
    calls = [call.get("function") for call in one.tool_calls if isinstance(call, dict)]
    functions = [function for function in calls if isinstance(function, dict)]
    called = "; ".join(f"calls {function.get('name')}, arguments {function.get('arguments')}" for function in functions)
    return one.output or called or "(nothing)"


def reason_of(one: EvalResult) -> str:
    """Why an answer does not pass; empty where it does."""
    if one.error:
        return f"error: {one.error}"
    return next((f"{a.type}: {a.reason}" if a.reason else a.type for a in one.assertions if not a.passed), "")


def verdict_of(one: EvalResult) -> str:
    """What a case came to, in a word."""
    return "error" if one.passed is None else "passes" if one.passed else "fails"


def texts_of(case: Case | None, given: Mapping[str, EvalResult]) -> Fact:
    """What a case asks, what each arm answered, what was wanted where one fails, and why the last one does."""
    *_, last = given.values()
    failed = any(not one.passed for one in given.values())
    wanted = ", ".join(f"{key} {clip(value, 60)}" for key, value in wanted_of(case))
    return {
        "asked": asked_by(case),
        **{f"answer_of_{arm}": given_by(one) for arm, one in given.items()},
        "wanted": wanted if failed else "",
        "why": reason_of(last) if not last.passed else "",
    }
