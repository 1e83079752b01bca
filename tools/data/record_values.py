"""The values of a record: as JSON and back, those that a formula computes, and labels that a number decides.

Values lie flat, each under its path (`items[0].price`); what is absent lies under its own as None, and an empty list
has none. Comparing is by value: the order of keys and of a set, white space, and 3 or 3.0 make no difference.

A number that decides a label is drawn before the message is written and stands in it, as digits or as an English word:
a message that says none cannot have such a label. Ranges are stated as numbers; no words are read for them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import NamedTuple, TypeVar

from tunesmith.tools.core.arithmetic import evaluate, names_in
from tunesmith.tools.core.strict_json import json_value
from tunesmith.tools.data.spec import Attribute, Spec, formula_target, without_places
from tunesmith.tools.data.typed_values import holds, value_schema

Values = dict[str, str | None]
T = TypeVar("T")
Typed = Callable[[str, str], object]
"""A value's path and text → the JSON value that it is."""
_ABSENT = object()
_TEXT_MOST, _ITEMS_MOST = 120, 20
"""A server that is held to the schema ends a text or a list there: a small model may never end it."""


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


def values_at(record: Values, name: str) -> list[str]:
    """The values of an attribute: one, those of a list, or none where it is absent."""
    return [value for path, value in record.items() if value is not None and without_places(path) == name]


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


def excluded(attribute: Attribute, values: Mapping[str, str | None]) -> bool:
    """Whether a label's value says that there is none of an attribute."""
    return any(values.get(label) in absent for label, absent in attribute.absent_where.items())


def in_order(attribute: Attribute, items: Sequence[T]) -> list[T]:
    """A list as it is; a set in the order in which its label names the values, without what comes twice."""
    if attribute.kind != "label":
        return list(items)
    places = {name: n for n, name in enumerate(attribute.values)}
    unique = {str(item): item for item in items}
    # as the spec lists them: a set has no order
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
    """The schema of what is right under one key, and whether it decides the meaning."""
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
    """The schema of anything that may stand under one key."""
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
    values = [given]
    for name in without_places(path).split("."):
        inner = [one.get(name) for one in values if isinstance(one, Mapping)]
        values = [item for one in inner for item in (one if isinstance(one, list) else [one]) if one is not None]
    return values


def indent_of(texts: Sequence[str]) -> int | None:
    """The indentation in which all of these are written as JSON; None: on one line."""
    for indent in (2, 4, 3, 1):  # the usual ones first: an empty object fits them all
        if texts and all(json.dumps(json.loads(t), ensure_ascii=False, indent=indent) == t.strip() for t in texts):
            return indent
    return None


def typed_value(kind: str, text: str) -> object:
    """A text as a value of a JSON type; as it is where it is none of that type."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:  # none of that type
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
    for name in without_places(path).split("."):
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
    value = json_value(text)
    return value if isinstance(value, dict) else None


def call_of(answer: str) -> tuple[str, dict[str, object]] | None:
    """The tool's name and the arguments that an answer's text calls it with; None where it is no call."""
    call = json_object(answer)
    if call is None or set(call) != {"name", "arguments"}:
        return None
    name, arguments = call["name"], call["arguments"]
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


class _Place(NamedTuple):
    """Where a value is computed: its path, and the attributes beside it, which its formula names first."""

    path: str
    formula: object
    beside: Sequence[Attribute]

    def needs(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """Name in the formula → the paths that it means: one, or those of a list."""
        known = list(paths)
        targets = {name: formula_target(name, self.path, self.beside) for name in names_in(self.formula)}
        return {name: _meant(target, known) for name, target in targets.items()}


def with_computed(spec: Spec, values: Values) -> Values:
    """The values with those that are computed; None where something that a formula needs is not said.

    Raises Unanswerable for a division by zero, or a value out of bounds.
    """
    known = {path: value for path, value in values.items() if spec.attribute(path).kind != "computed"}
    places = {place.path: place for place in _computed(spec.attributes, known)}
    every = [*known, *places]
    needs = {p: {n for paths in place.needs(every).values() for n in paths} for p, place in places.items()}
    for path in TopologicalSorter(needs).static_order():  # a circle is refused when the spec is read
        if path in places:
            known[path] = _value(places[path], known)
    return known


def _value(place: _Place, known: Mapping[str, str | None]) -> str | None:
    needs = place.needs(known)
    if any(known[path] is None for paths in needs.values() for path in paths):
        return None
    return evaluate(place.formula, lambda name: [known[path] or "" for path in needs[name]])


def _meant(target: str, paths: Sequence[str]) -> list[str]:
    return [target] if target in paths else [path for path in paths if without_places(path) == target]


def _computed(attributes: Sequence[Attribute], values: Mapping[str, object], at: str = "") -> Iterator[_Place]:
    """The places of computed values, within objects and the items of lists too."""
    for attribute in attributes:
        path = f"{at}{attribute.name}"
        if attribute.kind == "computed":
            yield _Place(path, attribute.formula, attributes)
        elif attribute.kind == "object" and path not in values:
            many = attribute.many is not None
            places = [f"{path}[{n}]" for n in range(items_of(path, values))] if many else [path]
            for place in places:
                yield from _computed(attribute.attributes, values, f"{place}.")


_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = dict(enumerate(_SMALL.split())) | {20 + 10 * n: word for n, word in enumerate(_TENS.split())}
_N = r"(?<![\w.,:])(\d{1,7}|" + "|".join(word for word in WORDS.values()) + r")(?![\w:]|[.,]\d)"


def number_ranges(label: Attribute) -> dict[str, tuple[int, int]]:
    """The lowest and the highest number of each value that a number decides (`Value.between`).

    Empty where fewer than two values are decided so, or their ranges overlap.
    """
    ranges = {name: value.between for name, value in label.values.items() if value.between and label.kind == "label"}
    ordered = sorted(ranges.values())
    apart = all(low <= high for low, high in ordered) and all(a[1] < b[0] for a, b in pairwise(ordered))
    return ranges if len(ranges) >= 2 and apart else {}


def number_meant(number: str) -> int:
    """What digits or a number's word mean."""
    return int(number) if number.isdigit() else next(n for n, word in WORDS.items() if word == number.lower())


def drawn_number(label: Attribute, value: str, rng: random.Random) -> str:
    """A number of the value's range as a message says it; empty where none tells the value."""
    bounds = number_ranges(label).get(value)
    return rng.choice(ways_to_count(rng.randint(*bounds))) if bounds else ""


def number_in(label: Attribute, value: str, message: str) -> str:
    """The number by which a message tells a value; empty where none, or several, could be it."""
    bounds = number_ranges(label).get(value)
    if not bounds:
        return ""
    fitting = [text for text in _number_texts(message) if bounds[0] <= number_meant(text) <= bounds[1]]
    return fitting[0] if len(fitting) == 1 else ""


def numbers_in(message: str) -> list[int]:
    """The whole numbers that a message holds, as digits or as words."""
    return [number_meant(text) for text in _number_texts(message)]


def _number_texts(message: str) -> list[str]:
    return [match[0] for match in re.finditer(_N, message, re.IGNORECASE)]


def ways_to_count(number: int) -> list[str]:
    """How a message may say a number."""
    return [str(number), WORDS[number]] if number in WORDS else [str(number)]


def stated_number(label: Attribute, value: str, drawn: str, message: str) -> str:
    """The number that tells the value in a message: the drawn one in digits or a word, else the only one that fits.

    `drawn` where the message has none of these.
    """
    there = next((way for way in ways_to_count(number_meant(drawn)) if holds(message, way)), "")
    return there or number_in(label, value, message) or drawn
