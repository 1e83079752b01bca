"""What a user's file states as data beside its words: labels, fields and a template, in the ways in which people do.

Nothing here reads a word's meaning. What is stated is held to the examples afterwards (`verify`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from pydantic import ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.spec import Value

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
