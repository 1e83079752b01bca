"""JavaScript's reading of text, numbers and patterns, which is what a promptfoo suite was written against.

Python differs in quiet places: `str(True)`, `\\s`, a `$` that also matches before a last newline, ints that
equal bools. Each function here gives JavaScript's answer; what it cannot give, it refuses by name.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from functools import lru_cache
from typing import Any

PATTERN_TIMEOUT_S = 1.0
MAX_PATTERN_CHARS = 5_000
_MAX_SAFE_INTEGER = 2**53
_SPACE = r"\t\n\x0b\x0c\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_SPACE_CHARS = (
    "\t\n\x0b\x0c\r \xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_LETTER_ESCAPES = frozenset("bBdDwWsSfnrtvcxuk")
_GROUP_STARTS = (":", "=", "!", "<=", "<!", "<")


class CannotGrade(Exception):
    """This output cannot be judged by this assertion: an error, counted apart from a failure."""


def as_text(value: Any) -> str:
    """What `String(value)` gives."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) < _MAX_SAFE_INTEGER:
        return str(value)
    if isinstance(value, int | float):
        return _number_text(float(value))
    if isinstance(value, list | tuple):
        return ",".join("" if item is None else as_text(item) for item in value)
    return "[object Object]" if isinstance(value, dict) else str(value)


def _number_text(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if value == 0:
        return "0"
    if 1e-7 < abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa.removesuffix('.0')}e{exponent[0]}{exponent[1:].lstrip('0')}"


def as_json(value: Any) -> str:
    """What `JSON.stringify(value)` gives, up to the spelling of floats."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_json(text: str) -> Any:
    """What `JSON.parse` accepts: no NaN, no Infinity. Raises ValueError, also where the nesting is too deep."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_number)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) < 300 else float(digits)


def strictly_equal(left: Any, right: Any) -> bool:
    """Deep equality in which a bool never equals a number, and 1 equals 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(strictly_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(strictly_equal, left, right))
    return (type(left) is type(right) and left == right) or (_both_numbers(left, right) and left == right)


def _both_numbers(left: Any, right: Any) -> bool:
    return isinstance(left, int | float) and isinstance(right, int | float)


def trim(text: str) -> str:
    """What `text.trim()` gives."""
    return text.strip(_SPACE_CHARS)


def words(text: str) -> list[str]:
    """The pieces between runs of JavaScript's white space."""
    import regex

    return [word for word in regex.split(f"[{_SPACE}]+", text) if word]


def utf16_units(text: str) -> str | list[int]:
    """`text` as JavaScript counts it: itself, or its UTF-16 units where a character needs two."""
    if all(ord(char) < 0x10000 for char in text):
        return text
    data = text.encode("utf-16-le", "surrogatepass")
    return [int.from_bytes(data[i : i + 2], "little") for i in range(0, len(data), 2)]


def found(pattern: str, text: str) -> bool:
    """Whether `new RegExp(pattern).test(text)`, within a second. Raises CannotGrade when it takes longer."""
    try:
        return compiled(pattern).search(text, timeout=PATTERN_TIMEOUT_S) is not None
    except TimeoutError:
        raise CannotGrade(
            f"the regex {pattern[:60]!r} took over {PATTERN_TIMEOUT_S:g} s on {len(text)} characters; "
            "remove nested repeats such as (a+)+"
        ) from None


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Any:
    """The compiled pattern. Raises ValueError with what is wrong with it."""
    import regex

    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"{len(pattern)} characters; a pattern may have {MAX_PATTERN_CHARS}")
    try:
        return regex.compile(_translate(pattern), regex.V0 | regex.ASCII)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error) or "nested too deep") from None


def _translate(pattern: str) -> str:
    """JavaScript's pattern in the words of the `regex` package."""
    out: list[str] = []
    position, in_class = 0, False
    while position < len(pattern):
        piece, used, in_class = _next_piece(pattern, position, in_class)
        out.append(piece)
        position += used
    return "".join(out)


def _next_piece(pattern: str, at: int, in_class: bool) -> tuple[str, int, bool]:
    char, rest = pattern[at], pattern[at + 1 :]
    if char == "\\":
        return _escape(rest[:1], in_class), 2, in_class
    if in_class:
        return ("\\[" if char == "[" else char), 1, char != "]"
    if char == "[":
        return _open_class(rest)
    if char == "(" and rest.startswith("?"):
        _check_group(rest[1:])
    if char == "{" and not _is_quantifier(rest):
        return "\\{", 1, False
    return {"$": r"\Z", ".": r"[^\n\r\u2028\u2029]"}.get(char, char), 1, False


def _open_class(rest: str) -> tuple[str, int, bool]:
    if rest.startswith("^]"):
        return r"[\s\S]", 3, False
    if rest.startswith("]"):
        return "(?!)", 2, False
    return ("[^", 2, True) if rest.startswith("^") else ("[", 1, True)


def _escape(letter: str, in_class: bool) -> str:
    if not letter:
        raise ValueError("it ends in a lone backslash")
    if letter == "s":
        return _SPACE if in_class else f"[{_SPACE}]"
    if letter == "S" and not in_class:
        return f"[^{_SPACE}]"
    if letter.isascii() and letter.isalpha() and letter not in _LETTER_ESCAPES:
        raise ValueError(f"\\{letter} is no escape in JavaScript, whose patterns promptfoo uses; write it out")
    return "\\" + letter


def _is_quantifier(rest: str) -> bool:
    import regex

    return regex.match(r"\d+(,\d*)?\}", rest) is not None


def _check_group(after: str) -> None:
    import regex

    if not after.startswith(_GROUP_STARTS) and not regex.match(r"[ims]+(-[ims]+)?[:)]", after):
        raise ValueError(f"(?{after[:2]} is no group in JavaScript, whose patterns promptfoo uses; use (?:…)")
