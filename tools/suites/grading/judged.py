"""Assertions that ask a model: a judge that reads the answer, or an embedding model that compares meanings.

Which model that is, the caller decides: `grade(…, judge=…, embedder=…)`. Nothing here calls out by itself. A judge that
cannot be understood makes the case an error, never a failure.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache

from tunesmith.tools.suites.grading import javascript as js
from tunesmith.tools.suites.grading.core import Assertion, Finding, GradingContext, Judge, Response, assertion_type
from tunesmith.tools.suites.grading.json_output import json_objects
from tunesmith.tools.suites.grading.text import quoted
from tunesmith.tools.suites.judge_prompt import judge_prompt, judge_template

_YES = re.compile(r"(true|yes|pass|y)", re.IGNORECASE)
_EPSILON = 2.0**-52  # a double's, as JavaScript has it: sums in another order differ by some of it
_TOP_SCORE = 10  # as promptfoo asks its judge for
_SENTENCE = {"type": "string", "minLength": 1, "maxLength": 240}
"""Of a reason or a step: a judge that is not stopped goes on until its tokens end, and then there is no verdict."""


def _object(**properties: Mapping[str, object]) -> dict[str, object]:
    """The JSON schema of an object with exactly these properties, in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# What a judge's replies should look like; a server that can holds the judge to it.
_VERDICT = _object(reason=_SENTENCE, **{"pass": {"type": "boolean"}}, score={"type": "number"})
# Three or four, as promptfoo's prompt asks for.
_STEPS = _object(steps={"type": "array", "items": _SENTENCE, "minItems": 3, "maxItems": 4})
_SCORE = _object(score={"type": "integer", "minimum": 0, "maximum": _TOP_SCORE}, reason=_SENTENCE)


@cache
def prompts_sha256() -> str:
    """Digest of all prompts that a judge is given, blanks unfilled, and the forms of its replies."""
    texts = [judge_template(name) for name in ("rubric", "steps", "score")]
    return hashlib.sha256(json.dumps([texts, _VERDICT, _STEPS, _SCORE]).encode()).hexdigest()


def judge_prompts(assertion: Assertion) -> int:
    """How many prompts a judge gets for one answer; the steps of a g-eval count, though cases share them."""
    if assertion.base_type != "g-eval":
        return 1
    return 2 * (len(assertion.value) if isinstance(assertion.value, list) else 1)


def _judge(assertion: Assertion, context: GradingContext) -> Judge:
    if context.judge is None:
        raise js.CannotGrade(
            f"{assertion.type} asks a judge, and none is given; serve one, or use a deterministic type"
        )
    return context.judge


def _need_criterion(assertion: Assertion) -> None:
    if not isinstance(assertion.value, str | dict) or not assertion.value:
        raise ValueError(f"{assertion.type} needs a value: what must be true of the output, in words")


@assertion_type("llm-rubric", check=_need_criterion, asks="judge")
def llm_rubric(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """The judge finds the rubric true of the output, and its score reaches `threshold` where there is one."""
    criteria = assertion.value if isinstance(assertion.value, str) else js.as_json(assertion.value)
    judge = _judge(assertion, context)
    asked = judge_prompt("rubric", {"criteria": criteria}, {"output": response.output_text})
    reply = judge.answer(asked, _VERDICT)
    passed, score, reason = read_rubric_reply(reply)
    holds = passed and (assertion.threshold is None or score >= assertion.threshold)
    return Finding(holds, f"fulfil {quoted(criteria)}", f"the judge's {reason!r}", score, max(0.0, min(1.0, 1 - score)))


def read_rubric_reply(reply: str) -> tuple[bool, float, str]:
    """Finding, score and reason of a judge's JSON. Raises CannotGrade where it gives no verdict."""
    reply_object = next(json_objects(reply), None)
    if not isinstance(reply_object, Mapping) or not reply_object.keys() & {"pass", "score"}:
        raise js.CannotGrade(f"the judge gave no verdict in JSON: {quoted(reply)}")
    given, score = reply_object.get("pass"), reply_object.get("score")
    if given is None:
        given = True
    passed = given if isinstance(given, bool) else _YES.fullmatch(js.as_text(given)) is not None
    number = _as_number(score) if "score" in reply_object else math.nan
    return passed, number if math.isfinite(number) else float(passed), str(reply_object.get("reason") or "no reason")


def _as_number(value: object) -> float:
    """What `Number(value)` gives."""
    if isinstance(value, str):
        text = js.trim(value)
        plain = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text)
        return float(text) if plain else math.nan if text else 0.0
    return float(value or 0) if isinstance(value, bool | int | float | None) else math.nan


