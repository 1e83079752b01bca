"""A number or a switch that may be left to the plan: `auto` where people read and write it, 0 where code computes.

Requests and plans from before there was the word hold 0, which means the same and is read as it always was. Where 0 is
a choice of its own, as of a weight, an open number is OPEN; an open switch is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer
from pydantic.fields import FieldInfo

AUTO = "auto"
REQUIRED = "none (it has to be named)"
"""The default of a field that has none."""


def _left_open(open_: float | None) -> tuple[BeforeValidator, PlainSerializer]:
    """How a field reads `auto`, as people write it, and writes it in a JSON document.

    Code that takes a request apart computes with the value that it is read as.
    """
    read = BeforeValidator(lambda value: open_ if isinstance(value, str) and value.strip().lower() == AUTO else value)
    return read, PlainSerializer(lambda value: AUTO if value == open_ else value, return_type=Any, when_used="json")


_READ, _WRITE = _left_open(0)
AutoInt = Annotated[int, _READ, _WRITE]
AutoFloat = Annotated[float, _READ, _WRITE]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Marks a field that takes its value from elsewhere where it is not given; its default stands for nothing then."""

    means: str
    """Where from, as people read it."""


OPEN = -1.0
"""A weight that is left to the model; 0 is none of it."""


def _not_negative(value: float) -> float:
    if value < 0 and value != OPEN:
        raise ValueError("must be 0 or more, or auto")
    return value


_READ_WEIGHT, _WRITE_WEIGHT = _left_open(OPEN)
AutoWeight = Annotated[float, _READ_WEIGHT, AfterValidator(_not_negative), _WRITE_WEIGHT]
_READ_SWITCH, _WRITE_SWITCH = _left_open(None)
AutoBool = Annotated[bool | None, _READ_SWITCH, _WRITE_SWITCH]
_OPEN_VALUES: tuple[tuple[BeforeValidator, float | None], ...] = (
    (_READ, 0),
    (_READ_WEIGHT, OPEN),
    (_READ_SWITCH, None),
)


def is_auto(info: FieldInfo) -> bool:
    """Whether a field takes `auto`."""
    return any(read in info.metadata for read, _ in _OPEN_VALUES)


def is_switch(info: FieldInfo) -> bool:
    """Whether a field is on or off, or may be left open."""
    return info.annotation in (bool, bool | None)


def is_open(info: FieldInfo, value: object) -> bool:
    """Whether a field's value leaves it to the plan."""
    return any(read in info.metadata and value == open_ for read, open_ in _OPEN_VALUES)


def readable_value(info: FieldInfo, value: object) -> object:
    """A field's value as people read it, whichever version of tunesmith wrote it down."""
    return AUTO if not isinstance(value, str) and is_open(info, value) else value


def readable_default(info: FieldInfo) -> object:
    """What a field is where nobody says anything, as people read it."""
    if left_out := next((mark for mark in info.metadata if isinstance(mark, LeftOut)), None):
        return left_out.means
    return REQUIRED if info.is_required() else readable_value(info, info.get_default(call_default_factory=True))
