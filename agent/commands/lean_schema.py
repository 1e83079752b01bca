"""The JSON schema of a tool's arguments in as few characters as say it: every request of a driver holds all of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

_LEFT_OUT = re.compile(r"(?:^|; )(?:empty|0): [^;]*")
"""What an argument means that is left out: a driver leaves it out then."""
_HIDDEN = ("kind",)
"""What the tool's name says, and how `show` is called in requests that phrase lines."""

_DROPPED = frozenset(
    ["title", "default", "anyOf", "enum", "$ref", "maxItems", "minItems", "maxLength", "pattern", "required", "minimum",
     "maximum", "minLength", "format", "additionalProperties"]
)  # fmt: skip
"""What code checks and tells, should a driver not hold to it."""


def lean_schema(args: type[BaseModel], known: Collection[str] = ()) -> dict[str, Any]:
    """Arguments as a model reads them: no titles, defaults or nulls. What is `known` by its name has a type alone."""
    schema = args.model_json_schema()
    given = {n: _lean(one, schema.get("$defs", {})) for n, one in schema["properties"].items() if n not in _HIDDEN}
    for name in {*given} & {*known}:
        given[name] = {"type": "string", **{key: given[name][key] for key in ("type", "items") if key in given[name]}}
    # Without a required argument some models call a tool again and again: the first one says what is asked.
    required = [name for name in schema.get("required", ()) if name not in _HIDDEN] or [*given][:1]
    return {"type": "object", "properties": given, "required": required}


def _lean(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    if reference := schema.get("$ref"):
        schema = {**defs[str(reference).rpartition("/")[2]], **schema}
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null" and one != {"const": ""}]
    flat = {**schema, **(_lean(options[0], defs) if len(options) == 1 else {})}
    enum = [value for one in (*options, flat) for value in one.get("enum", ()) if value != ""]
    lean = {key: value for key, value in flat.items() if key not in _DROPPED}
    if len(options) > 1 and not enum:
        lean["anyOf"] = [_lean(one, defs) for one in options]
    if "items" in lean:
        lean["items"] = _lean(lean["items"], defs)
    if "properties" in lean:
        lean["properties"] = {name: _lean(one, defs) for name, one in lean["properties"].items()}
        lean.pop("description", None)  # a docstring, for who reads the code
    if enum:
        lean.pop("type", None)
    if text := _LEFT_OUT.sub("", lean.pop("description", "")):
        lean["description"] = text
    return {**lean, **({"enum": list(dict.fromkeys(enum))} if enum else {})}
