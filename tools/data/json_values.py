"""Drawn values as JSON and back, along the attributes: objects, lists and sets within one another, keys left out.

Values lie flat, each under its path (`items[0].price`); what is absent lies under its own as None, and an empty list
has none. Comparing is by value: the order of keys and of a set, white space, and 3 or 3.0 make no difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tunesmith.tools.data.spec import Attribute
from tunesmith.tools.data.typed_values import value_schema

Values = dict[str, str | None]
T = TypeVar("T")
Typed = Callable[[str, str], object]
"""A value's path and text → the JSON value that it is."""
_ABSENT = object()
_TEXT_MOST, _ITEMS_MOST = 120, 20


class NotOfTheForm(ValueError):
    """JSON that is not built as the attributes are."""


def build(attributes: Sequence[Attribute], values: Mapping[str, str | None], typed: Typed, at: str = "") -> object:
    """The object of some values."""
    built = {a.name: _built(a, values, typed, f"{at}{a.name}") for a in attributes}
    absent = {a.name: a.absent_as for a in attributes if not a.left_out}
    return {n: absent[n] if v is _ABSENT else v for n, v in built.items() if v is not _ABSENT or n in absent}


def _built(attribute: Attribute, values: Mapping[str, str | None], typed: Typed, path: str) -> object:
    if path in values and values[path] is None:
        return _ABSENT
    if attribute.many is None:
        return _one(attribute, values, typed, path)
    return [_one(attribute, values, typed, f"{path}[{n}]") for n in range(items_of(path, values))]


def _one(attribute: Attribute, values: Mapping[str, str | None], typed: Typed, path: str) -> object:
    if attribute.kind == "object":
        return build([a for a in attribute.attributes if a.shown], values, typed, f"{path}.")
    value = values.get(path)
    return _ABSENT if value is None else typed(path, value)


def items_of(path: str, values: Mapping[str, object]) -> int:
    """How many values a list has."""
    start = len(path) + 1
    return len({one[start:].partition("]")[0] for one in values if one.startswith(f"{path}[")})


def flatten(attributes: Sequence[Attribute], given: Mapping[str, object], at: str = "") -> Values:
    """The values of an object; keys that no attribute describes are left aside. Raises NotOfTheForm."""
    values: Values = {}
    for attribute in attributes:
        path = f"{at}{attribute.name}"
        if attribute.name not in given and not attribute.left_out:
            raise NotOfTheForm(f"{path} is missing")
        value = given.get(attribute.name)
        if value is None or (value == attribute.absent_as and may_lack(attribute)):
            values[path] = None
        elif attribute.many is None:
            values |= _flat(attribute, value, path)
        elif not isinstance(value, list):
            raise NotOfTheForm(f"{path} is no list")
        else:
            for number, item in enumerate(in_order(attribute, value)):
                values |= _flat(attribute, item, f"{path}[{number}]")
    return values


def _flat(attribute: Attribute, value: object, path: str) -> Values:
    if attribute.kind == "object":
        if not isinstance(value, Mapping):
            raise NotOfTheForm(f"{path} is no object")
        return flatten([a for a in attribute.attributes if a.shown], value, f"{path}.")
    if isinstance(value, list | dict):
        raise NotOfTheForm(f"{path} is no single value")
    return {path: value if isinstance(value, str) else json.dumps(value)}


def may_lack(attribute: Attribute) -> bool:
    """Whether a message may say nothing of it."""
    return bool(attribute.absent_share or attribute.absent_where or attribute.absent_as)


def in_order(attribute: Attribute, items: Sequence[T]) -> list[T]:
    """A list as it is; a set in the order in which its label names the values, without what comes twice."""
    if attribute.kind != "label":
        return list(items)
    places = {name: n for n, name in enumerate(attribute.values)}
    unique = {str(item): item for item in items}
    return sorted(unique.values(), key=lambda item: places.get(str(item), len(places)))


def expected_schema(attributes: Sequence[Attribute], right: Mapping[str, object]) -> tuple[dict[str, object], bool]:
    """The schema that right answers alone pass, given one of them; whether it decides the whole meaning."""
    properties: dict[str, object] = {}
    whole = True
    known = {attribute.name: attribute for attribute in attributes}
    for name, value in right.items():
        properties[name], decided = _expected(known.get(name), value)
        whole = whole and decided
    shape = {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}
    return shape, whole


def _expected(attribute: Attribute | None, value: object) -> tuple[dict[str, object], bool]:
    if attribute is None:  # a key that no attribute describes: what it holds is not decided
        return {}, False
    if attribute.many is None or not isinstance(value, list):
        return _expected_one(attribute, value)
    shape: dict[str, object] = {"type": "array", "minItems": len(value), "maxItems": len(value)}
    if attribute.kind == "label":
        return {**shape, **({"uniqueItems": True, "items": {"enum": value}} if value else {})}, True
    items = [_expected_one(attribute, item) for item in value]
    return {**shape, **({"items": [schema for schema, _ in items]} if items else {})}, all(w for _, w in items)


