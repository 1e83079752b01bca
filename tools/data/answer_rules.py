"""What every answer of a behaviour keeps, as rules that code checks: each in plain words and as an assertion.

A rule is stated (a `Check`: by the user's file, a person, or a model that read the user's words) or follows from the
form of JSON examples. Nothing is concluded from words by patterns. Not covered: whether an answer is true, or good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.strict_json import json_value
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Assertion, Response, asks_model, check_assertion, grade


class Rule(Frozen):
    """One thing that holds for every answer."""

    says: str = Field(min_length=1)
    """In plain words, for the user and for the model that writes answers."""
    type: str
    """An assertion type that asks no model."""
    value: object = None
    guessed: bool = Field(default=False, exclude_if=lambda guessed: not guessed)
    """Whether it was concluded from examples and nobody stated it: it keeps no row of a person's out."""

    @property
    def assertion(self) -> Assertion:
        """The rule as suites assert it."""
        return Assertion(type=self.type, value=self.value)

    @model_validator(mode="after")
    def _gradable(self) -> Rule:
        check_assertion(self.assertion)
        if asks_model([self.assertion]):
            raise ValueError(f"{self.type} asks a model; a rule is checked in code")
        return self


def broken_rule(rules: Sequence[Rule], answer: str) -> Rule | None:
    """The first rule that an answer breaks."""
    return next((rule for rule in rules if not _holds(rule, answer)), None)


def _holds(rule: Rule, answer: str) -> bool:
    case = Case(case_id="rule", suite="rules", messages=(), assertions=(rule.assertion,))
    return grade(case, Response(text=answer)).passed


# What may be stated

Unit = Literal["words", "characters", "lines"]


class Check(Frozen):
    """Something that was stated of every answer and that code can check."""

    kind: Literal["at most", "at least", "exactly", "begins with", "ends with", "every line begins with", "never says"]
    # A rule may be a model's reading, or a stranger's: beyond these bounds no answer here could keep it.
    count: int | None = Field(default=None, ge=1, le=10_000)
    unit: Unit | None = None
    text: str = Field(default="", max_length=200)
    """What it, or each of its lines, begins or ends with, or never says."""

    @model_validator(mode="after")
    def _whole(self) -> Check:
        counted = self.kind in ("at most", "at least", "exactly")
        if counted and (self.count is None or self.unit is None):
            raise ValueError(f"{self.kind} needs a count and a unit")
        if not counted and not self.text.strip():
            raise ValueError(f"{self.kind} needs a text")
        return self


def rule_of(check: Check) -> Rule:
    """A check as a rule."""
    if check.count is None or check.unit is None:
        return _text_rule(check.kind, check.text)
    count, unit = check.count, check.unit
    says = f"{check.kind} {count} {unit if count > 1 else unit[:-1]}"
    least, most = check.kind != "at most", check.kind != "at least"
    if unit == "words":
        bounds = ({"min": count} if least else {}) | ({"max": count} if most else {})
        return Rule(says=says, type="word-count", value=bounds)
    low, high = count if least else 1, count if most else 0
    if unit == "characters":
        return Rule(says=says, type="regex", value=rf"^[\s\S]{{{low},{high or ''}}}$")
    more = f"{{{low - 1},{high - 1 if high else ''}}}"
    return Rule(says=says, type="regex", value=rf"^\s*[^\n]+(?:\n+[^\n]+){more}\s*$")


def _text_rule(kind: str, text: str) -> Rule:
    """A rule on what an answer, or each of its lines, begins or ends with, or never says."""
    plain = escaped(text)
    if kind == "never says":
        return Rule(says=f"never says {text!r}", type="not-icontains", value=text)
    if kind == "every line begins with":
        line = rf"{plain}[^\n]*"
        return Rule(says=f"{kind} {text!r}", type="regex", value=rf"^\s*{line}(?:\n+{line})*\s*$")
    value = rf"^\s*{plain}" if kind == "begins with" else rf"{plain}\s*$"
    return Rule(says=f"the answer {kind} {text!r}", type="regex", value=value)


# What the form of the examples says by itself


def json_rules(answers: Sequence[str]) -> list[Rule]:
    """The keys of answers that are JSON objects and what stands under each; the items of lists. None for other texts.

    Every rule holds for every one of the answers.
    """
    values = _json_values(answers)
    if values is None:
        return []
    if isinstance(values[0], list):
        items = _type_of([item for value in values for item in value])
        schema = {"type": "array", **({"items": items} if items else {})}
        return [Rule(says=f"the answer is a JSON list{_words_of(items, ' of ')}", type="is-json", value=schema)]
    first, *rest = [set(value) for value in values]
    keys, always = list(dict.fromkeys(k for value in values for k in value)), first.intersection(*rest)
    required = [key for key in keys if key in always]
    shape = {
        "type": "object", "required": required, "additionalProperties": False, "properties": {key: {} for key in keys},
    }  # fmt: skip
    optional = [key for key in keys if key not in always]
    beside = f", and sometimes {', '.join(optional)}" if optional else ""
    sentence = f"the answer is one JSON object with the keys {', '.join(required)}{beside}, and no other text"
    rules = [Rule(says=sentence, type="is-json", value=shape)] if required else []
    for key in keys:
        if kind := _type_of([value[key] for value in values if key in value]):
            schema = {"type": "object", "properties": {key: kind}}
            rules.append(Rule(says=f"{key} is {_words_of(kind)}", type="is-json", value=schema))
    return rules


def _json_values(answers: Sequence[str]) -> list[Any] | None:
    """The answers as JSON objects or lists; None where any of them is neither."""
    values = [json_value(answer) for answer in answers]
    return values if {type(value) for value in values} in ({dict}, {list}) else None


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_JSON_WORDS = {"string": "text", "boolean": "true or false", "integer": "a whole number", "number": "a number"}
_JSON_WORDS |= {"array": "a list", "object": "an object", "null": "null"}


def _type_of(values: Sequence[object]) -> dict[str, str | list[str]]:
    """The JSON Schema type that all values have; empty where they differ in more than null, or there are none."""
    kinds = {_JSON_TYPES.get(type(value), "null") for value in values}
    if "number" in kinds:
        kinds.discard("integer")
    plain = kinds - {"null"}
    if len(plain) != 1:
        return {}
    name = plain.pop()
    return {"type": [name, "null"] if "null" in kinds else name}


def _words_of(schema: Mapping[str, str | list[str]], before: str = "") -> str:
    if not schema:
        return ""
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return before + " or ".join(_JSON_WORDS[name] for name in names)


def escaped(text: str) -> str:
    """`text` as a regex on one line that JavaScript and Python read alike, and in which no template begins."""
    return re.sub(r"[\\^$.*+?()\[\]{}|/]", lambda match: "\\" + match[0], text).replace("\n", "\\n")
