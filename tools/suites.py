"""Suites: promptfoo's YAML, its declarative part, read into cases that can be asked and graded.

Anything that would run code, reach the network or leave the suite's folder is refused by name, at its line,
before any case exists. Parsing itself is in `suite_parse`; this module is what the stages use.
Not covered yet: model-graded types, derivedMetrics, is-html, is-xml, is-sql, similar, select-best.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.tools.grading import Assertion, Response, asks_model, grade

Block = Literal["target", "general", "tools", "adversarial"]
BLOCKS: tuple[Block, ...] = ("target", "general", "tools", "adversarial")


def canonical_sha256(value: Any) -> str:
    """Hex sha256 of plain data, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Case(BaseModel):
    """One thing to ask, and what to hold the answer to. Templates are filled in already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    block: Block = "target"
    suite: str
    """Name of the suite file, without folder and suffix."""
    messages: tuple[dict[str, Any], ...]
    """OpenAI's chat messages: {"role", "content"}."""
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = None
    sampling: dict[str, Any] = {}
    """temperature, max_tokens, … where the suite's provider sets them."""
    assertions: tuple[Assertion, ...] = ()
    threshold: float | None = None
    vars: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    repeat: int = 1
    """How often the suite wants it asked."""
    provider_output: Any = None
    """An output stored in the suite itself, to be graded without asking a model."""

    @property
    def request_sha256(self) -> str:
        """What is asked, without what is expected: unchanged, a stored output may be graded again."""
        return canonical_sha256([self.messages, self.tools, self.tool_choice, self.sampling])

    @property
    def assertion_types(self) -> list[str]:
        """The types in order, an assert-set followed by its members."""
        return [a.type for assertion in self.assertions for a in (assertion, *assertion.children)]


