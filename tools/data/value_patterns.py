"""Values as a suite asserts them: a pattern of a right value in a text, a schema of one in JSON.

What is decided is asserted as it is; a number whatever its trailing zeros, a set whatever its order, a long copied
piece by half of its words in a row, and what is said in words of its own by being there at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from tunesmith.tools.data.answer_rules import js_escape
from tunesmith.tools.data.arithmetic import NUMERIC, number_of
from tunesmith.tools.data.spec import Attribute

_COPIED_WORDS = 3
"""Of a copied piece with more words, where it begins and ends is a matter of taste."""
_RUN_MOST, _RUNS_MOST = 8, 32
"""Words in a row of a long piece, and about so many of its stretches: a pattern of more is slow to read."""
_ANYTHING = r"[^\n]+?"


def is_decided(attribute: Attribute, value: str | None) -> bool:
    """Whether a right answer holds this very value: all but what an answer says in words of its own."""
    return value is None or attribute.kind != "text" or is_number(value)


def is_number(text: str) -> bool:
    """Whether a text is figures and marks alone."""
    return any(c.isdigit() for c in text) and not any(c.isalpha() for c in text)


def value_pattern(attribute: Attribute, value: str | None) -> str:
    """What a text holds where this value is right."""
    if value is None:
        return escaped(attribute.absent_as or "")
    if not is_decided(attribute, value):
        return _ANYTHING
    if _by_taste(attribute, value):
        return rf"(?=[^\n]*{_piece(value)}){_ANYTHING}"
    if attribute.kind in NUMERIC and (number := number_of(value)) is not None:
        return number_pattern(number)
    return any_case(value) if attribute.kind == "copied" else escaped(value)


def several_pattern(attribute: Attribute, values: Sequence[str]) -> str:
    """What a text holds where these values are right: a list in its order, a set in any."""
    mark = escaped(attribute.joined.strip()) or "\\s"
    between = rf"\s*{mark}\s*"
    if not values:
        return escaped(attribute.absent_as or "")
    if attribute.kind != "label":
        return between.join(value_pattern(attribute, value) for value in values)
    one = f"(?:{'|'.join(escaped(value) for value in sorted(values, key=len, reverse=True))})"
    others = len(values) - 1  # as many items as values, and each value among them: none comes twice
    each = "".join(rf"(?=(?:{one}{between}){{0,{others}}}{escaped(value)}(?!\w))" for value in values)
    return rf"{each}{one}(?:{between}{one}){{{others}}}"


def value_schema(attribute: Attribute, value: object) -> tuple[dict[str, object], bool]:
    """The schema of one value that is right in JSON, and whether that is its whole meaning."""
    text = value if isinstance(value, str) else None
    if text is None:
        return {"const": value}, True
    if not is_decided(attribute, text):
        return {"type": "string", "minLength": 1}, False
    if _by_taste(attribute, text):
        return {"type": "string", "pattern": literal(_piece(text))}, True
    if attribute.kind in NUMERIC and (number := number_of(text)) is not None:
        return {"type": "string", "pattern": f"^{number_pattern(number)}$"}, True
    return {"const": literal(text)}, True


def number_pattern(number: Decimal) -> str:
    """A number with or without zeros at its end."""
    whole, _, places = format(number, "f").partition(".")
    places = places.rstrip("0")
    return rf"{whole}\.{places}0*" if places else rf"{whole}(?:\.0+)?"


def _by_taste(attribute: Attribute, value: str) -> bool:
    return attribute.kind == "copied" and len(value.split()) > _COPIED_WORDS


def _piece(value: str) -> str:
    """A pattern of what holds at least half of a copied piece, its words in a row; of a long one eight of them."""
    words = value.split()
    run = min(_RUN_MOST, max(2, -(-len(words) // 2)))
    starts = range(0, len(words) - run + 1, 1 + len(words) // _RUNS_MOST)
    runs = dict.fromkeys(r"\s+".join(map(any_case, words[n : n + run])) for n in starts)
    return f"(?:{'|'.join(runs)})"


def any_case(text: str) -> str:
    """A text whatever its case; a pattern of a suite has no flag for it."""
    both = ((c.lower(), c.upper()) for c in text)
    return "".join(
        f"[{low}{up}]" if low != up and len(low) == len(up) == 1 else escaped(c)
        for (low, up), c in zip(both, text, strict=True)
    )


def escaped(text: str) -> str:
    """A text as a pattern that JavaScript and Python read alike."""
    return js_escape(text).replace("\n", "\\n")


def literal(value: object) -> object:
    """A text that is read as it is: where a template or a file's name could begin, it is printed by a template."""
    if isinstance(value, Mapping):
        return {name: literal(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [literal(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if re.search(r"\{[{%#]", value):
        value = value.replace("{", '{{ "{" }}')
    return '{{ "file:" }}' + value.removeprefix("file:") if value.startswith("file://") else value
