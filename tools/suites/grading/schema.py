"""JSON Schema (draft 7, or what `$schema` names) that can be checked before it is trusted.

A schema is data from a suite: unknown keywords, remote references, reference cycles and schemas that unfold
without end are refused, and its patterns run with the same time limit as the regex assertion's.
Not covered: `patternProperties`, `$dynamicRef`, `unevaluated…`, refused by name.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tunesmith.tools.suites.grading import javascript as js

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MAX_UNFOLDED = 10_000
"""Subschemas after every `$ref` is written out: references may double at each level, and each is checked."""
CHECK_S = 2.0
"""Processor time for one value: many subschemas on many items multiply."""

_ONE = frozenset(["not", "if", "then", "else", "contains", "additionalProperties", "additionalItems", "propertyNames"])
_MANY = frozenset(["allOf", "anyOf", "oneOf", "prefixItems"])
_NAMED = frozenset(["properties", "definitions", "$defs", "dependentSchemas"])
_PLAIN = frozenset((
    "$schema", "$id", "$ref", "$comment", "title", "description", "default", "examples", "readOnly", "writeOnly",
    "deprecated", "type", "enum", "const", "format", "multipleOf", "maximum", "exclusiveMaximum", "minimum",
    "exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems",
    "maxProperties", "minProperties", "required", "dependentRequired", "minContains", "maxContains",
    "contentEncoding", "contentMediaType",
))  # fmt: skip
_KEYWORDS = _ONE | _MANY | _NAMED | _PLAIN | {"items", "dependencies"}
_DEFINITIONS = frozenset(("definitions", "$defs"))


def _is_time(text: str) -> bool:
    return js.matches(r"^([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([zZ]|[+-]\d\d:?\d\d)$", text)


def _is_date(text: str) -> bool:
    return js.matches(r"^\d{4}-\d\d-\d\d$", text) and _parses(date.fromisoformat, text)


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:  # so it says that it cannot be read
        return False
    return True


def _is_date_time(text: str) -> bool:
    day, _, time = text.replace("t", "T").replace(" ", "T").partition("T")
    return _is_date(day) and _is_time(time)


_FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "email": lambda text: js.matches(r"^[^\s@]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$", text),
    "uuid": lambda text: js.matches(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", text),
    "ipv4": lambda text: js.matches(r"^((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!$)|$)){4}$", text),
    "uri": lambda text: js.matches(r"^[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+$", text),
    "regex": lambda text: _parses(js.compiled, text),
}


def check_schema(schema: object) -> None:
    """Refuse, by ValueError, a schema that is not valid or could not be checked safely and in bounded time."""
    if not isinstance(schema, dict):
        raise ValueError(f"a JSON schema is an object, not {js.as_text(schema)[:60]!r}")
    try:
        _check_shape(schema, "")
        _unfolded_size(schema, schema, (), {})
        _check_form(json.dumps(schema, default=str))
    except RecursionError:  # all three walk it to its depth
        raise ValueError("the JSON schema is nested too deep") from None
    except ValueError:
        raise
    except Exception as error:  # jsonschema's SchemaError is no ValueError and must not be imported at the top
        raise ValueError(f"not a valid JSON schema: {getattr(error, 'message', error)}") from None


@lru_cache(maxsize=512)
def _check_form(schema_json: str) -> None:
    """Against the metaschema; the cases of a suite mostly share one schema, and a suite is read more than once."""
    schema = json.loads(schema_json)
    _validator_class(schema).check_schema(schema)


def _children(schema: object) -> Iterator[tuple[str, object]]:
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in _ONE or (key == "items" and not isinstance(value, list)):
            yield key, value
        elif key in _MANY or key == "items":
            yield from ((f"{key}/{index}", item) for index, item in enumerate(value if isinstance(value, list) else ()))
        elif key in _NAMED or key == "dependencies":
            named = value.items() if isinstance(value, dict) else ()
            yield from ((f"{key}/{name}", item) for name, item in named if not isinstance(item, list))


def _check_shape(schema: object, where: str) -> None:
    if isinstance(schema, dict):
        for key in schema:
            if key not in _KEYWORDS:
                raise ValueError(
                    f"unknown or unsupported JSON schema keyword {key!r} at #{where}; correct or remove it"
                )
        _check_values(schema, where)
    for step, child in _children(schema):
        _check_shape(child, f"{where}/{step}")


def _check_values(schema: dict[str, object], where: str) -> None:
    if isinstance(schema.get("pattern"), str):
        try:
            js.compiled(schema["pattern"], unicode=True)
        except ValueError as error:
            raise ValueError(f"the pattern at #{where} is not valid: {error}") from None
    if where and "$id" in schema:
        raise ValueError(f"$id at #{where} would move what $ref is relative to; keep it at the top only")
    name = schema.get("format")
    if name is not None and name not in _FORMATS:
        raise ValueError(f"format {name!r} at #{where} cannot be checked; use one of {sorted(_FORMATS)}, or a pattern")


def _resolve(root: dict[str, object], reference: object) -> object:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise ValueError(f"$ref {reference!r} leaves the schema; only references inside it (#/…) are followed")
    node: object = root
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            raise ValueError(f"$ref {reference!r} points at nothing")
    return node


def _unfolded_size(root: dict[str, object], schema: object, path: tuple[str, ...], known: dict[str, int]) -> int:
    """Subschemas once every reference is written out. Raises ValueError for a cycle or more than MAX_UNFOLDED."""
    size = 1
    for step, child in _children(schema):
        if step.split("/")[0] not in _DEFINITIONS or not path:
            size += _unfolded_size(root, child, path, known)
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if reference is not None:
        if reference in path:
            raise ValueError(f"$ref cycle: {' → '.join((*path, reference))}; write the levels out")
        if reference not in known:
            known[reference] = _unfolded_size(root, _resolve(root, reference), (*path, reference), known)
        size += known[reference]
    if size > MAX_UNFOLDED:
        raise ValueError(f"the JSON schema unfolds to over {MAX_UNFOLDED} subschemas through its $refs; simplify it")
    return size


def _validator_class(schema: dict[str, object]) -> type[Validator]:
    import jsonschema.validators

    return _with_our_patterns(jsonschema.validators.validator_for(schema, default=jsonschema.Draft7Validator))


@lru_cache
def _with_our_patterns(dialect: type[Validator]) -> type[Validator]:
    import jsonschema.validators

    extend: Any = jsonschema.validators.extend  # which its types leave out
    keywords = {**dialect.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique}
    extended: type[Validator] = extend(dialect, {name: _timed(check) for name, check in keywords.items()})
    return extended


_running = threading.local()


def _timed(check: Callable[..., Iterator[object] | None]) -> Callable[..., Iterator[object]]:
    """A keyword's check that ends, by CannotGrade, where the value it belongs to has had its time."""

    def checked(*arguments: object) -> Iterator[object]:
        if time.thread_time() > getattr(_running, "until", float("inf")):  # none: nothing runs in this thread
            raise js.CannotGrade(f"the JSON schema took over {CHECK_S:g} s; simplify it")
        yield from check(*arguments) or ()

    return checked


