"""A behaviour that calls tools, of which only tools and examples are said: the rest stands in the tools' schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.answer_form import call_of
from tunesmith.tools.data.json_values import at_path, parameters_of
from tunesmith.tools.data.spec import Answer, Attribute, Kind, Spec, Value
from tunesmith.tools.data.typed_values import holds

TOOL = "tool"
"""The label that says which of several tools is called."""
_COPIED_SHARE, _ABSENT_SHARE, _MANY_MOST = 0.75, 0.25, 3
_KINDS: Mapping[str, Kind] = {"integer": "number", "number": "number"}
_FORMATS: Mapping[str, Kind] = {"date": "date", "time": "time", "email": "email", "uri": "url"}


def with_call(spec: Spec) -> Spec:
    """The spec with attributes for the arguments of its examples' calls; as it is where it says its answer itself.

    Raises BadInput where tools or examples differ in a way that one form cannot hold.
    """
    calls = [call_of(example.answer) for example in spec.examples]
    called = list(dict.fromkeys(call[0] for call in calls if call))
    if not (spec.tools and called) or spec.attributes or spec.answer != Answer():
        return spec
    otherwise = {e.answer for e, call in zip(spec.examples, calls, strict=True) if call is None}
    if len(otherwise) > 1:
        raise BadInput(
            f"{len(otherwise)} examples call no tool and answer each in its own words; what is said where no tool is "
            "called is one text: give them the same answer, or leave them out"
        )
    share = round(calls.count(None) / len(calls), 2)
    several = len(called) > 1 or bool(otherwise)
    arguments = _arguments(spec, called)
    names = [Attribute(name=TOOL, values=_tools(spec, called), absent_share=share)] if len(called) > 1 else []
    if otherwise and not names:
        raise BadInput(
            f"examples call {called[0]} or no tool at all: add an example that calls another tool, or write the "
            "attributes and the answer of the form call yourself, with `needs`"
        )
    template = f"{{{TOOL}}}" if several else called[0]
    answer = Answer(form="call", template=template, otherwise=next(iter(otherwise), ""))
    return Spec.model_validate({**spec.model_dump(), "attributes": [*names, *arguments], "answer": answer})


def _tools(spec: Spec, called: Sequence[str]) -> dict[str, Value]:
    functions: list[Any] = [tool["function"] for tool in spec.tools]
    means = {function["name"]: str(function.get("description") or "") for function in functions}
    return {name: Value(means=means.get(name, "")) for name in called}


def _arguments(spec: Spec, called: Sequence[str]) -> list[Attribute]:
    made: dict[str, Attribute] = {}
    for name in called:
        function: Any = next((tool["function"] for tool in spec.tools if _name(tool) == name), {})
        required = (function.get("parameters") or {}).get("required") or ()
        for parameter, schema in parameters_of(spec.tools, name).items():
            if parameter not in required and not any(_given(spec, parameter)):
                continue  # optional, and no example shows what would be said
            one = _attribute(spec, parameter, parameter, schema, required=parameter in required)
            if made.setdefault(parameter, one).kind != one.kind:
                raise BadInput(
                    f"{parameter} is {made[parameter].kind} for one tool and {one.kind} for {name}; give it one type"
                )
    return list(made.values())


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])


def _attribute(spec: Spec, name: str, path: str, schema: Mapping[str, Any], *, required: bool) -> Attribute:
    listed = schema.get("type") == "array"
    inner = schema.get("items") or {} if listed else schema
    kind, values = _kind(spec, path, inner)
    given = _given(spec, path)
    least, most = min(map(len, given), default=0), max(_MANY_MOST, *map(len, given), 0)
    parts = inner.get("properties") or {} if kind == "object" else {}
    needed = inner.get("required") or ()
    return Attribute(
        name=name,
        kind=kind,
        means=str(schema.get("description") or inner.get("description") or ""),
        values=values,
        many=(least, min(most, len(values)) if kind == "label" else most) if listed else None,
        absent_share=0 if required or listed else _ABSENT_SHARE,
        left_out=not required,
        attributes=tuple(_attribute(spec, n, f"{path}.{n}", s, required=n in needed) for n, s in parts.items()),
    )


def _kind(spec: Spec, path: str, schema: Mapping[str, Any]) -> tuple[Kind, dict[str, Value]]:
    if isinstance(schema.get("enum"), list):
        return "label", {str(value): Value() for value in schema["enum"]}
    if schema.get("type") == "boolean":
        return "label", {"true": Value(), "false": Value()}
    if schema.get("type") == "object":
        return "object", {}
    if schema.get("type") in _KINDS:
        return _KINDS[str(schema["type"])], {}
    if schema.get("format") in _FORMATS:
        return _FORMATS[str(schema["format"])], {}
    said = [
        holds(e.prompt, str(value))
        for e in spec.examples
        if (call := call_of(e.answer))
        for value in at_path(call[1], path)
    ]
    return ("copied" if said and sum(said) >= _COPIED_SHARE * len(said) else "text"), {}


def _given(spec: Spec, path: str) -> list[list[object]]:
    """What each example's call gives to an argument, as a list."""
    return [at_path(call[1], path) for e in spec.examples if (call := call_of(e.answer))]
