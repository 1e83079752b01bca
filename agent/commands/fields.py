"""The fields of a stage's request as flags (`--lora-rank 8`) and as words (`lora_rank=8`).

Only the form is settled here; whether a name and a value are right is for the request model to say.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.auto import AUTO, is_auto, is_switch, readable_default
from tunesmith.tools.core.field_names import others, ours

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

PREFIX = "field:"
"""Fields stand under this in the parsed arguments, apart from tunesmith's own options."""
_SPELLED = "spelled"


class _Field(argparse.Action):
    """Keeps a field's value, and its name as it was typed."""

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        setattr(args, self.dest, values)
        name = self.dest.removeprefix(PREFIX)
        setattr(args, _SPELLED, {**spelled(args), name: option or f"--{name}"})


def spelled(args: argparse.Namespace) -> dict[str, str]:
    """Field → its name as it was typed."""
    return dict(getattr(args, _SPELLED, {}))


def add_flags(parser: argparse.ArgumentParser, model: type[BaseModel], bare: str = "") -> None:
    """Give `parser` one flag for every field of a request, but for the `bare` one: a word of its own."""
    group = parser.add_argument_group("fields of the request")
    spellings: dict[str, list[str]] = {name: [name] for name in model.model_fields}
    for other, name in others(model.model_fields).items():
        spellings[name].append(other)
    for name, info in model.model_fields.items():
        default = "required" if info.is_required() else f"default: {_default(info)}"
        said = (info.description or "").replace("%", "%%")
        if name == bare:
            parser.add_argument(PREFIX + name, action=_Field, metavar=_metavar(name, info), help=said)
            continue
        text = f"{said} ({default.replace('%', '%%')})".strip()
        _add_flag(group, f"--{name.replace('_', '-')}", name, info, text)
        for typed in dict.fromkeys(one for other in spellings[name] for one in (other, other.replace("_", "-"))):
            if typed != name.replace("_", "-"):
                _add_flag(group, f"--{typed}", typed.replace("-", "_"), info, argparse.SUPPRESS)


