"""Suites: promptfoo's YAML, its declarative part, read into cases that can be asked and graded.

Anything that would run code, reach the network or leave the suite's folder is refused by name, at its line,
before any case exists. Parsing itself is in `suite_parse`; this module is what the stages use.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.tools.grading import Assertion, Embedder, Grade, Judge, Response, asks_model, grade
from tunesmith.tools.stage import ARMS
from tunesmith.tools.suite_metrics import DerivedMetric, derive

Block = Literal["target", "general", "tools", "adversarial"]
BLOCKS: tuple[Block, ...] = ("target", "general", "tools", "adversarial")
BUNDLED = ("general", "tools")
"""Suites that come with tunesmith, for any model."""


def canonical_sha256(value: Any) -> str:
    """Hex sha256 of plain data, independent of the order of its keys."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Plain data as JSON text, independent of the order of its keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


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
    arms: tuple[str, ...] = ()
    """The arms that it is asked of, where the suite's providers name arms; empty: every one."""

    @property
    def cluster(self) -> str:
        """The seed row that it was made from (`metadata.seed_row`); its own id where it names none."""
        row = self.metadata.get("seed_row")
        return self.case_id if row is None else str(row)

    @property
    def request_sha256(self) -> str:
        """What is asked, without what is expected: unchanged, a stored output may be graded again."""
        return canonical_sha256([self.messages, self.tools, self.tool_choice, self.sampling])

    def asked_of(self, arm: str, together: Collection[str]) -> bool:
        """Whether an arm is asked this where the arms `together` answer in one step.

        A case with select-best needs another arm's answer beside it: one arm alone is not asked.
        """
        answering = [name for name in together if not self.arms or name in self.arms]
        return arm in answering and (not self.needs_rivals or len(answering) > 1)

    @property
    def needs_rivals(self) -> bool:
        """Whether its grade rests on other arms' answers."""
        return "select-best" in {kind.removeprefix("not-") for kind in self.assertion_types}

    def dump(self) -> dict[str, Any]:
        """Plain data; what restricts nothing is left out, and so changes no hash."""
        return self.model_dump(mode="json", exclude=None if self.arms else {"arms"})

    @property
    def assertion_types(self) -> list[str]:
        """The types in order, an assert-set followed by its members."""
        return [a.type for assertion in self.assertions for a in (assertion, *assertion.children)]


class Suite(BaseModel):
    """Cases with unique ids, from one file or several."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: tuple[Case, ...]
    derived_metrics: tuple[DerivedMetric, ...] = ()
    """Figures over the graded cases; no part of the suite's identity, as they change no verdict."""

    @cached_property
    def sha256(self) -> str:
        """Identity of the parsed content: the same for the same cases, however they were written down."""
        digest = hashlib.sha256(b"[")  # case by case: 10,000 at once would take as much memory as the suite itself
        for number, case in enumerate(self.cases):
            digest.update((("," if number else "") + canonical_json(case.dump())).encode())
        digest.update(b"]")
        return digest.hexdigest()

    def with_cases(self, cases: Iterable[Case]) -> Suite:
        """A suite of these cases instead; its sha256 is its own."""
        return Suite(cases=tuple(cases), derived_metrics=self.derived_metrics)

    def block(self, name: str) -> tuple[Case, ...]:
        """The cases of one block, in the suite's order."""
        return tuple(case for case in self.cases if case.block == name)

    def to_json(self) -> str:
        """Everything, for `from_json`."""
        rest = json.dumps({"sha256": self.sha256, **self.model_dump(mode="json", exclude={"cases"})})
        cases = ",\n".join(case.model_dump_json() for case in self.cases)
        return f'{rest[:-1]}, "cases": [\n{cases}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Suite:
        """The suite that `to_json` wrote. Raises BadInput where the text is not one or was changed."""
        try:
            data = json.loads(text)
            sha256, cases = data.pop("sha256"), data.pop("cases")
            shared: dict[str, Assertion] = {}
            cases.reverse()
            read = [_case_of(cases.pop(), shared) for _ in range(len(cases))]  # each is let go of once it is read
            suite = cls.model_validate({**data, "cases": read})
        except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
            raise BadInput(f"not a stored suite: {str(error)[:200]}; run the baseline again") from None
        if suite.sha256 != sha256:
            raise BadInput("the stored suite was changed since the baseline; run the baseline again")
        return suite


def _case_of(data: dict[str, Any], shared: dict[str, Assertion]) -> Case:
    """A stored case; an assertion that many cases have is held once."""
    for raw in (raws := data["assertions"]):
        if (text := canonical_json(raw)) not in shared:
            shared[text] = Assertion.model_validate(raw)
    return Case.model_validate({**data, "assertions": tuple(shared[canonical_json(raw)] for raw in raws)})


def load_suites(paths: Sequence[Path], *, models: Collection[str] = ()) -> Suite:
    """Parse suite files into one suite. Raises BadInput with file, line, reason and the next thing to do.

    `general` and `tools` name the suites that come with tunesmith. `models` are the roles ("judge", "embedder") that
    somebody fills: assertions that ask another are refused by name.
    """
    from tunesmith.tools.suite_parse import parse_suite

    if not paths:
        raise BadInput(f"no suite named; give promptfoo YAML files, or {' or '.join(BUNDLED)}")
    cases: dict[str, tuple[Case, str]] = {}
    metrics: dict[str, DerivedMetric] = {}
    for path in paths:
        parsed = parse_suite(bundled(Path(path)))
        own: list[Case] = []
        for case, place in parsed.cases:
            if case.case_id in cases:
                first = cases[case.case_id][1]
                raise BadInput(
                    f"{place}: the case id {case.case_id!r} is taken by the test at {first}; give one of them another "
                    "metadata.case_id, or remove the copy"
                )
            _refuse_models(case, place, models)
            cases[case.case_id] = case, place
            own.append(case)
        metrics.update(parsed.metrics(metric_names(own), metrics))
    return Suite(cases=tuple(case for case, _ in cases.values()), derived_metrics=tuple(metrics.values()))


