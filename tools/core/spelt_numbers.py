"""Numbers that a text has as words, in eight languages: `twelve`, `zweiundvierzig`, `treinta y cinco`.

Neither `one` nor a hundred or a thousand alone is read, which seldom count anything; of French nor are 80 and 90.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tunesmith.tools.core.yaml_file import read_own

_VALUES = (*range(2, 21), *range(30, 100, 10), 100, 1000)
_ONES = ("one", "ein", "uno", "un", "um", "una", "une", "uma", "een", "jeden")
_MANY = (100, 1000)
_WORD = re.compile(r"[^\W\d_]+")
_AND = ("and", "und", "y", "et", "e", "en", "i")
_JOINT = re.compile(rf"[\s-](?:(?:{'|'.join(_AND)})[\s-])?", re.IGNORECASE)
_HALF = re.compile(r"\s(?:and a half|einhalb|y medi[oa]|et demie?|e mezz[oa]|e mei[oa]|en een half|i pół)\b")


def spelt_numbers(text: str) -> Iterator[tuple[int, int, float]]:
    """Where each number that is spelt begins and ends, and its value."""
    begun, end, total, last = 0, 0, 0.0, 0.0
    for word in (*(one for one in _WORD.finditer(text) if one[0].lower() not in _AND), None):
        value = _value(word[0], behind_ten=last >= 20) if word else 0
        joined = end and word and _JOINT.fullmatch(text, end, word.start())
        fits = value in _MANY or not last or (last >= 20 and last % 10 == 0 and value < last)
        if end and not (value and joined and fits):
            if total + last not in _MANY:
                half = _HALF.match(text, end)
                yield begun, half.end() if half else end, total + last + (0.5 if half else 0.0)
            end, total, last = 0, 0.0, 0.0
        if not value or word is None:
            continue
        begun, end = begun if end else word.start(), word.end()
        if value in _MANY:
            total, last = total + (last or 1.0) * value, 0.0
        else:
            last += value


def plain(word: str) -> str:
    """A word in small letters without accents."""
    letters = unicodedata.normalize("NFD", word.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


@cache
def tables() -> Mapping[str, Any]:
    """The words of numbers and units."""
    return read_own(files("tunesmith.prompts") / "quantities.yaml")  # type: ignore[no-any-return]  # ours, of tables


def _value(word: str, *, behind_ten: bool) -> int:
    known = plain(word)
    return 1 if behind_ten and known in _ONES else _numbers().get(known, 0)


@cache
def _numbers() -> Mapping[str, int]:
    """Each word, and what a language writes as one: `dreiundzwanzig`, `veinticinco`, `ventuno`, `zweihundert`."""
    alone: dict[str, int] = {}
    made: dict[str, int] = {}
    for words in tables()["numbers"]:
        own = {word: value for word, value in zip(words.split(), _VALUES, strict=True) if word != "-"}
        alone |= own
        ones = {word: value for word, value in own.items() if value < 10} | dict.fromkeys(_ONES, 1)
        for one, unit in ones.items():
            made |= {f"{one}{many}": unit * value for many, value in own.items() if value in _MANY}
            for ten, value in own.items():
                joined = (f"{one}und{ten}", f"{one}en{ten}", f"{ten}{one}", f"{ten[:-1]}{one}", f"{ten[:-1]}i{one}")
                made |= dict.fromkeys(joined, value + unit) if 20 <= value < 100 else {}
    return made | alone
