"""What is proposed of a behaviour beside its user's words, typed: by a file, by a person, or by a model that read them.

A user's file states labels, fields and a template in the ways in which people do; the calls of its examples say what
their arguments are. Nothing here reads a word's meaning. A proposal is checked before anything comes of it (`verify`):
it is nobody's word for how the behaviour is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import not_
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.data.answer_rules import Check
from tunesmith.tools.data.description import Description
from tunesmith.tools.data.record_values import at_path, call_of, parameters_of
from tunesmith.tools.data.spec import Answer, Attribute, Kind, Spec, Value
from tunesmith.tools.data.typed_values import holds


class Part(Frozen):
    """A part of the answer that differs from message to message."""

    # 80: a path of names in the user's own objects, each a word or two.
    name: Annotated[str, Field(pattern=r"^[^\W\d]\w*(?:\.[^\W\d]\w*)*$", max_length=80)]
    """Of a part within an object its path, as items.price."""
    means: str = ""
    kind: Kind | None = None
    """None: by the format of its values in the examples."""
    values: dict[str, Value] = Field(default_factory=dict)
    """All that it may be; empty: it is not one of a few."""
    missing: str = ""
    """What the answer shows where the message does not say it; empty: nothing was stated."""
    words_max: int = Field(default=0, ge=0)
    many: tuple[int, int] | None = Field(default=None, exclude_if=not_)
    """The fewest and the most of its values that an answer shows at once; None: by the examples. Left out of the digest
    where it is empty: words of before there was such a field are known by theirs."""


class Proposal(Frozen):
    """What was proposed; what is empty was left out."""

    form: Literal["written", "json", "text", "lines"] | None = None
    template: str = ""
    """The answer with {name} in place of each part."""
    parts: tuple[Part, ...] = ()
    labels: dict[str, Value] = Field(default_factory=dict)
    """The values of whichever part has only such ones."""
    checks: tuple[Check, ...] = ()
    criteria: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()
    every_message: bool = False
    language: str = ""

    def part(self, name: str) -> Part:
        """What is proposed of the part of this name; nothing where it is not among them."""
        return next((part for part in self.parts if part.name == name), Part(name=name))

    @property
    def shapes(self) -> bool:
        """Whether it says what the answer is made of."""
        return bool(self.form or self.template or self.parts or self.labels)


def words_digest(description: Description, stated: Proposal) -> str:
    """Digest of a user's words, examples and stated data: what was read once is known by it."""
    words = description.model_dump(mode="json", include=set(Description.model_fields))
    return hashlib.sha256(json.dumps([words, stated.model_dump(mode="json")], sort_keys=True).encode()).hexdigest()


# What a file states

STATED = ("labels", "fields", "template")
_KEYS = frozenset(Part.model_fields) - {"name"}
_TEXTS = ("means", "missing")