def bundled(path: Path) -> Path:
    """The bundled suite that a bare name stands for, as no suite file lacks a suffix; any other path as it is."""
    if str(path) not in BUNDLED:
        return path
    return Path(str(files("tunesmith.prompts"))) / "suites" / f"{path}.yaml"


def metric_names(cases: Iterable[Case]) -> set[str]:
    """Every name that an assertion of these cases gives as its metric."""
    return {a.metric for case in cases for top in case.assertions for a in (top, *top.children) if a.metric}


_MISSING = {
    "judge": "asks a judge, and none is given here: baseline and evaluate serve one; use a deterministic type such as "
    "icontains, regex or is-json",
    "embedder": "needs an embedding model, and none is given here; pip install 'tunesmith[similar]', or use rouge-n",
}


def _refuse_models(case: Case, place: str, models: Collection[str]) -> None:
    for kind, role in asks_model(case.assertions).items():
        if role not in models:
            raise BadInput(f"{place}: the assertion type {kind!r} {_MISSING[role]}")


def check_suites(paths: Sequence[Path]) -> dict[str, Any]:
    """`suite check`: the cases that the files hold, with block and types of assertion, and what all of them need."""
    suite = load_suites(paths, models=("judge", "embedder"))
    cases = [
        {
            "case_id": case.case_id,
            "block": case.block,
            "assertions": case.assertion_types,
            "suite": case.suite,
            "arms": list(case.arms or ARMS),
        }
        for case in suite.cases
    ]
    types = Counter(kind for case in suite.cases for kind in case.assertion_types)
    asking = {kind: role for case in suite.cases for kind, role in asks_model(case.assertions).items()}
    return {
        "cases": cases,
        "sha256": suite.sha256,
        "blocks": {b: len(suite.block(b)) for b in BLOCKS if suite.block(b)},
        "seed_rows": {b: len({case.cluster for case in suite.block(b)}) for b in BLOCKS if suite.block(b)},
        "types": dict(types.most_common()),
        "asks": asking,
        "metrics": sorted(metric_names(suite.cases)),
        "derived_metrics": {metric.name: metric.value for metric in suite.derived_metrics},
        "tools": sorted({tool["function"]["name"] for case in suite.cases for tool in case.tools}),
        "requests": sum(case.repeat for case in suite.cases),
    }


def grade_outputs(
    path: Path, outputs_path: Path | None = None, *, judge: Judge | None = None, embedder: Embedder | None = None
) -> dict[str, Any]:
    """`suite grade`: stored outputs graded: a JSONL file's, or the tests' own `providerOutput`.

    A case named twice in the file is graded twice, and select-best compares its outputs; cases without an output are
    listed under `missing`. Raises BadInput for a broken file, an id that the suite lacks, no output at all, or an
    assertion that asks a model which is not given.
    """
    suite, outputs = read_graded(path, outputs_path, judge=judge, embedder=embedder)
    by_id = {case.case_id: case for case in suite.cases}
    grades = grade_all(suite, outputs, judge=judge, embedder=embedder)
    graded = [_graded(by_id[case_id], result) for (case_id, _), result in zip(outputs, grades, strict=True)]
    return {
        "cases": graded,
        "passed": sum(entry["passed"] for entry in graded),
        "errors": sum("error" in entry for entry in graded),
        "missing": sorted(by_id.keys() - {case_id for case_id, _ in outputs}),
        "sha256": suite.sha256,
        "derived_metrics": derive(suite.derived_metrics, grades),
    }


def read_graded(
    path: Path, outputs_path: Path | None, *, judge: Judge | None = None, embedder: Embedder | None = None
) -> tuple[Suite, list[tuple[str, Response]]]:
    """A suite and the stored outputs for it, as (case id, response). Raises BadInput as `grade_outputs` does."""
    models = {role for role, model in (("judge", judge), ("embedder", embedder)) if model is not None}
    suite = load_suites([path], models=models)
    if outputs_path is not None:
        outputs = _read_outputs(outputs_path, {case.case_id for case in suite.cases})
    else:
        outputs = [(c.case_id, Response.of(c.provider_output)) for c in suite.cases if c.provider_output is not None]
    if not outputs:
        raise BadInput(f"{path}: there is nothing to grade; give --outputs OUT.jsonl, or tests with a providerOutput")
    return suite, outputs


def grade_all(
    suite: Suite,
    outputs: Sequence[tuple[str, Response]],
    *,
    judge: Judge | None = None,
    embedder: Embedder | None = None,
) -> list[Grade]:
    """A grade for each output; select-best sees the other outputs of the same case."""
    by_id = {case.case_id: case for case in suite.cases}
    texts: dict[str, list[str]] = {}
    for case_id, response in outputs:
        texts.setdefault(case_id, []).append(response.output_text)
    return [
        grade(by_id[i], r, judge=judge, embedder=embedder, rivals=texts[i] if len(texts[i]) > 1 else ())
        for i, r in outputs
    ]


def _graded(case: Case, result: Grade) -> dict[str, Any]:
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
