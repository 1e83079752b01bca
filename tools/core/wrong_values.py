"""What is wrong with a field, as a sentence: its name as it was typed, its value, what it takes, and an example.

pydantic finds what is wrong; none of its own words are passed on. Every place that shows a user a ValidationError
takes its sentences from here.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from tunesmith.tools.core import auto, field_names

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60  # as much of a value as its user needs to know it again, in one sentence


def sentences(error: ValidationError, model: type[BaseModel], spelled: Mapping[str, str] | None = None) -> str:
    """All that is wrong, joined by semicolons; `spelled` maps a field to its name as its user typed it."""
    errors = error.errors()
    within = {one["loc"][:length] for one in errors for length in range(len(one["loc"]))}
    # Of a list with a wrong item pydantic also says that it is too short.
    return "; ".join(sentence(one, model, spelled) for one in errors if one["loc"] not in within or not one["loc"])


def sentence(error: ErrorDetails, model: type[BaseModel], spelled: Mapping[str, str] | None = None) -> str:
    """One thing that is wrong."""
    name = _place(error["loc"], spelled)
    holder = _holder(model, error["loc"][:-1])
    info = holder.model_fields.get(str(error["loc"][-1])) if holder and error["loc"] else None
    kind, ctx, value = error["type"], error.get("ctx") or {}, error["input"]
    if kind == "extra_forbidden":
        *before, field = error["loc"]
        listed = any(isinstance(key, int) for key in before)
        known = list(holder.model_fields) if holder else []
        return unknown(f"{field!r} in {_place(before, spelled)}" if listed else repr(name), str(field), known)
    if kind == "missing":
        return f"{name} is missing{_described(info)}"
    if kind in ("value_error", "assertion_error"):
        own = str(ctx.get("error", ""))
        return f"{name}: {own}" if name else own
    statement = f"{name} is {_SHORT.repr(value)}" if name else f"it is {_SHORT.repr(value)}"
    return f"{statement}; {_wanted(kind, ctx, value, info)}"


def _place(loc: Sequence[str | int], spelled: Mapping[str, str] | None = None) -> str:
    """Where something is wrong: keys by their dots, what is in a list by the number of its item, counted from 1."""
    first, *rest = loc or ("",)
    place, listed = (spelled or {}).get(str(first), str(first)), False
    for key in rest:
        if isinstance(key, int):
            place = f"item {key + 1} of {place}"
        else:
            place = f"{key} in {place}" if listed else f"{place}.{key}"
        listed = isinstance(key, int)
    return place


def _holder(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that a place in another one is of; None where that is no model."""
    for name in (part for part in loc if isinstance(part, str)):
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        inner = (one for one in (annotation, *get_args(annotation)) if isinstance(one, type))
        inner_model = next((one for one in inner if issubclass(one, BaseModel)), None)
        if inner_model is None:
            return None
        model = inner_model
    return model


