"""Answers that nothing decides: the model writes them as the behaviour says, held to its rules."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_log import Asker
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.synthesis import Written
from tunesmith.tools.serving.client import ChatRequest
from tunesmith.tools.suites.case import canonical_json

_SHOTS, _SHOT_CHARS = 4, 3_000
_LONG_ANSWER_CHARS = 60
_TRIED, _AGREEING = 12, 0.25
"""Rows that are solved twice first, and the share of them that has to agree before the others are."""


def write_answers(
    spec: Spec, asker: Asker, written: Sequence[Written], temperature: float, tries: int
) -> list[Written]:
    """The rows with their answers; one that breaks a rule is asked for again and told which."""
    extra = {"top_k": 60, **_held_to_json(spec)}
    done = {one.drawn.row_id: one for one in written if one.problem}
    pending = {one.drawn.row_id: one for one in written if not one.problem}
    broken: dict[str, str] = {}
    for attempt in range(1, tries + 1):
        requests = [
            ChatRequest(
                f"a{attempt}/{row_id}", asker.model, answer_messages(spec, one.message, broken.get(row_id, "")),
                spec.max_tokens, temperature, extra=extra,
            )
            for row_id, one in pending.items()
        ]  # fmt: skip
        for identity, response in asker.ask(requests, "writing answers").items():
            row_id = identity.partition("/")[2]
            answer, cut = response.text.strip(), response.finish_reason == "length"
            problem = "cut off: the answer met the token limit" if cut else answer_problem(spec, answer)
            broken[row_id] = problem.removeprefix("rule: not kept: ")
            if not problem or attempt == tries:
                one = pending.pop(row_id)
                done[row_id] = replace(
                    one, answer=answer, problem=problem, attempt=attempt, finish_reason=response.finish_reason
                )
    return [done[row_id] for row_id in sorted(done)]


def solved_twice(spec: Spec, asker: Asker, written: Sequence[Written]) -> dict[str, bool]:
    """Row → whether a second solution, asked for independently, comes to the same answer.

    The second is greedy where the first was sampled, and shown other examples. Where the first rows show that answers
    are prose, which never is the same twice, the others are not asked; they are no test cases with a known answer.
    """
    good = [one for one in written if not one.problem]
    agreed: dict[str, bool] = {}
    for part in (good[:_TRIED], good[_TRIED:]):
        if agreed and sum(agreed.values()) < _AGREEING * len(agreed):
            break
        requests = [
            ChatRequest(
                f"b/{one.drawn.row_id}", asker.model, answer_messages(spec, one.message, turn=1), spec.max_tokens,
                extra=_held_to_json(spec),
            )
            for one in part
        ]  # fmt: skip
        answers = asker.ask(requests, "solving a second time")
        for one, request in zip(part, requests, strict=True):
            second = answers[request.id].text if request.id in answers else ""
            agreed[one.drawn.row_id] = same_answer(one.answer, second)
    return agreed


def _held_to_json(spec: Spec) -> dict[str, object]:
    """What holds a server to the behaviour's JSON, where it has one."""
    schema = json_schema(spec)
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {"response_format": form} if schema else {}


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are the same value: JSON whatever its layout, text whatever its case, space and last stop."""
    one, other = map(_value, (first, second))
    return one == other and bool(one)


def _value(answer: str) -> object:
    try:
        return canonical_json(json.loads(answer))
    except (ValueError, RecursionError):
        return " ".join(unicodedata.normalize("NFKC", answer).casefold().split()).rstrip(".。!")


def answer_messages(spec: Spec, message: str, broken: str = "", turn: int = 0) -> list[dict[str, str]]:
    """Asks for the answer: description as system prompt, examples as turns; `broken` says what went wrong before.

    All answers of a turn have the same beginning, so that a server's prefix cache holds it; another turn shows the
    examples from the other end.
    """
    examples = spec.examples[::-1] if turn else spec.examples
    shown = _fitting([(example.prompt, example.answer) for example in examples[:_SHOTS]])
    turns = [turn for text, answer in shown for turn in (_turn("user", text), _turn("assistant", answer))]
    return [_turn("system", instructions(spec, broken)), *turns, _turn("user", message)]


def instructions(spec: Spec, broken: str = "") -> str:
    """The behaviour as a system prompt: when, what, never, the labels with their meanings, the rules."""
    parts = [f"When this applies: {spec.when}", f"Answer like this: {spec.what}", f"Never: {spec.never}"]
    for label in spec.labels:
        if label.shown and any(value.means for value in label.values.values()):
            meanings = "\n".join(f"- {name}: {value.means}" for name, value in label.values.items())
            parts.append(f"What the values of {label.name} mean:\n{meanings}")
    if spec.rules:
        parts.append("Every answer keeps these rules:\n" + "\n".join(f"- {rule.says}" for rule in spec.rules))
    return "\n\n".join([*parts, *([f"Take care: {broken}."] if broken else [])])


def answer_problem(spec: Spec, answer: str) -> str:
    """Why an answer cannot be a row's; empty: it can. The first word is the kind."""
    if not answer.strip():
        return "empty: there is no answer"
    if rule := broken_rule(spec.rules, answer):
        return f"rule: not kept: {rule.says}"
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


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
