"""Answers that are JSON objects, as data: what lies under each path, and how objects and lists lie in one another.

A path names keys alone (`items.price`), as an attribute's does. Not covered: what a value means, and how a number that
is computed comes about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from tunesmith.tools.data.description import Example
from tunesmith.tools.data.json_values import json_object
from tunesmith.tools.data.spec import Attribute

Found = Sequence[tuple[str, object]]
"""(message, what its answer has under a path); `LACKS` where an object has not the key."""
Leaf = Callable[[str, Found], Attribute]
"""The attribute of a path with single values. Raises NotExpressed."""
LACKS = object()
_ABSENT_SHARES = (0.15, 0.35)


class NotExpressed(ValueError):
    """What attributes cannot say, with its path."""


def json_examples(examples: Sequence[Example]) -> list[tuple[str, dict[str, object]]]:
    """(message, object) of examples whose answers are all JSON objects with something in them; else nothing."""
    given = [(example.prompt, json_object(example.answer)) for example in examples]
    objects = [(message, value) for message, value in given if value]
    return objects if len(objects) == len(examples) else []


def leaves(found: Found, at: str = "") -> Iterator[tuple[str, Found]]:
    """Every path with single values, and these."""
    for name in _names(found):
        path, own = f"{at}{name}", [item for message, value in found for item in _under(message, value, name)]
        if any(isinstance(value, dict) for _, value in own):
            yield from leaves([one for one in own if isinstance(one[1], dict)], f"{path}.")
        else:
            yield path, own


def _names(found: Found) -> list[str]:
    return list(dict.fromkeys(name for _, value in found if isinstance(value, dict) for name in value))


def _under(message: str, value: object, name: str) -> Found:
    """What an object has under a key; of a list each item."""
    inner = value.get(name, LACKS) if isinstance(value, dict) else LACKS
    return [(message, item) for item in inner] if isinstance(inner, list) else [(message, inner)]


def tree(found: Found, leaf: Leaf, at: str = "") -> list[Attribute]:
    """The attributes of some objects. Raises NotExpressed for what they cannot say."""
    made = []
    for name in _names(found):
        if not re.fullmatch(r"[^\W\d]\w*", name):
            raise NotExpressed(f"the key {name!r} is no name of letters, digits and _")
        own = [(message, value.get(name, LACKS)) for message, value in found if isinstance(value, dict)]
        made.append(_one(f"{at}{name}", own, leaf).model_copy(update={"name": name}))
    return made


def _one(path: str, found: Found, leaf: Leaf) -> Attribute:
    there = [(message, value) for message, value in found if value is not None and value is not LACKS]
    lacking = [value is LACKS for _, value in found if value is None or value is LACKS]
    if len(set(lacking)) > 1:
        raise NotExpressed(f"{path} is null in one example and lacking in another")
    kinds = {dict if isinstance(v, dict) else list if isinstance(v, list) else str for _, v in there}
    if len(kinds) > 1:
        raise NotExpressed(f"{path} is a list or an object in one example and a single value in another")
    if kinds == {dict}:
        made = Attribute(name="object", kind="object", attributes=tuple(tree(there, leaf, f"{path}.")))
    else:
        made = _several(path, there, leaf) if kinds == {list} else leaf(path, there)
    if not lacking:
        return made
    low, high = _ABSENT_SHARES
    share = round(min(high, max(low, len(lacking) / len(found))), 2)
    return made.model_copy(update={"absent_share": share, "left_out": lacking[0]})


def _several(path: str, found: Found, leaf: Leaf) -> Attribute:
    items = [(message, item) for message, value in found if isinstance(value, list) for item in value]
    if any(isinstance(item, list) or item is None for _, item in items):
        raise NotExpressed(f"{path} has a list or null among its items")
    if not items:
        raise NotExpressed(f"{path} is an empty list in every example, so nothing shows what it holds")
    counts = [len(value) for _, value in found if isinstance(value, list)]
    return _one(path, items, leaf).model_copy(update={"many": (min(counts), max(counts))})


def as_text(value: object) -> str:
    """A single value as a text."""
    return value if isinstance(value, str) else json.dumps(value)
