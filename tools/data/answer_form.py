"""The form of a behaviour's answers: one class each, which puts an answer together, takes it apart and tests one.

Nothing else asks which form a spec has. A record is what one answer, or one line of a list, says: the path of each
value (`city`, `items[0].price`, `tags[1]`) with the value as a text, None where the message does not say it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast

from tunesmith.tools.data.answer_rules import Rule, escaped
from tunesmith.tools.data.answer_shape import (
    Span,
    fill,
    json_values_at,
    pattern_of,
    place_expected,
    place_grammar,
    place_rule,
    places_at,
    several,
)
from tunesmith.tools.data.record_values import (
    NotOfTheForm,
    Values,
    argument_kind,
    at_path,
    build,
    call_of,
    expected_schema,
    flatten,
    in_order,
    indent_of,
    json_kind,
    json_object,
    kinds_in,
    may_lack,
    parameters_of,
    shape_schema,
    typed_value,
)
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import is_decided, literal
from tunesmith.tools.suites.grading import Response
from tunesmith.tools.suites.grading.calls import wrong_call
from tunesmith.tools.suites.grading.code import is_parsed

Assertion = dict[str, object]


class Expected(NamedTuple):
    """What a suite asserts of a right answer, and whether that is its whole meaning: the rest is for a judge."""

    assertions: list[Assertion]
    whole: bool


class AnswerForm:
    """The answers of one behaviour. What a form cannot do it says by its class attributes."""

    composed: ClassVar[bool] = True
    """Whether code puts answers together from drawn values; else a model writes them."""
    of_records: ClassVar[bool] = False
    """Whether one answer holds several records, so that no value is the answer's own."""
    one_record: ClassVar[bool] = True
    """Whether values can change places within an answer: it holds exactly one record."""
    is_text: ClassVar[bool] = True
    """Whether a model gives its answers as text, which rules can look at; else as a call of a tool."""
    says_what_it_is: ClassVar[bool] = False
    """Whether a text of this form can be nothing else, whatever its values are."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.shown = [a for a in spec.attributes if a.shown]

    @property
    def computes(self) -> bool:
        """Whether a value in it is computed from others, so that none can be changed alone."""
        return "computed" in kinds_in(self.shown)

    @property
    def near_copies_differ(self) -> bool:
        """Whether messages that differ in a number alone have answers that differ."""
        return self.computes

    def tells(self, attribute: Attribute, values: Mapping[str, str | None]) -> bool:
        """Whether a message with these labels has anything to say of an attribute."""
        return True

    def compose(self, records: Sequence[Mapping[str, str | None]]) -> str:
        """The answer that these values make; empty where a model has to write it."""
        return ""

    def parse(self, answer: str) -> list[Values] | None:
        """The records of an answer, none where it says `otherwise`; None where it is not of the form."""
        return None

    def grammar(self) -> dict[str, object]:
        """What a server holds an answer of one record to, as vLLM's `structured_outputs`; empty: nothing."""
        return {}

    def schema(self) -> dict[str, object] | None:
        """The JSON schema that a server can hold any answer to; None where answers are no JSON, or only may be."""
        return None

    def rules(self) -> tuple[Rule, ...]:
        """What every answer of the form keeps, checked by code."""
        return self._language_rule()

    def problem(self, answer: str) -> str:
        """Why a text is no answer of the form, where no rule tells it; the first word is the kind. Empty: it is one."""
        return ""

    def shared(self) -> list[Assertion]:
        """What a suite asserts of every answer, beside the rules."""
        return []

    def expected(self, answer: str) -> Expected | None:
        """What is right of an answer, given one that is; None where the form does not decide it."""
        return None

    def values_at(self, answer: str) -> tuple[Span, ...]:
        """Where an answer says its values, as ranges of characters; nothing where that is not known."""
        return json_values_at(answer)

    def response(self, answer: str) -> Response:
        """The answer as it would come from a model, to be graded."""
        return Response(text=answer)

    def turn(self, answer: str) -> dict[str, Any]:
        """The assistant's message that gives this answer."""
        return {"role": "assistant", "content": answer}

    def _language_rule(self) -> tuple[Rule, ...]:
        language = self.spec.answer.language
        if not is_parsed(language):
            return ()
        fenced = all(example.answer.startswith("```") for example in self.spec.examples)
        says = f"the answer is {language} that can be parsed" + (", in a fence" if fenced else " and nothing else")
        return (Rule(says=says, type="is-code", value={"language": language, "fenced": fenced}),)

    def __str__(self) -> str:
        return self.spec.answer.form


class FreeText(AnswerForm):
    """Answers that a model writes, held to the rules: nothing in them is decided by what was drawn."""

    composed = False
    one_record = False


