"""Templates of answers: fixed text with a place for each attribute, `{name}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_PLACE = re.compile(r"(\{\w+\})")


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its places filled; braces in values stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


@lru_cache(maxsize=256)
def pattern_of(template: str) -> re.Pattern[str]:
    """The template as a pattern with its places as groups; a place that comes again holds the same."""
    parts = _PLACE.split(template)
    places, made, seen = sum(map(bool, map(_PLACE.fullmatch, parts))), "", list[str]()
    for part in parts:
        if not _PLACE.fullmatch(part):
            made += re.escape(part)
            continue
        name = part[1:-1]
        made += f"(?P={name})" if name in seen else f"(?P<{name}>[^\\n]+{'?' if len(seen) + 1 < places else ''})"
        seen.append(name)
    return re.compile(made)
