"""A number that may be left to the model: `auto` where people read and write it, 0 where code computes with it.

Requests and plans from before there was the word hold 0, which means the same and is read as it always was.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer
from pydantic.fields import FieldInfo

AUTO = "auto"


def _read(value: object) -> object:
    return 0 if isinstance(value, str) and value.strip().lower() == AUTO else value


def _write(value: float) -> float | str:
    return value or AUTO


_READ = BeforeValidator(_read)
_WRITE = PlainSerializer(_write, return_type=Any, when_used="json")
"""Of a JSON document alone: code that takes a request apart computes with numbers."""

AutoInt = Annotated[int, _READ, _WRITE]
AutoFloat = Annotated[float, _READ, _WRITE]


def is_auto(info: FieldInfo) -> bool:
    """Whether a field takes `auto`."""
    return _READ in info.metadata


def as_shown(info: FieldInfo, value: object) -> object:
    """A field's value as people read it, whichever version of tunesmith wrote it down."""
    return AUTO if is_auto(info) and not isinstance(value, str) and not value else value


def default_shown(info: FieldInfo) -> object:
    """What a field is where nobody says anything, as people read it."""
    return as_shown(info, info.get_default(call_default_factory=True))
