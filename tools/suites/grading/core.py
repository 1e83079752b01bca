"""What a grade is made of: an assertion, a response, one verdict an assertion, and promptfoo's way of adding them up.

A type of assertion is one small function in one of the sibling modules, entered here by `@assertion_type`. The
semantics are those of promptfoo 0.123.1; the deliberate differences are listed in this package's docstring.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel

from tunesmith.memory.records import AssertionResult, EvalResult
from tunesmith.tools.suites.grading.javascript import CannotGrade, as_json

ASSERT_SET = "assert-set"
PENDING = "waits for the model that it asks"
"""Reason of a result that `grade_deterministic` left open."""


class Assertion(BaseModel, frozen=True, extra="forbid"):
    """One declared expectation, templates already rendered. `children` only in an assert-set."""

    type: str
    value: object = None
    threshold: float | None = None
    weight: float = 1.0
    metric: str | None = None
    children: tuple[Assertion, ...] = ()

    @property
    def base_type(self) -> str:
        """The type without `not-`."""
        return self.type.removeprefix("not-")

    @property
    def text(self) -> str:
        """The value of a type whose check asks for text."""
        return str(self.value)

    @property
    def texts(self) -> list[str]:
        """The value of a type whose check asks for one text, or a list of them."""
        return [str(item) for item in self.value] if isinstance(self.value, list) else [str(self.value)]

    @property
    def inverse(self) -> bool:
        return self.type.startswith("not-")


@dataclass(frozen=True)
class Response:
    """What a model answered. `value` is an output that is not text, as stored ones can be."""

    text: str = ""
    tool_calls: Sequence[Mapping[str, object]] = ()
    """OpenAI's shape: {"type": "function", "function": {"name", "arguments": JSON text}}."""
    finish_reason: str | None = None
    latency_ms: float | None = None
    value: object = None

    @classmethod
    def of(cls, output: object) -> Response:
        """The response whose output is `output`, text or not."""
        return cls(text=output) if isinstance(output, str) else cls(value=output)

    @classmethod
    def stored(cls, result: EvalResult) -> Response:
        """The answer that the store keeps."""
        return cls(result.output, result.tool_calls, result.finish_reason or None, result.latency_ms)

    @property
    def output(self) -> object:
        """Text; or the tool calls alone; or, where there are both, the message with both."""
        if self.value is not None:
            return self.value
        if not self.tool_calls:
            return self.text
        calls = [dict(call) for call in self.tool_calls]
        return {"role": "assistant", "content": self.text, "tool_calls": calls} if self.text else calls

    @property
    def output_text(self) -> str:
        """The output as text assertions see it."""
        return self.output if isinstance(self.output, str) else as_json(self.output)


@dataclass(frozen=True)
class Finding:
    """Whether the positive form holds. Scores default to 1 for a pass and 0 for a failure."""

    holds: bool
    expected: str
    """Completes "expected the output to …"."""
    got: str = ""
    score: float | None = None
    inverse_score: float | None = None


@dataclass(frozen=True)
class Grade:
    """A graded case. With an `error` the case could not be judged: neither passed nor failed."""

    passed: bool
    score: float
    assertions: tuple[AssertionResult, ...] = ()
    """In the suite's order; an assert-set is followed by its members."""
    reason: str = ""
    error: str | None = None
    named_scores: Mapping[str, float] = field(default_factory=dict)
    """Weighted mean score of each `metric`."""
    named_weights: Mapping[str, float] = field(default_factory=dict)
    """What each metric's mean weighs in a sum over cases."""


class Gradable(Protocol):
    """The part of a case that grading reads."""

    @property
    def assertions(self) -> tuple[Assertion, ...]: ...
    @property
    def threshold(self) -> float | None: ...
    @property
    def tools(self) -> tuple[Mapping[str, object], ...]: ...
    @property
    def messages(self) -> tuple[Mapping[str, object], ...]: ...


class Judge(Protocol):
    """A language model without tools that reads a judging prompt and answers it, greedily."""

    def answer(self, prompt: str, form: Mapping[str, object]) -> str:
        """The judge's answer, which should fit the JSON schema `form`. Raises CannotGrade where none can be had."""
        ...


class Embedder(Protocol):
    """A sentence embedding model."""

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """One vector for each text. Raises CannotGrade where none can be had."""
        ...


