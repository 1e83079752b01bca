"""Answers that nothing decides: the model writes them as the behaviour says, held to its rules."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.model_requests import Asker, assistant, system, user
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.synthesis import Written
from tunesmith.tools.serving.client import ChatRequest
from tunesmith.tools.suites.case import canonical_json

Judge = Callable[[Mapping[str, tuple[str, str]]], dict[str, float]]
"""Name → message and answer, to name → the probability that the answer is right."""
_SHOTS, _SHOT_CHARS = 4, 3_000
_LONG_ANSWER_CHARS = 60
_SAMPLES, _AT_ONCE = 4, 2
_AGREEING, _EPSILON = 0.25, 1e-4
"""Where fewer rows have two answers that are the same, answers are prose."""


def write_answers(
    spec: Spec, asker: Asker, written: Sequence[Written], temperature: float, judge: Judge | None = None
) -> list[Written]:
    """The rows with their answers, each the best of four that keep the rules.

    Two are asked for first, one of them greedy, behind other examples. Where they come to the same value that is taken;
    else two more are, and then what most of them come to. Prose is never the same twice: of it the one that the judge
    finds likeliest to be right is taken; without a judge it is asked for again only where no answer keeps the rules. A
    row without one that does says which was broken.
    """
    done = {one.drawn.row_id: one for one in written if one.problem}
    pending = {one.drawn.row_id: one for one in written if not one.problem}
    attempts: dict[str, list[_Answer]] = {row_id: [] for row_id in pending}
    for first in range(0, _SAMPLES, _AT_ONCE):
        for row_id, answers in _answered(spec, asker, pending, first, temperature).items():
            attempts[row_id] += answers
        same = [row_id for row_id, answers in attempts.items() if _agreed(answers, most=True)]
        prose = judge is None and len(same) < _AGREEING * len(attempts)
        sound = {
            row_id for row_id, answers in attempts.items() if prose and any(not answer.problem for answer in answers)
        }
        pending = {row_id: one for row_id, one in pending.items() if row_id not in {*same, *sound}}
    left = [row_id for row_id, answers in attempts.items() if not _agreed(answers)]
    pairs = {
        f"{row_id}/{place}": (one.message, answer.text)
        for one in written
        if (row_id := one.drawn.row_id) in left
        for place, answer in enumerate(attempts[row_id])
        if not answer.problem
    }
    likely = judge(pairs) if judge else {}
    for one in written:
        if not one.problem:
            done[one.drawn.row_id] = _best(one, attempts[one.drawn.row_id], likely)
    return [done[row_id] for row_id in sorted(done)]


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    problem: str
    finish_reason: str | None


def _answered(
    spec: Spec, asker: Asker, pending: Mapping[str, Written], first: int, temperature: float
) -> dict[str, list[_Answer]]:
    """Row → its answers to the next samples."""
    extra = {"top_k": 60, **_json_format(spec)}
    requests = [
        ChatRequest(
            f"a{sample}/{row_id}", asker.model, answer_messages(spec, one.message, turn=one.drawn.order + sample),
            spec.max_tokens, temperature if sample else 0.0, extra=extra,
        )
        for row_id, one in pending.items()
        for sample in range(first, first + _AT_ONCE)
    ]  # fmt: skip
    answers: dict[str, list[_Answer]] = {row_id: [] for row_id in pending}
    for identity, response in asker.ask(requests, "writing answers").items():
        text, cut = response.text.strip(), response.finish_reason == "length"
        problem = "cut off: the answer met the token limit" if cut else answer_problem(spec, text)
        answers[identity.partition("/")[2]].append(_Answer(text, problem, response.finish_reason))
    return answers


def _agreed(answers: Sequence[_Answer], *, most: bool = False) -> list[_Answer]:
    """The answers that come to the value that most do, two at least; none where no two do, or not `most` of all."""
    groups: dict[object, list[_Answer]] = {}
    for answer in answers:
        if not answer.problem:
            groups.setdefault(_value(answer.text), []).append(answer)
    largest = max(groups.values(), key=len, default=[])
    return largest if len(largest) > (len(answers) / 2 if most else 1) else []


def _best(one: Written, answers: Sequence[_Answer], likely: Mapping[str, float]) -> Written:
    """The row with the best of its answers, and whether most of them come to the same."""
    if not answers:
        return replace(one, problem="empty: there is no answer")
    if alike := _agreed(answers):
        margin = round(math.log(len(alike) / (len(answers) - len(alike) + 0.5)), 2)
        known = bool(_agreed(answers, most=True))
        return replace(one, answer=alike[0].text, finish_reason=alike[0].finish_reason, agreed=known, margin=margin)
    row_id = one.drawn.row_id
    sound = [(likely.get(f"{row_id}/{n}", 0.0), -n, answer) for n, answer in enumerate(answers) if not answer.problem]
    if not sound:
        return replace(one, answer=answers[0].text, problem=answers[0].problem, finish_reason=answers[0].finish_reason)
    right, _, answer = max(sound)
    odds = round(math.log((right + _EPSILON) / (1 - right + _EPSILON)), 2) if likely else None
    return replace(one, answer=answer.text, finish_reason=answer.finish_reason, agreed=False, margin=odds)


def _json_format(spec: Spec) -> dict[str, object]:
    """What holds a server to the behaviour's JSON, where it has one."""
    schema = json_schema(spec)
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {"response_format": form} if schema else {}


