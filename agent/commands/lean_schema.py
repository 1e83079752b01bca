"""The JSON schema of a tool's arguments in as few characters as say it: every request of a driver holds all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel


def lean_schema(args: type[BaseModel], known: Collection[str] = ()) -> dict[str, Any]:
    """Arguments as a model reads them: no titles, defaults or nulls, and none explained that is `known` by its name."""
    schema = args.model_json_schema()
    given = {n: _lean(one, schema.get("$defs", {})) for n, one in schema["properties"].items() if n != "kind"}
    for name in {*given} & {*known}:
        given[name].pop("description", None)
    # Without a required argument some models call a tool again and again: the first one says what is asked.
    required = [name for name in schema.get("required", ()) if name != "kind"] or [*given][:1]
    return {"type": "object", "properties": given, "required": required}


def _lean(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    if reference := schema.get("$ref"):
        schema = {**defs[str(reference).rpartition("/")[2]], **schema}
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null" and one != {"const": ""}]
    flat = {**schema, **(_lean(options[0], defs) if len(options) == 1 else {})}
    enum = [value for one in (*options, flat) for value in one.get("enum", ()) if value != ""]
    dropped = (
        "title",
        "default",
        "anyOf",
        "enum",
        "$ref",
        "maxItems",
        "minItems",
        "maxLength",
        "pattern",
        "required",
        "minimum",
        "maximum",
        "minLength",
    )
    lean = {key: value for key, value in flat.items() if key not in dropped}
    if len(options) > 1 and not enum:
        lean["anyOf"] = [_lean(one, defs) for one in options]
    if isinstance(lean.pop("additionalProperties", None), Mapping):
        lean["additionalProperties"] = {"type": "string"}
    if "items" in lean:
        lean["items"] = _lean(lean["items"], defs)
    if "properties" in lean:
        lean["properties"] = {name: _lean(one, defs) for name, one in lean["properties"].items()}
    if "properties" in lean:
        lean.pop("description", None)  # a docstring, for who reads the code
    return {**lean, **({"enum": list(dict.fromkeys(enum))} if enum else {})}