def _unique(validator: object, wanted: object, instance: object, schema: object) -> Iterator[object]:
    import jsonschema

    if wanted and isinstance(instance, list) and len(set(map(_key, instance))) < len(instance):
        # a reason is a line or two
        yield jsonschema.ValidationError(f"{str(instance[:20])[:150]} has non-unique elements")


def _key(value: object) -> Hashable:
    """Equal for equal JSON values and no others: 1 is 1.0 and is not true."""
    if isinstance(value, list):
        return ("list", *map(_key, value))
    if isinstance(value, dict):
        return frozenset((name, _key(item)) for name, item in value.items())
    return ("bool", value) if isinstance(value, bool) else value  # True is 1 to Python, and not to JSON


def _pattern(validator: object, pattern: str, instance: object, schema: object) -> Iterator[object]:
    import jsonschema

    if isinstance(instance, str) and not js.matches(pattern, instance, unicode=True):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


@lru_cache(maxsize=512)  # as the metaschema's above: cases share schemas
def _validator(schema_json: str) -> Any:
    import jsonschema

    schema = json.loads(schema_json)
    formats = jsonschema.FormatChecker(formats=())
    for name, holds in _FORMATS.items():
        # holds=holds: bound now; a closure would call the loop's last one
        formats.checks(name)(lambda value, holds=holds: not isinstance(value, str) or holds(value))
    return _validator_class(schema)(schema, format_checker=formats)


def violations(schema: dict[str, object], instance: object) -> str:
    """The first few ways in which `instance` breaks the schema, in words; empty when it conforms.

    Raises CannotGrade where that takes too long.
    """
    _running.until = time.thread_time() + CHECK_S
    try:
        errors = _validator(json.dumps(schema)).iter_errors(instance)
        lines = [
            f"{'/'.join(map(str, error.absolute_path)) or 'it'}: {error.message}"[:200]
            for _, error in zip(range(3), errors, strict=False)  # three faults tell enough
        ]
    except RecursionError:  # of the value: the schema's own depth was looked at
        raise js.CannotGrade("the value is nested too deep for its JSON schema") from None
    finally:
        _running.until = float("inf")  # none is running
    return "; ".join(lines)