def _value(answer: str) -> object:
    """What two answers are the same by: JSON whatever its layout, text whatever its case, space and last stop."""
    try:
        return canonical_json(json.loads(answer))
    except (ValueError, RecursionError):
        return " ".join(unicodedata.normalize("NFKC", answer).casefold().split()).rstrip(".。!")


def answer_messages(spec: Spec, message: str, broken: str = "", turn: int = 0) -> list[dict[str, str]]:
    """Asks for the answer: description as system prompt, examples as turns; `broken` says what went wrong before.

    All answers of a turn have the same beginning, so that a server's prefix cache holds it; the next turn shows the
    next examples, so that all of them are shown in turn.
    """
    count = len(spec.examples)
    start = turn % -(-count // _SHOTS) * _SHOTS
    examples = [spec.examples[(start + n) % count] for n in range(min(_SHOTS, count))]
    shots = _fitting([(example.prompt, example.answer) for example in examples])
    turns = [turn for text, answer in shots for turn in (user(text), assistant(answer))]
    return [system(instructions(spec, broken)), *turns, user(message)]


def instructions(spec: Spec, broken: str = "") -> str:
    """The behaviour as a system prompt: when, what, never, the labels with their meanings, the rules."""
    sections = [f"When this applies: {spec.when}", f"Answer like this: {spec.what}", f"Never: {spec.never}"]
    for label in spec.labels:
        if label.shown and any(value.means for value in label.values.values()):
            meanings = "\n".join(f"- {name}: {value.means}" for name, value in label.values.items())
            sections.append(f"What the values of {label.name} mean:\n{meanings}")
    if spec.rules:
        sections.append("Every answer keeps these rules:\n" + "\n".join(f"- {rule.says}" for rule in spec.rules))
    return "\n\n".join([*sections, *([f"Take care: {broken}."] if broken else [])])


def answer_problem(spec: Spec, answer: str) -> str:
    """Why an answer cannot be a row's; empty: it can. The first word is the kind."""
    if not answer.strip():
        return "empty: there is no answer"
    if rule := broken_rule(spec.rules, answer):
        return f"rule: not kept: {rule.says}"
    if problem := form_of(spec).problem(answer):
        return problem
    long = len(normal(answer)) >= _LONG_ANSWER_CHARS
    copied = long and normal(answer) in {normal(example.answer) for example in spec.examples}
    return "copy: the answer is that of an example" if copied and not form_of(spec).composed else ""


def json_schema(spec: Spec) -> dict[str, object] | None:
    """One JSON Schema of all is-json rules, for a server that can be held to it; None where the form is not JSON."""
    schemas = [rule.value for rule in spec.rules if rule.type == "is-json" and isinstance(rule.value, Mapping)]
    if not schemas or schemas[0].get("type") != "object":
        return None
    merged = {**schemas[0], "properties": {key: dict(of) for key, of in schemas[0].get("properties", {}).items()}}
    for schema in schemas[1:]:
        for key, of in schema.get("properties", {}).items():
            merged["properties"].setdefault(key, {}).update(of)
    return merged


def _fitting(shots: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """The first of `shots` that fit into a request together, and at least one."""
    sizes = accumulate(sum(map(len, shot)) for shot in shots)
    return shots[: max(1, sum(size <= _SHOT_CHARS for size in sizes))]