def _need_texts(assertion: Assertion) -> None:
    value = assertion.value if isinstance(assertion.value, list) else [assertion.value]
    if not value or not all(isinstance(item, str) and item for item in value):
        what = "one criterion in words" if assertion.base_type == "g-eval" else "a text to be near to"
        raise ValueError(f"{assertion.type} needs a value: {what}, or a list of them")


@assertion_type("g-eval", check=_need_texts, asks="judge", is_share=True)
def g_eval(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """The mean of the judge's scores for each criterion, in tenths, at least `threshold` (0.7). Liu et al. 2023.

    The judge first writes its own steps for a criterion, then scores by them; log probabilities are not weighed in.
    """
    judge = _judge(assertion, context)
    scored = [_g_score(judge, criterion, response.output_text, context.question) for criterion in assertion.texts]
    score = sum(value for value, _ in scored) / len(scored)
    # promptfoo's own threshold.
    threshold = 0.7 if assertion.threshold is None else assertion.threshold
    reasons = "; ".join(reason for _, reason in scored)
    return Finding(score >= threshold, f"score {threshold:g} by the judge", f"{score:.2f}: {reasons}", score, 1 - score)


def _g_score(judge: Judge, criterion: str, output: str, question: str) -> tuple[float, str]:
    asked = judge_prompt("steps", {"criteria": criterion}, {})
    steps = _reply_object(judge.answer(asked, _STEPS), r'\{"steps".+\}').get("steps")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise js.CannotGrade(f"the judge wrote no steps to judge by: {js.as_json(steps)[:120]}")
    listed = "\n".join(f"- {step}" for step in steps)
    prompt = judge_prompt("score", {"criteria": criterion, "steps": listed}, {"question": question, "output": output})
    reply = _reply_object(judge.answer(prompt, _SCORE), r"\{.+\}")
    given, reason = reply.get("score"), reply.get("reason")
    text = isinstance(given, str) and js.trim(given) != ""
    # True is an int, too
    number = _as_number(given) if text or (isinstance(given, int | float) and not isinstance(given, bool)) else math.nan
    if not 0 <= number <= _TOP_SCORE or not isinstance(reason, str) or not reason.strip():
        raise js.CannotGrade(f"the judge gave no score from 0 to {_TOP_SCORE} with a reason: {js.as_json(reply)[:120]}")
    return number / _TOP_SCORE, reason


def _reply_object(reply: str, pattern: str) -> Mapping[str, object]:
    """The JSON object that a reply is, on however many lines, else the one that it holds on one line."""
    match = re.search(pattern, reply)
    for text in (reply, match.group() if match else ""):
        try:
            value = js.parse_json(text)
        except ValueError:  # the object in it is tried next, then said to be none
            continue
        if isinstance(value, Mapping):
            return value
    raise js.CannotGrade(f"the judge's reply is not JSON: {quoted(reply)}")


@assertion_type("similar:dot", "similar:euclidean", check=_need_texts, asks="embedder")
@assertion_type("similar", "similar:cosine", check=_need_texts, asks="embedder", is_share=True)
def similar(assertion: Assertion, response: Response, context: GradingContext) -> Finding:
    """The output means what one of the values means: similarity at least `threshold` (0.75), distance at most it."""
    if context.embedder is None:
        raise js.CannotGrade(f"{assertion.type} needs an embedding model; pip install 'tunesmith[similar]'")
    values = assertion.value if isinstance(assertion.value, list) else [assertion.value]
    # promptfoo's own threshold.
    threshold = 0.75 if assertion.threshold is None else assertion.threshold
    metric = assertion.base_type.partition(":")[2] or "cosine"
    ours, *others = context.embedder.embed([response.output_text, *values])
    compared = [_nearness(ours, other, metric, threshold, assertion.inverse) for other in others]
    # The first that holds speaks, as in promptfoo; else the nearest.
    holds, score = next((one for one in compared if one[0]), max(compared))
    return Finding(holds, f"be similar ({metric}, {threshold:g})", f"{score:.3f}", score, 1 - score)


def _nearness(
    ours: Sequence[float], other: Sequence[float], metric: str, threshold: float, inverse: bool
) -> tuple[bool, float]:
    """Whether the pair is near enough, and its score. On the edge both forms pass: rounding decides nothing."""
    edge = -_EPSILON if inverse else _EPSILON
    if metric == "euclidean":
        distance = math.dist(ours, other)
        return (distance < threshold + edge if inverse else distance <= threshold + edge), 1 / (1 + distance)
    similarity = sum(a * b for a, b in zip(ours, other, strict=True))
    if metric == "cosine":
        norms = math.hypot(*ours) * math.hypot(*other)
        similarity = similarity / norms if norms else 0.0
    return (similarity > threshold - edge if inverse else similarity >= threshold - edge), similarity