class Suite(BaseModel):
    """Cases with unique ids, from one file or several."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: tuple[Case, ...]

    @cached_property
    def sha256(self) -> str:
        """Identity of the parsed content: the same for the same cases, however they were written down."""
        return canonical_sha256([case.model_dump(mode="json") for case in self.cases])

    def with_cases(self, cases: Iterable[Case]) -> Suite:
        """A suite of these cases instead; its sha256 is its own."""
        return Suite(cases=tuple(cases))

    def block(self, name: str) -> tuple[Case, ...]:
        """The cases of one block, in the suite's order."""
        return tuple(case for case in self.cases if case.block == name)

    def to_json(self) -> str:
        """Everything, for `from_json`."""
        return json.dumps({"sha256": self.sha256, **self.model_dump(mode="json")}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Suite:
        """The suite that `to_json` wrote. Raises BadInput where the text is not one or was changed."""
        try:
            data = json.loads(text)
            sha256 = data.pop("sha256")
            suite = cls.model_validate(data)
        except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
            raise BadInput(f"not a stored suite: {str(error)[:200]}; run the baseline again") from None
        if suite.sha256 != sha256:
            raise BadInput("the stored suite was changed since the baseline; run the baseline again")
        return suite


def load_suites(paths: Sequence[Path], *, models: bool = False) -> Suite:
    """Parse suite files into one suite. Raises BadInput with file, line, reason and the next thing to do.

    Without `models`, assertions that a judge or an embedding model would have to grade are refused by name.
    """
    from tunesmith.tools.suite_parse import parse_suite

    if not paths:
        raise BadInput("no suite named; give one or more promptfoo YAML files")
    cases: dict[str, tuple[Case, str]] = {}
    for path in paths:
        for case, place in parse_suite(Path(path)):
            if case.case_id in cases:
                first = cases[case.case_id][1]
                raise BadInput(
                    f"{place}: the case id {case.case_id!r} is taken by the test at {first}; give one of them another "
                    "metadata.case_id, or remove the copy"
                )
            if not models:
                refuse_models(case, place)
            cases[case.case_id] = case, place
    return Suite(cases=tuple(case for case, _ in cases.values()))


_MISSING = {
    "judge": "asks a judge, and none is given here; use a deterministic type such as icontains, regex or is-json",
    "embedder": "needs an embedding model, and none is given here; use rouge-n or levenshtein",
}


def refuse_models(case: Case, place: str) -> None:
    """Raise BadInput at `place` where a model would have to grade the case."""
    for kind, role in asks_model(case.assertions).items():
        raise BadInput(f"{place}: the assertion type {kind!r} {_MISSING[role]}")


def check_suites(paths: Sequence[Path]) -> dict[str, Any]:
    """`suite check`: the cases that the files hold, with their block and their types of assertion."""
    suite = load_suites(paths)
    cases = [
        {"case_id": case.case_id, "block": case.block, "assertions": case.assertion_types, "suite": case.suite}
        for case in suite.cases
    ]
    return {
        "cases": cases,
        "sha256": suite.sha256,
        "blocks": {b: len(suite.block(b)) for b in BLOCKS if suite.block(b)},
    }


def grade_outputs(path: Path, outputs_path: Path | None = None) -> dict[str, Any]:
    """`suite grade`: stored outputs graded without a model: a JSONL file's, or the tests' own `providerOutput`.

    A case named twice in the file is graded twice; cases without an output are listed under `missing`.
    Raises BadInput for a broken file, an id that the suite lacks, or no output at all.
    """
    suite = load_suites([path])
    if outputs_path is not None:
        outputs = _read_outputs(outputs_path, {case.case_id for case in suite.cases})
    else:
        outputs = [(c.case_id, Response.of(c.provider_output)) for c in suite.cases if c.provider_output is not None]
    if not outputs:
        raise BadInput(f"{path}: there is nothing to grade; give --outputs OUT.jsonl, or tests with a providerOutput")
    by_id = {case.case_id: case for case in suite.cases}
    graded = [_graded(by_id[case_id], response) for case_id, response in outputs]
    return {
        "cases": graded,
        "passed": sum(entry["passed"] for entry in graded),
        "errors": sum("error" in entry for entry in graded),
        "missing": sorted(by_id.keys() - {case_id for case_id, _ in outputs}),
        "sha256": suite.sha256,
    }


def _graded(case: Case, response: Response) -> dict[str, Any]:
    result = grade(case, response)
    assertions = [{"type": a.type, "passed": a.passed, "score": a.score, "reason": a.reason} for a in result.assertions]
    entry = {"case_id": case.case_id, "passed": result.passed, "score": result.score, "assertions": assertions}
    if result.error:
        entry["error"] = result.error
    return {**entry, "block": case.block, "reason": result.reason, "named_scores": dict(result.named_scores)}


def _read_outputs(path: Path, known: set[str]) -> list[tuple[str, Response]]:
    from tunesmith.tools.suite_files import read_plain_text

    outputs: list[tuple[str, Response]] = []
    # 64 times a suite's limit: outputs are longer than questions.
    for number, line in enumerate(read_plain_text(path, 640 << 20).split("\n"), 1):
        if line.strip():
            outputs.append(_output_of_line(line, f"{path}:{number}", known))
    return outputs


def _output_of_line(line: str, place: str, known: set[str]) -> tuple[str, Response]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{place}: not JSON: {error}; write one object a line") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("case_id"), str) or "output" not in entry:
        raise BadInput(f'{place}: an output is {{"case_id": text, "output": text}}')
    if entry["case_id"] not in known:
        raise BadInput(f"{place}: the suite has no case {entry['case_id']!r}; `tunesmith suite check` lists its ids")
    response = Response.of("" if entry["output"] is None else entry["output"])
    return entry["case_id"], _with_serving(response, entry, place)


def _with_serving(response: Response, entry: dict[str, Any], place: str) -> Response:
    calls, latency, reason = entry.get("tool_calls") or (), entry.get("latency_ms"), entry.get("finish_reason")
    if not isinstance(calls, list | tuple) or not all(isinstance(call, dict) for call in calls):
        raise BadInput(f"{place}: tool_calls is a list of objects")
    if not isinstance(latency, int | float | None) or not isinstance(reason, str | None):
        raise BadInput(f"{place}: latency_ms is a number and finish_reason is text")
    return Response(
        text=response.text, value=response.value, tool_calls=tuple(calls), latency_ms=latency, finish_reason=reason
    )
