"""JavaScript's reading of text, numbers and patterns, which is what a promptfoo suite was written against.

Python differs in quiet places: `str(True)`, `\\s`, a `$` that also matches before a last newline, ints that
equal bools. Each function here gives JavaScript's answer; what it cannot give, it refuses by name. Patterns are matched
over UTF-16 units, as `new RegExp(pattern)` does without the flag u: an emoji is two.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Protocol

PATTERN_TIMEOUT_S = 1.0  # for each search: nested repeats, such as (a+)+, would take for ever
MAX_PATTERN_CHARS = 5_000
"""More than patterns that people write; each repeat of a repeat may multiply the time."""
_MAX_SAFE_INTEGER = 2**53  # from there on a double, which its numbers are, skips some
_SPACE = r"\t\n\x0b\x0c\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_SPACE_CHARS = (
    "\t\n\x0b\x0c\r \xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
# What is left between them: a negated class cannot stand in a class.
_NO_SPACE = "".join(
    f"{chr(low)}-{chr(high)}"
    for low, high in (
        (0x00, 0x08), (0x0E, 0x1F), (0x21, 0x9F), (0xA1, 0x167F), (0x1681, 0x1FFF), (0x200B, 0x2027), (0x202A, 0x202E),
        (0x2030, 0x205E), (0x2060, 0x2FFF), (0x3001, 0xFEFE), (0xFF00, 0x10FFFF),
    )
)  # fmt: skip
_LETTER_ESCAPES = frozenset("bBdDwWfnrtvxu")
_GROUP_STARTS = ("?:", "?=", "?!", "?<")
_THEIRS = "promptfoo's JavaScript"


class CannotGrade(Exception):
    """This output cannot be judged by this assertion: an error, counted apart from a failure."""


def as_text(value: object) -> str:
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
    # Number.prototype.toString writes powers of ten outside these bounds.
    if 1e-7 < abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa.removesuffix('.0')}e{exponent[0]}{exponent[1:].lstrip('0')}"


def as_json(value: object) -> str:
    """What `JSON.stringify(value)` gives, up to the spelling of floats."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_json(text: str) -> object:
    """What `JSON.parse` accepts: no NaN, no Infinity. Raises ValueError, also where the nesting is too deep."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_number)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _number(digits: str) -> int | float:
    # JavaScript has floats alone, of 308 digits; and from 4,300 on Python refuses to read a whole number.
    return int(digits) if len(digits) < 300 else float(digits)


def strictly_equal(left: object, right: object) -> bool:
    """Deep equality in which a bool never equals a number, and 1 equals 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(strictly_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(strictly_equal, left, right))
    return (type(left) is type(right) and left == right) or (_both_numbers(left, right) and left == right)


def _both_numbers(left: object, right: object) -> bool:
    return isinstance(left, int | float) and isinstance(right, int | float)


def trim(text: str) -> str:
    """What `text.trim()` gives."""
    return text.strip(_SPACE_CHARS)


def words(text: str) -> list[str]:
    """The pieces between runs of JavaScript's white space."""
    import regex

    return [word for word in regex.split(f"[{_SPACE}]+", text) if word]


def utf16_units(text: str) -> str:
    """`text` as JavaScript counts it: a character that needs two UTF-16 units is two, each half of a pair."""
    if text.isascii() or all(ord(char) < 0x10000 for char in text):
        return text
    data = text.encode("utf-16-le", "surrogatepass")
    # Two bytes a unit, the low one first.
    return "".join(chr(data[i] | data[i + 1] << 8) for i in range(0, len(data), 2))


def matches(pattern: str, text: str, *, unicode: bool = False) -> bool:
    """Whether `new RegExp(pattern).test(text)`, within a second. Raises CannotGrade when it takes longer.

    `unicode` is the flag u in one thing: a character is a code point, not a UTF-16 unit.
    """
    subject = text if unicode else utf16_units(text)
    try:
        return compiled(pattern, unicode=unicode).search(subject, timeout=PATTERN_TIMEOUT_S) is not None
    except TimeoutError:
        raise CannotGrade(
            f"the regex {pattern[:60]!r} took over {PATTERN_TIMEOUT_S:g} s on {len(text)} characters; "
            "remove nested repeats such as (a+)+"
        ) from None


class Pattern(Protocol):
    """What of the regex module's patterns is used here."""

    def search(self, string: str, *, timeout: float | None = None) -> object | None: ...
    def match(self, string: str) -> object | None: ...
    def finditer(self, string: str, *, timeout: float | None = None) -> Iterator[re.Match[str]]: ...


@lru_cache(maxsize=1024)
def compiled(pattern: str, *, unicode: bool = False) -> Pattern:
    """The compiled pattern. Raises ValueError with what is wrong with it."""
    import regex

    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"{len(pattern)} characters; a pattern may have {MAX_PATTERN_CHARS}")
    try:
        translated = _Translation(pattern if unicode else utf16_units(pattern)).text()
        # V0: `[` in a class is a character, not a set. ASCII: JavaScript's \d, \w and \b know no others.
        pattern_: Pattern = regex.compile(translated, regex.V0 | regex.ASCII)
    # of the library, or of huge repeats and nestings
    except (regex.error, OverflowError, RecursionError, ValueError) as error:
        reason = str(error).encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # halves made whole
        raise ValueError(reason or "nested too deep") from None
    return pattern_


