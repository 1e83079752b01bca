"""The fields of a stage's request as flags (`--lora_rank 8`) and as words (`lora_rank=8`).

Only the form is settled here; whether a name and a value are right is for the request model to say.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from tunesmith.memory.errors import BadInput

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

PREFIX = "field:"
"""Fields stand under this in the parsed arguments, apart from tunesmith's own options."""


def add_flags(parser: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """Give `parser` one flag for every field of a request."""
    group = parser.add_argument_group("fields of the request")
    for name, info in model.model_fields.items():
        spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        switch = info.annotation is bool
        told = "required" if info.is_required() else f"default: {_default(info)}"
        text = f"{info.description or ''} ({told})".strip().replace("%", "%%")
        group.add_argument(
            *spellings,
            dest=PREFIX + name,
            metavar=_metavar(info),
            nargs="+" if _is_sequence(info) else "?" if switch else None,
            const="true" if switch else None,
            default=argparse.SUPPRESS,
            help=text,
        )


def of_flags(args: argparse.Namespace, model: type[BaseModel]) -> dict[str, object]:
    """The request's fields among parsed arguments."""
    given = {name.removeprefix(PREFIX): value for name, value in vars(args).items() if name.startswith(PREFIX)}
    return {name: _value(model, name, value) for name, value in given.items()}


def of_words(words: str, model: type[BaseModel]) -> dict[str, object]:
    """The fields in `lora_rank=8 epochs=2`; a bare name means true. Raises BadInput."""
    fields: dict[str, object] = {}
    for word in split_words(words):
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        sequence = name in model.model_fields and _is_sequence(model.model_fields[name])
        text: object = value.split(",") if sequence and not value.startswith("[") else value
        fields[name] = _value(model, name, text) if equals else "true"
    return fields


def split_words(words: str) -> list[str]:
    """Words as a shell would split them. Raises BadInput for an open quote."""
    try:
        return shlex.split(words)
    except ValueError as error:
        raise BadInput(f"cannot read {words!r}: {error}") from None


def of_rest(rest: Sequence[str]) -> dict[str, object]:
    """Arguments that no flag took, as fields that the request will refuse by name. Raises BadInput for other ones."""
    if not rest:
        return {}
    if not rest[0].startswith("--"):
        raise BadInput(f"unexpected argument {rest[0]!r}; fields are given as --name value")
    name, _, value = rest[0].removeprefix("--").partition("=")
    return {name.replace("-", "_"): value}


def of_file(path: str) -> dict[str, object]:
    """The fields in a request file, one JSON object. Raises BadInput."""
    from tunesmith.tools.core.plain_file import read_plain_text

    text = read_plain_text(Path(path))
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if not isinstance(fields, Mapping):
        raise BadInput(f"{path} is not a request: it must be one JSON object of fields")
    return dict(fields)


def choices(info: FieldInfo) -> list[str]:
    """The values that a field takes where they can be listed."""
    if get_origin(info.annotation) is Literal:
        return [str(value) for value in get_args(info.annotation)]
    return ["true", "false"] if info.annotation is bool else []


def _value(model: type[BaseModel], name: str, given: object) -> object:
    """What was typed, as the request model reads it: JSON where a field holds more than one thing."""
    text = given[0] if isinstance(given, list) and len(given) == 1 else given
    info = model.model_fields.get(name)
    if info and isinstance(text, str) and text[:1] in "[{" and text and _is_structured(info):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"--{name} is not JSON: {error}") from None
    return given


def _is_structured(info: FieldInfo) -> bool:
    return _is_sequence(info) or get_origin(info.annotation) is dict


def _is_sequence(info: FieldInfo) -> bool:
    return get_origin(info.annotation) in (tuple, list, set, frozenset)


def _metavar(info: FieldInfo) -> str:
    listed = choices(info)
    if listed:
        return "{" + ",".join(listed) + "}"
    return "TEXT" if info.annotation is str else getattr(info.annotation, "__name__", "VALUE").upper()


def _default(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True)
    if isinstance(default, tuple | list):
        return " ".join(map(str, default)) or "none"
    return "empty" if default == "" else str(default).lower() if isinstance(default, bool) else str(default)
