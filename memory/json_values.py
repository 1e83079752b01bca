"""Values of JSON documents by what they have to be. A value of another kind raises TypeError, as `int` and `**` do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def as_object(value: object) -> dict[str, object]:
    """The fields of a JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} where a JSON object belongs")
    return value


def as_record(make: Callable[..., T], value: object) -> T:
    """What `make`, such as a dataclass, makes of the fields of a JSON object."""
    return make(**as_object(value))


def picked(record: object, *names: str) -> dict[str, Any]:
    """Some fields of a record under their own names, in this order, for a document."""
    return {name: getattr(record, name) for name in names}


def as_list(value: object) -> list[object]:
    """The members of a JSON list."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{type(value).__name__} where a JSON list belongs")
    return [*value]


def as_int(value: object) -> int:
    """A number, or a text that is one, without its fraction. Raises ValueError for a text that is no whole number."""
    return int(_scalar(value))


def as_float(value: object) -> float:
    """A number, or a text that is one. Raises ValueError for another text."""
    return float(_scalar(value))


def _scalar(value: object) -> str | int | float:
    if not isinstance(value, str | int | float):
        raise TypeError(f"{type(value).__name__} where a number belongs")
    return value