def first_wrong(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong, with all other fields that are wrong in the very same place."""
    first, *rest = error.errors()
    *place, name = first["loc"] or (0,)
    here = [first, *(one for one in rest if isinstance(name, str) and [*one["loc"][:-1]] == place)]
    return "; ".join(sentence(one, model) for one in here)


def unknown(name: str, field: str, known: Sequence[str]) -> str:
    """What is said of a field that there is none of; `name` is how it is called there."""
    plain = field.replace("-", "_")
    if what := field_names.nearly(plain, known):
        return f"no field {name} here: {what}"
    # 0.8: names of other programs are short and many, and at difflib's own 0.6 some match by chance.
    if near := difflib.get_close_matches(plain, known, 1) or difflib.get_close_matches(
        plain, field_names.others(known), 1, 0.8
    ):
        near = [field_names.ours(near[0], known)]
    hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}" if known else "leave it out"
    return f"unknown field {name}; {hint}"


def _wanted(kind: str, ctx: Mapping[str, object], value: object, info: FieldInfo | None) -> str:
    """What a field takes."""
    if kind in ("literal_error", "enum"):
        return _one_of(str(ctx.get("expected", "")), value)
    if info and info.annotation in (int, float) and kind != "finite_number":
        return f"it takes {_number(info)}"
    if kind == "string_type" and isinstance(value, int | float):
        return "it takes a text: put it in quotes"
    for prefix, noun in _NOUNS.items():
        if kind.startswith(prefix):
            return f"it takes {noun}{', or auto' if info and auto.is_auto(info) else ''}"
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"it must be {word} {ctx[key]}"
    if kind in _LENGTHS:
        return _LENGTHS[kind](ctx)
    return f"it cannot be taken{_described(info)}"


_NOUNS = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a number that is neither infinite nor nan",
    "decimal_": "a number",
    "bool_": "true or false",
    "string_type": "a text",
    "string_unicode": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "names with their values",
    "mapping_type": "names with their values",
    "model_type": "names with their values",
    "model_attributes_type": "names with their values",
    "json_": "JSON",
}
"""Beginning of a kind of error → what it asks for."""
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


def _least(noun: str) -> Callable[[Mapping[str, object]], str]:
    def too_few(ctx: Mapping[str, object]) -> str:
        least = ctx.get("min_length")
        return "it must not be empty" if least == 1 else f"at least {least} {noun} are needed"

    return too_few


_LENGTHS: Mapping[str, Callable[[Mapping[str, object]], str]] = {
    "string_too_short": _least("characters"),
    "too_short": _least("values"),
    "string_too_long": lambda ctx: f"at most {ctx.get('max_length')} characters are taken",
    "too_long": lambda ctx: f"at most {ctx.get('max_length')} values are taken, not {ctx.get('actual_length')}",
    "string_pattern_mismatch": lambda ctx: _pattern(str(ctx.get("pattern", ""))),
}


_PATTERNS = {
    r"^[a-z0-9][a-z0-9-]*$": "it takes small letters a-z, digits and dashes, such as 'my-orders'",
    r"^[^\W\d]\w*$": "it takes letters, digits and _, and no digit at the start",
    r"^[^\W\d]\w*(?:\.[^\W\d]\w*)*$": "it takes letters, digits and _, and a dot between an object and what it holds",
}
"""What a name is made of, by the pattern of its field."""


def _pattern(pattern: str) -> str:
    """A name's pattern in words; another one as it is."""
    return _PATTERNS.get(pattern, f"it must match {pattern}")


def _one_of(expected: str, value: object) -> str:
    # True and False as every file that names them writes them.
    known = [name.strip("'") if name[:1] == "'" else name.lower() for name in re.split(r", | or ", expected)]
    near = difflib.get_close_matches(str(value), known, 1)
    return f"did you mean {near[0]!r}? It takes {_or(known)}" if near else f"it takes {_or(known)}"


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _number(info: FieldInfo) -> str:
    """A number with its bounds, and an example where one can be given."""
    bounds = {key: getattr(one, key) for one in info.metadata for key in ("ge", "gt", "le", "lt") if hasattr(one, key)}
    whole, default = info.annotation is int, info.get_default(call_default_factory=True)
    open_ = auto.is_auto(info)
    if auto.is_open(info, 0) and bounds.get("ge") == 0:  # 0 is how `auto` is written down
        del bounds["ge"]
        bounds |= {"ge": 1} if whole else {"gt": 0}
    least = f"at least {bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}" if "gt" in bounds else ""
    most = f"at most {bounds['le']}" if "le" in bounds else f"below {bounds['lt']}" if "lt" in bounds else ""
    extent = " and ".join(filter(None, (least, most)))
    # no default says one: what most take
    usual = default if isinstance(default, int | float) and default else 8 if whole and _takes_8(bounds) else None
    return (
        f"a {'whole ' if whole else ''}number"
        + (f" of {extent}" if extent.startswith("at") else f" {extent}" if extent else "")
        + (f", such as {usual:g}" if usual is not None else "")
        + (", or auto" if open_ else "")
    )


def _takes_8(bounds: Mapping[str, float]) -> bool:
    """Whether 8 is an example that helps: not of a port."""
    return bounds.get("ge", 0) <= 8 <= bounds.get("le", 8) <= 5000


def _described(info: FieldInfo | None) -> str:
    text = info.description if info else None
    if not text or info is None or info.default is not PydanticUndefined:
        return ""
    return f": {text[:1].lower()}{text[1:].rstrip('.')}"