class _Translation:
    """JavaScript's pattern in the words of the `regex` package, piece by piece."""

    def __init__(self, pattern: str) -> None:
        import regex

        self._pattern = pattern
        self._quantifier = regex.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??")
        self._place = regex.compile(r"\^|\$|\\[bB]")
        self._modifier = regex.compile(r"\?[a-z]*(?:-[a-z]*)?[:)]")
        self._name = regex.compile(r"<([A-Za-z_][A-Za-z0-9_]*)>")
        self._number = regex.compile(r"[1-9]\d*")
        self._numbers: dict[str, int] = {}  # of the groups that have names
        self._count = 0
        self._closed: set[int] = set()
        self._has_names = regex.search(r"\(\?<(?![=!])", pattern) is not None
        self._in_class = False
        self._groups: list[tuple[bool, int]] = []  # of each open group: whether it looks behind, its number or 0

    def text(self) -> str:
        """The whole translation. Raises ValueError for what JavaScript does not know, with what to write instead."""
        out, at = [], 0
        while at < len(self._pattern):
            token, used = self._token(at)
            out.append(token)
            at += used
        return "".join(out)

    def _token(self, at: int) -> tuple[str, int]:
        char, rest = self._pattern[at], self._pattern[at + 1 :]
        if not self._in_class and (place := self._place.match(self._pattern, at)):
            self._check_not_repeated(place[0], self._pattern[place.end() :])
        if char == "\\":
            return self._escape(rest)
        if self._in_class:
            self._in_class = char != "]"
            return "\\[" if char == "[" else char, 1
        if char == "[":
            return self._open_class(rest)
        if char == "(":
            return self._open_group(rest)
        if char == ")":
            return self._close_group(rest)
        if quantifier := self._quantifier.match(self._pattern, at):
            return self._repeat(quantifier[0], rest[len(quantifier[0]) - 1 :])
        return {"$": r"\Z", ".": r"[^\n\r\u2028\u2029]", "{": "\\{"}.get(char, char), 1

    def _open_class(self, rest: str) -> tuple[str, int]:
        if rest.startswith("^]"):
            return r"[\s\S]", 3  # JavaScript's empty class, turned around: any character
        if rest.startswith("]"):
            return "(?!)", 2  # JavaScript's empty class: no character at all
        self._in_class = True
        return ("[^", 2) if rest.startswith("^") else ("[", 1)

    def _open_group(self, rest: str) -> tuple[str, int]:
        behind = rest.startswith(("?<=", "?<!"))
        captures = not rest.startswith("?") or (rest.startswith("?<") and not behind)
        self._count += captures
        self._groups.append((behind, self._count if captures else 0))
        if not rest.startswith("?"):
            return "(", 1
        if self._modifier.match(rest) and not rest.startswith("?:"):
            raise ValueError(
                f"{_clip('(' + rest)} sets flags inside the pattern, which promptfoo's JavaScript does not know; "
                "write both cases out ([Hh]ello), or use icontains"
            )
        if not rest.startswith(_GROUP_STARTS):
            raise ValueError(f"{_clip('(' + rest)} is no group in {_THEIRS}; use (?:…)")
        if captures:
            name = self._name.match(rest, 1)
            if not name:
                raise ValueError(f"{_clip('(' + rest)} has no name of ASCII letters, digits and _")
            if name[1] in self._numbers:
                raise ValueError(f"two groups have the name {name[1]!r}; rename one")
            self._numbers[name[1]] = self._count
        return "(?", 2

    def _close_group(self, rest: str) -> tuple[str, int]:
        behind, number = self._groups.pop() if self._groups else (False, 0)
        self._closed |= {number}
        if behind:
            self._check_not_repeated("a look behind", rest)
        return ")", 1

    def _check_not_repeated(self, what: str, rest: str) -> None:
        if self._quantifier.match(rest):
            raise ValueError(f"{what} matches no character, so it cannot be repeated; remove the quantifier after it")

    def _repeat(self, quantifier: str, rest: str) -> tuple[str, int]:
        if rest.startswith("+"):
            raise ValueError(
                f"{quantifier}+ is a possessive quantifier, which {_THEIRS} does not have; write {quantifier} alone"
            )
        return quantifier, len(quantifier)

    def _escape(self, rest: str) -> tuple[str, int]:
        letter = rest[:1]
        if not letter:
            raise ValueError("it ends in a lone backslash")
        if letter in "sS":
            return _space(negated=letter == "S", in_class=self._in_class), 2
        if letter == "c":
            if not (rest[1:2].isascii() and rest[1:2].isalpha()):
                raise ValueError("\\c is no control character without a letter; write \\\\c for the two characters")
            # As ECMAScript has it: the letter's code, modulo 32.
            return f"\\x{ord(rest[1]) % 32:02x}", 3
        if letter == "k" and not self._in_class and self._has_names:
            return self._named_reference(rest)
        if (digits := self._number.match(rest)) and not self._in_class:
            return self._reference(int(digits[0]), digits[0]), 1 + digits.end()
        if letter == "k":
            return "k", 2
        if letter.isascii() and letter.isalpha() and letter not in _LETTER_ESCAPES:
            raise ValueError(f"\\{letter} is no escape in {_THEIRS}; write it out")
        return "\\" + letter, 2

    def _named_reference(self, rest: str) -> tuple[str, int]:
        name = self._name.match(rest, 1)
        if not name:
            raise ValueError("\\k names no group; write \\k<name>")
        return self._reference(self._numbers.get(name[1], 0), f"k<{name[1]}>"), 1 + name.end()

    def _reference(self, number: int, written: str) -> str:
        """What the group matched; nothing where it took no part."""
        if number not in self._closed or not number:
            raise ValueError(f"\\{written} refers to no group that is closed before it; correct it")
        return f"(?({number})\\{number})"


def _space(*, negated: bool, in_class: bool) -> str:
    """White space, or all but it: as a class, or as what stands in one."""
    if in_class:
        return _NO_SPACE if negated else _SPACE
    return f"[^{_SPACE}]" if negated else f"[{_SPACE}]"


def _clip(text: str) -> str:
    return repr(text[:8])  # enough to find it