class Text(AnswerForm):
    """The template with its places filled, or `otherwise`."""

    near_copies_differ = True

    def compose(self, records: Sequence[Mapping[str, str | None]]) -> str:
        (values,) = records or ({},)
        if not records or any(values.get(name) is None for name in self.spec.answer.needs):
            return self.spec.answer.otherwise
        return self._line(values)

    def parse(self, answer: str) -> list[Values] | None:
        otherwise = self.spec.answer.otherwise.strip()
        if otherwise and answer.strip() == otherwise:
            return []
        lines = [self._record(line) for line in self._split(answer.strip())]
        return [line for line in lines if line is not None] if None not in lines else None

    def grammar(self) -> dict[str, object]:
        segments = re.split(r"\{(\w+)\}", self.spec.answer.template)
        slots = [
            place_grammar(self.spec.attribute(p), segments[n + 1]) if n % 2 else escaped(p)
            for n, p in enumerate(segments)
        ]
        line, other = "".join(slots), escaped(self.spec.answer.otherwise)
        return {"regex": f"({line})|({other})" if other else line}

    def rules(self) -> tuple[Rule, ...]:
        line = self._filled({a.name: place_rule(a) for a in self.shown})
        other = self.spec.answer.otherwise
        says = f"the answer has the form {self.spec.answer.template!r}" + (f", or is {other!r}" if other else "")
        options = "|".join([self._repeated(line), *([escaped(other)] if other else [])])
        return (Rule(says=says, type="regex", value=rf"^\s*(?:{options})\s*$"), *self._language_rule())

    def expected(self, answer: str) -> Expected | None:
        if (records := self.parse(answer)) is None:
            return None
        placed = [(a, one) for one in records for a in self.shown if a.name in self.spec.answer.placeholders]
        whole = all(is_decided(self.spec.attribute(path), v) for _, one in placed for path, v in one.items())
        if is_parsed(self.spec.answer.language) and whole:
            same = {"language": self.spec.answer.language, "same": literal(answer)}
            return Expected([{"type": "is-code", "value": same}], whole)
        return Expected([{"type": "regex", "value": literal(self._pattern(records))}], whole)

    def values_at(self, answer: str) -> tuple[Span, ...]:
        other = bool(answer) and answer == self.spec.answer.otherwise  # it is one value: that there is none
        return ((0, len(answer) + 1),) if other else places_at(self.spec.answer.template, self._split(answer))

    def _pattern(self, records: Sequence[Values]) -> str:
        """A right answer as a pattern: what is decided as it is, what is in words of its own as any text."""
        if not records:
            return rf"^\s*{escaped(self.spec.answer.otherwise)}\s*$"
        lines = [self._filled({a.name: place_expected(a, one) for a in self.shown}) for one in records]
        return r"^\s*" + r"[ \t]*\n".join(lines) + r"\s*$"

    def _filled(self, places: Mapping[str, str]) -> str:
        segments = re.split(r"\{(\w+)\}", self.spec.answer.template)
        return "".join(places[part] if n % 2 else escaped(part) for n, part in enumerate(segments))

    def _repeated(self, line: str) -> str:
        return line

    def _split(self, answer: str) -> list[str]:
        return [answer]

    def _line(self, values: Mapping[str, str | None]) -> str:
        texts = {a.name: a.joined.join(several(a, values)) or a.absent_as or "" for a in self.shown}
        return fill(self.spec.answer.template, texts)

    def _record(self, line: str) -> Values | None:
        match = pattern_of(self.spec.answer.template).fullmatch(line)
        if match is None:
            return None
        record: Values = {}
        for name, text in match.groupdict().items():
            attribute = self.spec.attribute(name)
            if text == attribute.absent_as and may_lack(attribute):
                record[name] = None
            elif attribute.many is None:
                record[name] = text
            else:
                items = [item.strip() for item in text.split(attribute.joined.strip() or attribute.joined)]
                record |= {f"{name}[{n}]": item for n, item in enumerate(in_order(attribute, items))}
        return record


class Lines(Text):
    """A list: the template once for each record, or `otherwise` where there is none."""

    of_records = True
    one_record = False

    def compose(self, records: Sequence[Mapping[str, str | None]]) -> str:
        return "\n".join(map(self._line, records)) or self.spec.answer.otherwise

    def _repeated(self, line: str) -> str:
        return rf"{line}(?:\n{line})*"

    def _split(self, answer: str) -> list[str]:
        return answer.split("\n")


class Json(AnswerForm):
    """A JSON object of the shown attributes, with the objects, lists and sets that they hold."""

    says_what_it_is = True

    def compose(self, records: Sequence[Mapping[str, str | None]]) -> str:
        answer = build(self.shown, records[0] if records else {}, self._typed)
        return json.dumps(answer, ensure_ascii=False, indent=indent_of([e.answer for e in self.spec.examples]))

    def parse(self, answer: str) -> list[Values] | None:
        given = json_object(answer)
        try:
            return None if given is None else [flatten(self.shown, given)]
        except NotOfTheForm:  # it is JSON, and not this form
            return None

    def grammar(self) -> dict[str, object]:
        return {"json": self.schema()}

    def schema(self) -> dict[str, object] | None:
        return shape_schema(self.shown, self._kind)

    def rules(self) -> tuple[Rule, ...]:
        says = f"the answer is one JSON object of {', '.join(a.name for a in self.shown)}, and no other text"
        return (Rule(says=says, type="is-json", value=self.schema()), *self._language_rule())

    def expected(self, answer: str) -> Expected | None:
        if self.parse(answer) is None or (right := json_object(answer)) is None:
            return None
        schema, whole = expected_schema(self.shown, right)
        return Expected([{"type": "is-json", "value": schema}], whole)

    def _kind(self, path: str) -> str:
        return json_kind([v for e in self.spec.examples for v in at_path(json_object(e.answer), path)])

    def _typed(self, path: str, text: str) -> object:
        """A drawn value with the type that the examples give it."""
        return typed_value(self._kind(path), text)


