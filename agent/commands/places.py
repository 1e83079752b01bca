"""What another agent names, as far as tunesmith would look at something for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR, NO_PLACE, is_there, looks_like_path
from tunesmith.tools.evaluation.judge import JUDGES
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.model_names import is_listed
from tunesmith.tools.suites.loading import BUNDLED as BUNDLED_SUITES

_OURS = frozenset({BUNDLED_BEHAVIOUR, *BUNDLED, *BUNDLED_SUITES, *JUDGES})


def is_known(name: str) -> bool:
    """Whether our own tables say what a name means, and nothing in the present folder has it: no place is looked at.

    Only for a name of these tables it is seen whether the present folder has something of that name.
    """
    ours = name in _OURS or (is_listed(name) and not looks_like_path(name))
    return not name or (ours and not is_there(name))


def places(request: type[BaseModel], given: Mapping[str, object]) -> list[str]:
    """Every text, however deep, in those of the given fields that may name a file, a folder or something on the hub."""
    known = request.model_fields
    named = [value for name, value in given.items() if name in known and may_name_a_place(known[name])]
    return [*_texts(named)]


def may_name_a_place(field: FieldInfo) -> bool:
    """Whether a field takes any text, and is not declared to name no place."""
    return NO_PLACE not in field.metadata and _takes_text(field.annotation)


def _takes_text(kind: object) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal or (origin is Annotated and NO_PLACE in inner):
        return False
    if origin is Annotated:
        return _takes_text(inner[0])
    return any(map(_takes_text, inner)) if inner else kind not in (bool, int, float, datetime, NoneType, Ellipsis)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in [*value, *value.values()] if isinstance(value, Mapping) else value:
            yield from _texts(one)