@dataclass(frozen=True)
class GradingContext:
    """What an assertion may use besides the output."""

    tools: Sequence[Mapping[str, object]] = ()
    """The tools that were offered with the question."""
    question: str = ""
    """What was asked, as one text."""
    judge: Judge | None = None
    embedder: Embedder | None = None


Handler = Callable[[Assertion, Response, GradingContext], Finding]
Check = Callable[[Assertion], None]


@dataclass(frozen=True)
class AssertionType:
    handler: Handler
    check: Check
    needs_value: bool
    asks: str = ""
    """"judge" or "embedder": the model that grading asks; empty for none."""
    is_share: bool = False
    """Whether `threshold` is held against a score that never exceeds 1."""


TYPES: dict[str, AssertionType] = {}
_UNBOUNDED = frozenset(("llm-rubric", "similar:dot"))
"""Types whose score is whatever a model says."""


def assertion_type(
    *names: str, check: Check | None = None, needs_value: bool = True, asks: str = "", is_share: bool = False
) -> Callable[[Handler], Handler]:
    """Enter a handler under its names. `check` raises ValueError for a declaration that can never be graded."""

    def enter(handler: Handler) -> Handler:
        for name in names:
            TYPES[name] = AssertionType(handler, check or (lambda assertion: None), needs_value, asks, is_share)
        return handler

    return enter


def supported_types() -> list[str]:
    """Every type that can be graded; each may also be written with `not-` before it."""
    return sorted([*TYPES, ASSERT_SET])