def stated_in(values: Mapping[str, object], where: str, objects: Collection[str] = ()) -> Proposal:
    """What a user's file states as data. Raises BadInput for what is none, naming the field.

    A field is its meaning, a list of its values, its values with what they mean, or whatever a Part takes; under a path
    that is one of `objects` in the examples it is the fields of that object.
    """
    labels = _named(values.get("labels"), f"{where}: labels")
    parts = [part for name, of in _fields(values.get("fields"), where) for part in _parts(name, of, where, objects)]
    names = [part.name for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise BadInput(f"{where}: fields has {twice} twice; say all of it once")
    stated = {"parts": tuple(parts), "labels": labels, "template": str(values.get("template") or "")}
    return Proposal.model_validate({**stated, "form": values.get("form")})


def _fields(fields: object, where: str) -> Iterator[tuple[str, object]]:
    """Fields by their names: of names with what they are, or of a list of names, of `name: meaning`, or of both."""
    if isinstance(fields, Mapping):
        yield from ((str(name), of) for name, of in fields.items())
        return
    if not isinstance(fields, list | None):
        raise BadInput(f"{where}: fields are lists of names, or names with what they mean; this is {fields!r}")
    for number, one in enumerate(fields or [], 1):
        if isinstance(one, Mapping) and "name" in one:
            yield str(one["name"]), {key: of for key, of in one.items() if key != "name"}
        elif isinstance(one, Mapping):
            yield from ((str(name), of) for name, of in one.items())
        elif isinstance(one, list) or one is None:
            raise BadInput(f"{where}: field {number} of fields is {one!r}; it takes a name, or a name: what it means")
        else:
            yield str(one), None


def _parts(name: str, of: object, where: str, objects: Collection[str]) -> Iterator[Part]:
    """A field as a part; where the examples show an object there, what it holds."""
    inner = of[0] if isinstance(of, list) and len(of) == 1 and isinstance(of[0], Mapping) else of
    if name in objects and isinstance(inner, Mapping):
        for one, means in inner.items():
            yield from _parts(f"{name}.{one}", means, where, objects)
    elif isinstance(of, list) or (isinstance(of, Mapping) and of and not of.keys() & _KEYS):
        yield _part(name, {"values": of}, where)
    elif isinstance(of, Mapping):
        yield _part(name, of, where)
    else:
        yield _part(name, {"means": of}, where)


def _part(name: str, of: Mapping[str, object], where: str) -> Part:
    stated = {key: value for key, value in of.items() if value is not None}
    stated |= {key: _text(stated[key]) for key in _TEXTS if isinstance(stated.get(key), str | int | float)}
    if stated.get("many") in (True, False):
        stated["many"] = (1, 2) if stated["many"] else None
    if "values" in stated:
        stated["values"] = _named(stated["values"], f"{where}: values of {name}")
    try:
        return Part.model_validate({"name": name, **stated})
    except ValidationError as error:
        wrong = error.errors()[0]
        first = str(wrong["loc"][0])
        at = f"fields.{name}" if first == "name" else f"fields.{name}.{first}"
        raise BadInput(f"{where}: {sentence(wrong, Part, {first: at})}") from None


def _named(value: object, where: str) -> dict[str, Value]:
    """Values with what they mean; a plain list has no meanings."""
    if value is None:
        return {}
    if isinstance(value, list) and not any(isinstance(one, list | Mapping) or one is None for one in value):
        return {_text(name): Value() for name in value}
    if not isinstance(value, Mapping):
        raise BadInput(f"{where} are lists of names, or names with what they mean; this is {value!r}")
    try:
        return {
            _text(name): Value.model_validate(of) if isinstance(of, Mapping) else Value(means=_text(of))
            for name, of in value.items()
        }
    except ValidationError as error:
        raise BadInput(f"{where}: {sentence(error.errors()[0], Value)}") from None


def _text(value: object) -> str:
    """A plain value as an answer shows it, on one line: YAML's true as JSON writes it."""
    plain = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    return " ".join(plain.split())


# What the calls of the examples say

TOOL = "tool"
"""The label that says which of several tools is called."""
_COPIED_SHARE, _ABSENT_SHARE, _MANY_MOST = 0.75, 0.25, 3
"""Of the examples, where an argument's text stands in the message; of the rows, without an argument that may be left
out; the items of a list where the examples have fewer. A user bends a text now and then."""
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
    means = {name: Value(means=str(_function(spec, name).get("description") or "")) for name in called}
    names = [Attribute(name=TOOL, values=means, absent_share=share)] if len(called) > 1 else []
    if otherwise and not names:
        raise BadInput(
            f"examples call {called[0]} or no tool at all: add an example that calls another tool, or write the "
            "attributes and the answer of the form call yourself, with `needs`"
        )
    template = f"{{{TOOL}}}" if several else called[0]
    answer = Answer(form="call", template=template, otherwise=next(iter(otherwise), ""))
    return Spec.model_validate({**spec.model_dump(), "attributes": [*names, *arguments], "answer": answer})


def _function(spec: Spec, name: str) -> dict[str, Any]:
    """The definition of a tool; empty of one that is not offered."""
    functions: list[dict[str, Any]] = [tool["function"] for tool in spec.tools]  # type: ignore[misc]
    return next((function for function in functions if function["name"] == name), {})


def _arguments(spec: Spec, called: Sequence[str]) -> list[Attribute]:
    """The attributes of the arguments that the called tools take."""
    arguments: dict[str, Attribute] = {}
    for name in called:
        required = (_function(spec, name).get("parameters") or {}).get("required") or ()
        for parameter, schema in parameters_of(spec.tools, name).items():
            if parameter not in required and not any(_given(spec, parameter)):
                continue  # optional, and no example shows what would be said
            one = _attribute(spec, parameter, parameter, schema, required=parameter in required)
            if (first := arguments.setdefault(parameter, one)).kind != one.kind:
                raise BadInput(f"{parameter} is {first.kind} for one tool and {one.kind} for {name}; give it one type")
    return list(arguments.values())


def _attribute(spec: Spec, name: str, path: str, schema: Mapping[str, Any], *, required: bool) -> Attribute:
    """The attribute of one argument, by its schema and by what the examples' calls give it."""
    listed = schema.get("type") == "array"
    inner = schema.get("items") or {} if listed else schema
    kind, values = _kind(spec, path, inner)
    given = _given(spec, path)
    least, most = min(map(len, given), default=0), max(_MANY_MOST, *map(len, given), 0)
    inner_schemas = inner.get("properties") or {} if kind == "object" else {}
    needed = inner.get("required") or ()
    return Attribute(
        name=name,
        kind=kind,
        means=str(schema.get("description") or inner.get("description") or ""),
        values=values,
        many=(least, min(most, len(values)) if kind == "label" else most) if listed else None,
        absent_share=0 if required or listed else _ABSENT_SHARE,
        left_out=not required,
        attributes=tuple(_attribute(spec, n, f"{path}.{n}", s, required=n in needed) for n, s in inner_schemas.items()),
    )


def _kind(spec: Spec, path: str, schema: Mapping[str, Any]) -> tuple[Kind, dict[str, Value]]:
    """The kind of an argument and its values: by its schema, else by whether the messages hold its texts."""
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
    verbatim = [
        holds(e.prompt, str(value))
        for e in spec.examples
        if (call := call_of(e.answer))
        for value in at_path(call[1], path)
    ]
    return ("copied" if verbatim and sum(verbatim) >= _COPIED_SHARE * len(verbatim) else "text"), {}


def _given(spec: Spec, path: str) -> list[list[object]]:
    """What each example's call gives to an argument, as a list."""
    return [at_path(call[1], path) for e in spec.examples if (call := call_of(e.answer))]