# argparse names no class for what add_argument_group returns, but this private one.
def _add_flag(group: argparse._ArgumentGroup, flag: str, name: str, info: FieldInfo, text: str) -> None:
    switch = is_switch(info)
    group.add_argument(
        flag,
        action=_Field,
        dest=PREFIX + name,
        metavar=_metavar(name, info),
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
    """The fields in `lora_rank=8 epochs=2`, or in `--lora-rank 8`; a bare name means true. Raises BadInput."""
    fields: dict[str, object] = {}
    left = split_words(words)
    while left:
        word = left.pop(0)
        name, equals, _ = word.removeprefix("--").partition("=")
        if word.startswith("--") and not equals and left and "=" not in left[0] and not left[0].startswith("--"):
            word, equals = f"{word}={left.pop(0)}", "="
        fields |= _of_pair(word, model) if equals else {name.replace("-", "_"): "true"}
    return fields


def _of_pair(pair: str, model: type[BaseModel]) -> dict[str, object]:
    """The field in `lora_rank=8`."""
    name, _, value = pair.removeprefix("--").partition("=")
    name = name.replace("-", "_")
    field = ours(name, model.model_fields)
    sequence = field in model.model_fields and _is_sequence(model.model_fields[field])
    text: object = value.split(",") if sequence and not value.startswith("[") else value
    return {name: _value(model, name, text)}


def split_words(words: str) -> list[str]:
    """Words as a shell would split them. Raises BadInput for an open quote."""
    try:
        return shlex.split(words)
    except ValueError as error:
        raise BadInput(f"cannot read {words!r}: {error}") from None


def of_rest(rest: Sequence[str], model: type[BaseModel]) -> dict[str, object]:
    """Arguments that no flag took: `lora_rank=8`, and options that the request will refuse by name.

    Raises BadInput for other ones.
    """
    fields: dict[str, object] = {}
    for word in rest:
        if word.startswith("--"):  # the words behind it may be its value
            return {**fields, **_of_pair(word, model)}
        if not re.match(r"[A-Za-z][\w-]*=", word):
            raise BadInput(f"unexpected argument {word[:200]!r}; {_with_its_name(word[:200], model)}")
        fields |= _of_pair(word, model)
    return fields


def _with_its_name(word: str, model: type[BaseModel]) -> str:
    """How a bare word is given that names no field."""
    if ours(word, model.model_fields) in model.model_fields:
        return f"give it a value: --{word} VALUE"
    name = next((name for name in model.model_fields if name not in ("run", "on")), None)
    if name is None:
        return "it takes none but --run RUN"
    return f"a field is given with its name, such as --{name} {shlex.quote(word)} or {name}={shlex.quote(word)}"


def of_file(path: str) -> dict[str, object]:
    """The fields in a request file, one JSON object. Raises BadInput."""
    from tunesmith.tools.core.local_paths import expanded
    from tunesmith.tools.core.plain_file import read_plain_text

    if not path:
        raise BadInput("--request '' names no file; name one, such as request.json")
    text = read_plain_text(expanded(path))
    fields = _json(text, path)
    if not isinstance(fields, Mapping):
        raise BadInput(f"{path} is not a request: it must be one JSON object of fields")
    return dict(fields)


def choices(info: FieldInfo) -> list[str]:
    """The values that a field takes where they can be listed."""
    of = info.annotation
    if get_origin(of) is tuple and get_origin(get_args(of)[0]) is Literal:
        of = get_args(of)[0]
    if get_origin(of) is Literal:
        return [str(value) for value in get_args(of)]
    return ["true", "false", *[AUTO] * is_auto(info)] if is_switch(info) else []


def _value(model: type[BaseModel], name: str, given: object) -> object:
    """What was typed, as the request model reads it: JSON where a field holds more than one thing."""
    text = given[0] if isinstance(given, list) and len(given) == 1 else given
    info = model.model_fields.get(ours(name, model.model_fields))
    if info and isinstance(text, str) and text[:1] in "[{" and text and _is_structured(info):
        return _json(text, f"--{name}")
    return given


def _json(text: str, where: str) -> object:
    """A JSON document in which no name is given twice: which of the two is meant nobody can say. Raises BadInput."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise BadInput(f"{where} gives {twice[:200]!r} twice; leave one of them out")
        return dict(pairs)

    def no_number(name: str) -> object:
        raise BadInput(f"{where} holds {name}, which is no JSON; give a number")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except BadInput:  # it is a ValueError too, and says more than the line below
        raise
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: {error}") from None


def _is_structured(info: FieldInfo) -> bool:
    return _is_sequence(info) or get_origin(info.annotation) is dict


def _is_sequence(info: FieldInfo) -> bool:
    return get_origin(info.annotation) in (tuple, list, set, frozenset)


_METAVARS = {
    "run": "RUN", "model": "MODEL", "revision": "COMMIT", "quantized": "MODEL", "judge": "MODEL", "suites": "FILE",
    "behaviour": "FILE", "source": "FILE", "mapping": "JSON", "split": "NAME",
}  # fmt: skip
"""What a text stands for, where that is more than a text."""


def _metavar(name: str, info: FieldInfo) -> str:
    listed = choices(info)
    if listed:
        return "{" + ",".join(listed) + "}"
    number = "N" if info.annotation is int else "X" if info.annotation is float else ""
    return f"{number}|{AUTO}" if is_auto(info) else number or _METAVARS.get(name, "TEXT")


def _default(info: FieldInfo) -> str:
    default = readable_default(info)
    if isinstance(default, tuple | list):
        return " ".join(map(str, default)) or "none"
    if isinstance(default, dict):
        return json.dumps(default) if default else "none"
    # True is an int, too
    return "empty" if default == "" else str(default).lower() if isinstance(default, bool) else str(default)