class Call(Json):
    """A call of one of the spec's tools; the answer's text is {"name": …, "arguments": {…}}, as JSON."""

    is_text = False

    def tells(self, attribute: Attribute, values: Mapping[str, str | None]) -> bool:
        name = fill(self.spec.answer.template, {n: values.get(n) or "" for n in self._named_by})
        return not attribute.shown or attribute.name in (*self._named_by, *self._parameters(name))

    def compose(self, records: Sequence[Mapping[str, str | None]]) -> str:
        values = records[0] if records else {}
        if not records or any(values.get(name) is None for name in (*self._named_by, *self.spec.answer.needs)):
            return self.spec.answer.otherwise
        name = fill(self.spec.answer.template, {n: values[n] or "" for n in self._named_by})
        arguments = build(self._arguments(name), values, partial(self._argument, name))
        return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)

    def parse(self, answer: str) -> list[Values] | None:
        if answer.strip() == self.spec.answer.otherwise.strip():
            return []
        if (call := call_of(answer)) is None:
            return None
        name, arguments = call
        named = pattern_of(self.spec.answer.template).fullmatch(name)
        try:
            return [{**flatten(self._arguments(name), arguments), **named.groupdict()}] if named else None
        except NotOfTheForm:  # it is JSON, and not this form
            return None

    def schema(self) -> dict[str, object] | None:
        return None  # a server that parses calls writes them in the model's own way

    def grammar(self) -> dict[str, object]:
        return {"json": {"anyOf": [self._call_schema(tool) for tool in self.spec.tools]}}

    def rules(self) -> tuple[Rule, ...]:
        return ()

    def problem(self, answer: str) -> str:
        if (records := self.parse(answer)) is None:
            return f"form: the answer is neither a call of an offered tool nor {self.spec.answer.otherwise!r}"
        wrong = [wrong_call(call, self.spec.tools) for call in self.response(answer).tool_calls] if records else []
        return f"form: {wrong[0]}" if any(wrong) else ""

    def shared(self) -> list[Assertion]:
        return [] if self.spec.answer.otherwise else [{"type": "is-valid-openai-tools-call"}]

    def expected(self, answer: str) -> Expected | None:
        if self.parse(answer) == []:
            return Expected([{"type": "equals", "value": literal(answer)}], True)
        if (call := call_of(answer)) is None:
            return None
        name, arguments = call
        schema, whole = expected_schema(self._arguments(name), arguments)
        defaults = {n: {"const": one["default"]} for n, one in self._parameters(name).items() if "default" in one}
        schema["properties"] = {**defaults, **cast("dict[str, object]", schema["properties"])}
        wanted = {"type": "function", "function": {"name": name, "parameters": literal(schema)}}
        return Expected([{"type": "is-valid-openai-tools-call", "value": [wanted]}], whole)

    def turn(self, answer: str) -> dict[str, Any]:
        if (call := call_of(answer)) is None:
            return super().turn(answer)
        function = {"name": call[0], "arguments": call[1]}
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}

    def response(self, answer: str) -> Response:
        if (call := call_of(answer)) is None:
            return super().response(answer)
        function = {"name": call[0], "arguments": json.dumps(call[1], ensure_ascii=False)}
        return Response(tool_calls=[{"type": "function", "function": function}])

    @property
    def _named_by(self) -> tuple[str, ...]:
        return self.spec.answer.placeholders

    def _parameters(self, name: str) -> dict[str, dict[str, object]]:
        return parameters_of(self.spec.tools, name)

    def _arguments(self, name: str) -> list[Attribute]:
        """The attributes that a tool takes; an argument that a message does not say is left out."""
        parameters = self._parameters(name)
        named = [a for a in self.shown if a.name in parameters and a.name not in self._named_by]
        return [a.model_copy(update={"left_out": True}) for a in named]

    def _argument(self, name: str, path: str, text: str) -> object:
        return typed_value(argument_kind(self._parameters(name), path), text)

    def _call_schema(self, tool: Mapping[str, object]) -> dict[str, object]:
        function = cast("dict[str, object]", tool["function"])
        arguments = function.get("parameters") or {"type": "object"}
        properties = {"name": {"const": function["name"]}, "arguments": arguments}
        return {"type": "object", "required": ["name", "arguments"], "properties": properties}


_FORMS: dict[str, type[AnswerForm]] = {"written": FreeText, "text": Text, "lines": Lines, "json": Json, "call": Call}


def form_of(spec: Spec) -> AnswerForm:
    """The form of a spec's answers."""
    return _FORMS[spec.answer.form](spec)