def _expected_one(attribute: Attribute, value: object) -> tuple[dict[str, object], bool]:
    if attribute.kind == "object" and isinstance(value, Mapping):
        return expected_schema([a for a in attribute.attributes if a.shown], value)
    return value_schema(attribute, value)


def shape_schema(attributes: Sequence[Attribute], kinds: Callable[[str], str], at: str = "") -> dict[str, object]:
    """The schema that every answer of the form keeps; `kinds` gives the JSON type of a path."""
    properties = {a.name: _shape(a, kinds, f"{at}{a.name}") for a in attributes}
    required = [a.name for a in attributes if not a.left_out]
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


def _shape(attribute: Attribute, kinds: Callable[[str], str], path: str) -> dict[str, object]:
    schema = _shape_of_one(attribute, kinds, path)
    if attribute.many is not None:
        least, most = attribute.many
        return {"type": "array", "items": schema, "minItems": least, "maxItems": max(most, _ITEMS_MOST)}
    if not may_lack(attribute) or attribute.left_out:
        return schema
    if "enum" in schema:
        return {"enum": [*attribute.values, attribute.absent_as]}
    return {**schema, "type": [schema["type"], "null"]} if attribute.absent_as is None else schema


def _shape_of_one(attribute: Attribute, kinds: Callable[[str], str], path: str) -> dict[str, object]:
    if attribute.kind == "object":
        return shape_schema([a for a in attribute.attributes if a.shown], kinds, f"{path}.")
    kind = kinds(path)
    if attribute.kind in ("label", "weekday") and attribute.values and kind == "string":
        return {"enum": list(attribute.values)}
    return {"type": kind, **({"maxLength": _TEXT_MOST} if kind == "string" else {})}


def json_kind(values: Sequence[object]) -> str:
    """The JSON type of what the examples show: a number or true and false where all of them are, else a text."""
    if values and all(isinstance(value, bool) for value in values):
        return "boolean"
    return "number" if values and all(type(value) in (int, float) for value in values) else "string"


def at_path(given: object, path: str) -> list[object]:
    """What JSON holds under a path without its places in lists, but for null."""
    found = [given]
    for name in re.sub(r"\[\d+\]", "", path).split("."):
        found = [item for one in found if isinstance(one, Mapping) for item in _listed(one.get(name))]
    return found


def _listed(value: object) -> list[object]:
    return [] if value is None else value if isinstance(value, list) else [value]


def indent_of(texts: Sequence[str]) -> int | None:
    """The indentation in which all of these are written as JSON; None: on one line."""
    for indent in (2, 4, 3, 1):
        if texts and all(json.dumps(json.loads(t), ensure_ascii=False, indent=indent) == t.strip() for t in texts):
            return indent
    return None


def typed_value(kind: str, text: str) -> object:
    """A text as a value of a JSON type; as it is where it is none of that type."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def parameters_of(tools: Sequence[Mapping[str, object]], name: str) -> dict[str, dict[str, object]]:
    """The parameters of a tool by their names; none of a tool that is not there."""
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping) and function.get("name") == name:
            properties = (function.get("parameters") or {}).get("properties") or {}
            return {str(key): value for key, value in properties.items() if isinstance(value, dict)}
    return {}


def argument_kind(parameters: Mapping[str, object], path: str) -> str:
    """The JSON type that a tool's schema gives to a path of its arguments."""
    properties, kind = parameters, "string"
    for name in re.sub(r"\[\d+\]", "", path).split("."):
        schema = properties.get(name)
        if not isinstance(schema, Mapping):
            return "string"
        items = schema.get("items")
        schema = items if schema.get("type") == "array" and isinstance(items, Mapping) else schema
        kind, inner = str(schema.get("type", "string")), schema.get("properties")
        properties = inner if isinstance(inner, Mapping) else {}
    return "number" if kind == "integer" else kind if kind in ("number", "boolean") else "string"


def kinds_in(attributes: Sequence[Attribute]) -> set[str]:
    """The kinds of attributes and of all that they hold."""
    return {kind for a in attributes for kind in (a.kind, *kinds_in(a.attributes))}


def json_object(text: str) -> dict[str, object] | None:
    """The object that a text is; None where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def call_of(answer: str) -> tuple[str, dict[str, object]] | None:
    """The tool's name and the arguments that an answer's text calls it with; None where it is no call."""
    call = json_object(answer)
    if call is None or set(call) != {"name", "arguments"}:
        return None
    name, arguments = call["name"], call["arguments"]
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None