def type_named(name: str) -> AssertionType:
    """The type that an assertion names, with or without `not-`. Raises ValueError, with the nearest name there is."""
    if (entry := TYPES.get(name.removeprefix("not-"))) is not None:
        return entry
    known = [*supported_types(), *(f"not-{kind}" for kind in supported_types())]
    # a longer one costs a comparison with each, squared
    near = difflib.get_close_matches(name[:60].replace("_", "-"), known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(supported_types())
    raise ValueError(f"the assertion type {name!r} is not supported; {hint}supported, also with not-: {listed}")


def check_assertion(assertion: Assertion) -> None:
    """Refuse, by ValueError, a declaration that could not be graded: unknown type, bad pattern, bad schema."""
    if assertion.type == ASSERT_SET:
        check_threshold(assertion.threshold, [child.base_type for child in assertion.children])
        return
    entry = type_named(assertion.type)
    if entry.is_share:
        check_threshold(assertion.threshold, ())
    entry.check(assertion)


def check_threshold(threshold: float | None, types: Collection[str]) -> None:
    """Refuse, by ValueError, a threshold that no mean of these types' scores reaches, such as a percentage."""
    if threshold is not None and threshold > 1 and not _UNBOUNDED & set(types):
        raise ValueError(
            f"threshold is {threshold:g}, and no score is over 1, so nothing could pass; write a share such as 0.8"
        )


def grade(
    case: Gradable,
    response: Response,
    *,
    judge: Judge | None = None,
    embedder: Embedder | None = None,
) -> Grade:
    """Judge one response: the weighted mean of the scores; all must pass, or with a threshold the mean must reach it.

    A case without assertions passes with score 1. An assertion of weight 0 always passes. A type that asks a model
    which is not given makes the case an error.
    """
    if not case.assertions:
        return Grade(True, 1.0, reason="no assertions")
    context = GradingContext(case.tools, asked(case.messages), judge, embedder)
    return _total(case.assertions, case.threshold, lambda assertion: _grade_one(assertion, response, context))


def grade_deterministic(case: Gradable, response: Response) -> Grade:
    """Like `grade`, with every assertion that asks a model left open: its result says `PENDING`.

    What it sums up to is worth nothing before `grade_pending`; an error is one whatever the models will say.
    """

    def decide(assertion: Assertion) -> tuple[AssertionResult, str | None]:
        if TYPES[assertion.base_type].asks:
            return AssertionResult(assertion.type, False, 0.0, PENDING), None
        return _grade_one(assertion, response, context)

    context = GradingContext(case.tools, asked(case.messages))
    return _total(case.assertions, case.threshold, decide)


def grade_pending(
    case: Gradable,
    response: Response,
    results: Sequence[AssertionResult],
    *,
    judge: Judge | None = None,
    embedder: Embedder | None = None,
) -> Grade:
    """The whole grade: of `results`, as `grade_deterministic` made them, those that wait are decided now."""
    stored = iter([result for result in results if result.type != ASSERT_SET])
    context = GradingContext(case.tools, asked(case.messages), judge, embedder)

    def decide(assertion: Assertion) -> tuple[AssertionResult, str | None]:
        known = next(stored)
        return _grade_one(assertion, response, context) if known.reason == PENDING else (known, None)

    return _total(case.assertions, case.threshold, decide)


def asked(messages: Sequence[Mapping[str, object]]) -> str:
    """What was asked, as one text: the only message's content, or all messages as JSON."""
    if len(messages) == 1 and isinstance(messages[0].get("content"), str):
        return str(messages[0]["content"])
    return as_json(list(messages)) if messages else ""


def asks_model(assertions: Sequence[Assertion]) -> dict[str, str]:
    """Type → "judge" or "embedder", for every type among `assertions` that asks a model."""
    every = [a for assertion in assertions for a in (assertion, *assertion.children) if a.type != ASSERT_SET]
    return {a.type: TYPES[a.base_type].asks for a in every if TYPES[a.base_type].asks}


def total(case: Gradable, results: Sequence[AssertionResult]) -> Grade:
    """The grade that stored results of a case's assertions, as `Grade.assertions` lists them, add up to."""
    stored = iter([result for result in results if result.type != ASSERT_SET])
    if not case.assertions:
        return Grade(True, 1.0, reason="no assertions")
    return _total(case.assertions, case.threshold, lambda assertion: (next(stored), None))


def _total(
    assertions: Sequence[Assertion],
    threshold: float | None,
    decide: Callable[[Assertion], tuple[AssertionResult, str | None]],
) -> Grade:
    tally = _Tally()
    for assertion in assertions:
        if assertion.type == ASSERT_SET:
            inner = _total(assertion.children, assertion.threshold, decide)
            whole = AssertionResult(ASSERT_SET, inner.passed, inner.score, inner.reason)
            tally.add(assertion, whole, inner.error, inner)
        else:
            tally.add(assertion, *decide(assertion))
    return tally.grade(threshold)


def _grade_one(assertion: Assertion, response: Response, context: GradingContext) -> tuple[AssertionResult, str | None]:
    try:
        verdict = TYPES[assertion.base_type].handler(assertion, response, context)
    except CannotGrade as error:
        forgiven = assertion.weight == 0
        return AssertionResult(assertion.type, forgiven, 0.0, str(error)), None if forgiven else str(error)
    passed = verdict.holds != assertion.inverse
    given = verdict.inverse_score if assertion.inverse else verdict.score
    score = float(passed) if given is None else given
    negation = "not " if assertion.inverse else ""
    got = f"; got {verdict.got}" if verdict.got else ""
    reason = "passed" if passed else f"expected the output to {negation}{verdict.expected}{got}"
    return AssertionResult(assertion.type, passed or assertion.weight == 0, score, reason), None


class _Tally:
    """Sums over one level of assertions."""

    def __init__(self) -> None:
        self.results: list[AssertionResult] = []
        self.weighted = self.weight = 0.0
        self.failure = ""
        self.error: str | None = None
        self.metrics: dict[str, tuple[float, float]] = {}  # metric → (weighted score, weight)

    def add(self, assertion: Assertion, result: AssertionResult, error: str | None, inner: Grade | None = None) -> None:
        self.results += [result, *(inner.assertions if inner else ())]
        self.weighted += result.score * assertion.weight
        self.weight += assertion.weight
        self.error = self.error or error
        if not result.passed:
            self.failure = result.reason
        if assertion.metric:
            self._name(assertion.metric, result.score, assertion.weight)
        for name, score in (inner.named_scores if inner else {}).items():
            if name != assertion.metric:
                self._name(name, score, inner.named_weights[name] * assertion.weight if inner else 0.0)

    def _name(self, metric: str, score: float, weight: float) -> None:
        total, weights = self.metrics.get(metric, (0.0, 0.0))
        self.metrics[metric] = total + score * weight, weights + weight

    def grade(self, threshold: float | None) -> Grade:
        score = self.weighted / self.weight if self.weight > 0 else 0.0
        passed, reason = not self.failure, self.failure or "all assertions passed"
        if threshold is not None:
            passed = score >= threshold
            reason = f"score {score:.2f} {'≥' if passed else '<'} threshold {threshold:g}"
        named = {name: total / weight if weight > 0 else 0.0 for name, (total, weight) in self.metrics.items()}
        weights = {name: weight for name, (_, weight) in self.metrics.items()}
        results = tuple(self.results)
        return Grade(passed and self.error is None, score, results, self.error or reason, self.error, named, weights)
