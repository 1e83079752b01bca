"""Stored outputs graded without a model being called: a JSONL file's, or the suite's own `providerOutput`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Embedder, Grade, Response, grade
from tunesmith.tools.suites.loading import load_suites


@dataclass(frozen=True, slots=True)
class GradedCase:
    """A stored output with its grade."""

    case: Case
    grade: Grade

    @property
    def why_failed(self) -> str:
        """Each failed assertion with its reason."""
        return "; ".join(f"{a.type}: {a.reason}" for a in self.grade.assertions if not a.passed)

    def to_json(self) -> dict[str, object]:
        """As `suite grade --json` tells it."""
        error = {"error": self.grade.error} if self.grade.error else {}
        return {
            "case_id": self.case.case_id,
            "passed": self.grade.passed,
            "score": self.grade.score,
            "assertions": [asdict(assertion) for assertion in self.grade.assertions],
            **error,
            "block": self.case.block,
            "reason": self.grade.reason,
            "named_scores": dict(self.grade.named_scores),
        }


@dataclass(frozen=True, slots=True)
class GradedSuite:
    """What became of every stored output."""

    cases: list[GradedCase]
    missing: list[str]
    """Cases without an output."""
    sha256: str

    def to_json(self) -> dict[str, object]:
        """The document of `suite grade --json`."""
        return {
            "cases": [graded.to_json() for graded in self.cases],
            "passed": sum(graded.grade.passed for graded in self.cases),
            "errors": sum(graded.grade.error is not None for graded in self.cases),
            "missing": self.missing,
            "sha256": self.sha256,
        }


def grade_outputs(path: Path, outputs_path: Path | None = None, *, embedder: Embedder | None = None) -> GradedSuite:
    """`suite grade`: stored outputs graded: a JSONL file's, or the tests' own `providerOutput`.

    A case named twice in the file is graded twice; cases without an output are listed under `missing`. Raises BadInput
    for a broken file, an id that the suite lacks, no output at all, or an assertion that asks a model which is not
    given.
    """
    suite, outputs = _suite_and_outputs(path, outputs_path, () if embedder is None else ("embedder",))
    by_id = {case.case_id: case for case in suite.cases}
    cases = [(by_id[case_id], given) for case_id, given in outputs]
    graded = [GradedCase(case, grade(case, given, embedder=embedder)) for case, given in cases]
    return GradedSuite(
        cases=graded,
        missing=sorted(by_id.keys() - {case_id for case_id, _ in outputs}),
        sha256=suite.sha256,
    )


def _suite_and_outputs(
    path: Path, outputs_path: Path | None, models: Collection[str]
) -> tuple[Suite, list[tuple[str, Response]]]:
    """A suite and the stored outputs for it, as (case id, response). Raises BadInput as `grade_outputs` does."""
    suite = load_suites([path], models=models)
    if outputs_path is not None:
        outputs = _read_outputs(outputs_path, {case.case_id for case in suite.cases})
    else:
        outputs = [(c.case_id, Response.of(c.provider_output)) for c in suite.cases if c.provider_output is not None]
    if not outputs:
        raise BadInput(f"{path}: there is nothing to grade; give --outputs OUT.jsonl, or tests with a providerOutput")
    return suite, outputs


def _read_outputs(path: Path, known: set[str]) -> list[tuple[str, Response]]:
    from tunesmith.tools.core.plain_file import read_plain_text

    outputs: list[tuple[str, Response]] = []
    # 64 times a suite's limit: outputs are longer than questions.
    for number, line in enumerate(read_plain_text(path, 640 << 20).split("\n"), 1):
        if line.strip():
            outputs.append(_output_of_line(line, f"{path}:{number}", known))
    return outputs


def _output_of_line(line: str, place: str, known: set[str]) -> tuple[str, Response]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:  # nested without end
        raise BadInput(f"{place}: not JSON: {error}; write one object a line") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("case_id"), str) or "output" not in entry:
        raise BadInput(f'{place}: an output is {{"case_id": text, "output": text}}')
    if entry["case_id"] not in known:
        raise BadInput(f"{place}: the suite has no case {entry['case_id']!r}; `tunesmith suite check` lists its ids")
    response = Response.of("" if entry["output"] is None else entry["output"])
    return entry["case_id"], _with_serving(response, entry, place)


def _with_serving(response: Response, entry: dict[str, object], place: str) -> Response:
    calls, latency, reason = entry.get("tool_calls") or (), entry.get("latency_ms"), entry.get("finish_reason")
    if not isinstance(calls, list | tuple) or not all(isinstance(call, dict) for call in calls):
        raise BadInput(f"{place}: tool_calls is a list of objects")
    if not isinstance(latency, int | float | None) or not isinstance(reason, str | None):
        raise BadInput(f"{place}: latency_ms is a number and finish_reason is text")
    return Response(
        text=response.text, value=response.value, tool_calls=tuple(calls), latency_ms=latency, finish_reason=reason
    )
