"""The corpus of (output, assertion) pairs: read, written as promptfoo's config, and graded by us.

Both sides read the same tests; only the provider differs.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.fixtures import yaml_of
from tunesmith.memory.errors import BadInput
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Grade, Response, grade
from tunesmith.tools.suites.loading import load_suites

HERE = Path(__file__).parent
CORPUS, RECORDED = HERE / "corpus.yaml", HERE / "recorded.json"
GONE = frozenset((
    "is-html", "contains-html", "is-xml", "contains-xml", "is-sql", "contains-sql", "bleu", "gleu", "perplexity",
    "perplexity-score",
))  # fmt: skip
"""Types that are refused by name now: their pairs stay recorded, and nobody compares them."""
_NOTES = ("differs", "differs_not", "refused", "judge")
PARAMETERS = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string"}, "amount": {"type": "number"}},
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("find_order", "refund")
]


@dataclass
class Pair:
    """One output, what is expected of it, and where we mean to differ from promptfoo."""

    id: str
    what: str
    response: dict[str, Any]
    test: dict[str, Any]
    judge: list[str] = field(default_factory=list)
    differs: str = ""
    refused: str = ""


def digest() -> str:
    """Identity of the corpus, so that a recording of another one is noticed."""
    return hashlib.sha256(CORPUS.read_bytes()).hexdigest()


@cache
def read_pairs() -> list[Pair]:
    """Every pair of the corpus, in order."""
    groups = yaml_of(CORPUS.read_text())["groups"]
    every = [
        Pair(f"p{number}", **parts)
        for number, parts in enumerate(part for group in groups for part in _pairs_of(group))
    ]
    return [pair for pair in every if not GONE & _types(pair.test.get("assert", []))]


def _types(assertions: Sequence[Mapping[str, Any]]) -> set[str]:
    return {a["type"].removeprefix("not-") for a in assertions}


def _pairs_of(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cases = group.get("cases") or [
        _case(assertion, inverse) for assertion in group["assert"] for inverse in _forms(group)
    ]
    for name, output in group["outputs"].items():
        wrapped = isinstance(output, dict) and "response" in output
        response = output["response"] if wrapped else {"output": output}
        for case in cases:
            notes = case.get("notes", {})
            yield {
                "what": f"{group['name']}: {name} × {json.dumps(case.get('assert'), ensure_ascii=False)[:160]}",
                "response": response,
                "test": {key: copy.deepcopy(value) for key, value in case.items() if key != "notes"},
                "judge": notes.get("judge", []),
                "differs": notes.get("differs", {}).get(name, ""),
                "refused": notes.get("refused", ""),
            }


def _forms(group: dict[str, Any]) -> Sequence[bool]:
    return (False,) if group.get("plain") else (False, True)


def _case(assertion: dict[str, Any], inverse: bool) -> dict[str, Any]:
    bare = {key: value for key, value in assertion.items() if key not in _NOTES}
    notes = {key: assertion[key] for key in ("judge", "refused") if key in assertion}
    notes["differs"] = assertion.get("differs_not" if inverse else "differs", {})
    return {"assert": [{**bare, "type": f"not-{bare['type']}" if inverse else bare["type"]}], "notes": notes}


def config(pairs: Sequence[Pair], provider: dict[str, Any], grader: dict[str, Any] | None = None) -> dict[str, Any]:
    """A promptfoo config whose tests are the pairs. The question is the pair's id, for a provider to look up."""
    tests = [{**_marked(pair), "vars": {"id": pair.id, **pair.test.get("vars", {})}} for pair in pairs]
    for pair, test in zip(pairs, tests, strict=True):
        test["metadata"] = {"case_id": pair.id}
    default = {"defaultTest": {"options": {"provider": grader}}} if grader else {}
    return {"prompts": ["{{id}}"], "providers": [provider], **default, "tests": tests}


def _marked(pair: Pair) -> dict[str, Any]:
    """The test, its criteria carrying the pair's id where a judge reads them."""
    test = copy.deepcopy(pair.test)
    mark = f" #{pair.id}#"
    for assertion in test.get("assert", []) if pair.judge else []:
        value = assertion["value"]
        if isinstance(value, dict):
            value["id"] = mark
        else:
            assertion["value"] = [item + mark for item in value] if isinstance(value, list) else value + mark
    return test


class _Judge:
    def __init__(self, replies: Sequence[str]) -> None:
        self._replies = iter(replies)

    def answer(self, prompt: str, form: Mapping[str, Any]) -> str:
        return next(self._replies)


class _Embedder:
    def embed(self, texts: Sequence[str]) -> list[list[int]]:
        return [[text.lower().count(chr(letter)) for letter in range(97, 123)] for text in texts]


def our_suite(pairs: Sequence[Pair], folder: Path) -> Suite:
    """The pairs as our loader reads them."""
    path = folder / "pairs.json"
    path.write_text(json.dumps(config(pairs, {"id": "openai:chat:served", "config": {"tools": TOOLS}})))
    return load_suites([path], models=("judge", "embedder"))


def our_grades(pairs: Sequence[Pair], folder: Path) -> dict[str, Grade]:
    """The grade of each pair, as our loader makes a suite of them; refused ones are left out."""
    suite = our_suite([pair for pair in pairs if not pair.refused], folder)
    by_id = {pair.id: pair for pair in pairs}
    return {case.case_id: _grade(case, by_id[case.case_id]) for case in suite.cases}


def _grade(case: Case, pair: Pair) -> Grade:
    given = Response.of(pair.response["output"])
    response = Response(
        text=given.text,
        value=given.value,
        finish_reason=pair.response.get("finishReason"),
        latency_ms=pair.response.get("latencyMs"),
    )
    return grade(case, response, judge=_Judge(pair.judge), embedder=_Embedder())


def our_verdicts(pairs: Sequence[Pair], folder: Path) -> dict[str, Any]:
    """Id → [passed, score, named scores], or a text that says why there is no verdict."""
    grades = our_grades(pairs, folder)
    verdicts: dict[str, Any] = {i: g.error or [g.passed, g.score, dict(g.named_scores)] for i, g in grades.items()}
    for pair in pairs:
        if pair.refused:
            try:
                our_suite([pair], folder)
            except BadInput as error:
                verdicts[pair.id] = f"refused: {error}"
    return verdicts


def same(ours: Any, theirs: Any) -> bool:
    """Whether both passed or both failed, with the same score and the same named scores."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return False
    named = ours[2].keys() == theirs[2].keys() and all(abs(ours[2][name] - theirs[2][name]) < 1e-9 for name in ours[2])
    return named and ours[0] == theirs[0] and abs(ours[1] - theirs[1]) < 1e-9
