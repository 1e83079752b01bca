"""Numbers and spans of time as people write them: `2k`, `zwei Epochen`, `1e-4`, `last week`, `am Montag`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from pydantic.fields import FieldInfo

from tunesmith.agent.words.lexicon import Word, as_typed, lexicon, words_in, words_of

_DIGITS = re.compile(
    r"(?<![\w.])(?P<sign>(?:(?<=[\s=:(])|^)[-−])?(?P<digits>\d[\d,]*(?:\.\d+)?|\.\d+)(?P<power>e[-−+]?\d+)?"
    r"(?P<unit>\s*%|[a-zA-Z]{1,5}(?![\w]))?",
    re.IGNORECASE,
)
_HALF = re.compile(
    r"\s+(?:and a half|einhalb|y medio|y media|et demi\w?|e mezz[oa]|e mei[oa]|en een half|en half|i pół|i pol)\b",
    re.IGNORECASE,
)
_ATTACHED = {"k": 1e3, "tsd": 1e3, "m": 1e6, "mio": 1e6}
"""As they stand behind digits: 3k, 5 tsd, 7b is a model's size and no number."""
_HALF_ENDINGS = ("einhalb", "enhalve", "enhalf")
"""What makes a number a half more than the word before it in the same word: `zweieinhalb`, `tweeënhalf`."""
_MULTIPLIERS = (100.0, 1000.0)
"""Words that multiply what stands before them: three hundred, zwei tausend."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text: its value, its unit, and where it stands."""

    value: float
    start: int
    end: int
    unit: str = ""
    """%, bit, gib, params, million, s, min, h, day, x, or empty."""
    weak: bool = False
    """Whether its word may be an article: `one`, `ein`, `un`."""


def numbers_in(text: str) -> list[Number]:
    """Every number of a text, in order. Ids such as r3 and names such as W4A16 hold none."""
    found = [*_in_digits(text), *_in_words(text)]
    numbers = (_with_unit(_below_zero(number, text), text) for number in found)
    return sorted(numbers, key=lambda number: number.start)


def _below_zero(number: Number, text: str) -> Number:
    """A number with the word before it that makes it less than zero: `minus two`."""
    before = re.search(r"(?:^|\s)(minus|negative)\s+$", text[: number.start], re.IGNORECASE)
    return replace(number, value=-number.value, start=before.start(1)) if before and number.value > 0 else number


def _in_digits(text: str) -> Iterator[Number]:
    for match in _DIGITS.finditer(text):
        digits, unit = match["digits"], (match["unit"] or "").strip().lower()
        if re.match(r"[./:-]\w", text[match.end("digits") :]) and re.match(r"[./:-]\d", text[match.end("digits") :]):
            continue  # a date, a version, an address
        if unit and unit not in _ATTACHED and unit not in _units():
            if match.end("unit") > match.end("digits") and not text[match.end("digits")].isspace():
                continue  # a name such as 3rd or 7up
            unit = ""
        plain = digits.replace(",", ".") if re.fullmatch(r"\d+,\d{1,2}", digits) else digits.replace(",", "")
        value = float(plain + (match["power"] or "").replace("−", "-")) * (-1 if match["sign"] else 1)
        end = match.end("power") if match["power"] else match.end("digits")
        if unit in _ATTACHED:
            value, end = value * _ATTACHED[unit], match.end("unit")
            unit = "million" if unit in ("m", "mio") else ""
        elif unit:
            unit, end = _units()[unit], match.end("unit")
        if half := _HALF.match(text, end):
            value, end = value + 0.5, half.end()
        yield Number(value, match.start(), end, unit)


def _in_words(text: str) -> Iterator[Number]:
    words, at = words_of(text), 0
    while at < len(words):
        after, total, last = at, 0.0, 0.0
        while after < len(words) and (value := _value_of(words[after].text)) is not None:
            apart = text[words[after - 1].end : words[after].start] if after > at else ""
            if after > at and (not re.fullmatch(_JOINED, apart) or (last and last <= value < _MULTIPLIERS[0])):
                break
            total, last = (total + (last or 1.0) * value, 0.0) if value in _MULTIPLIERS else (total, last + value)
            after += 1
            joined = words[after + 1].text if after + 1 < len(words) and words[after].text in _AND else ""
            after += bool(_value_of(joined) and (total > 0 or last >= 20)) if joined else 0  # `treinta y dos`
        if after > at:
            yield _spelt(text, words[at:after], total + last)
        at = max(after, at + 1)


def _spelt(text: str, words: Sequence[Word], value: float) -> Number:
    half = _HALF.match(text, words[-1].end)
    weak = len(words) == 1 and half is None and (value == 1 or words[0].text in words_in("numbers_or_words"))
    end = half.end() if half else words[-1].end
    return Number(value + (0.5 if half else 0.0), words[0].start, end, weak=weak)


_AND = ("and", "und", "y", "et", "e", "en", "i")
_JOINED = r"[\s-]*(?:and |und |y |et |e |en |i )?"
"""Between two words of one number."""


def _value_of(word: str) -> float | None:
    """What a number word comes to, also with a half in it: `zweieinhalb`."""
    for ending in ("", *_HALF_ENDINGS):
        whole = _number_words().get(word.removesuffix(ending)) if word.endswith(ending) else None
        if whole is not None:
            return whole + (0.5 if ending else 0.0)
    return None


@cache
def _number_words() -> Mapping[str, float]:
    return {word: float(name) for word, name in lexicon()["numbers"].single_words().items()}


@cache
def _units() -> Mapping[str, str]:
    return lexicon()["units"].single_words()


def _with_unit(number: Number, text: str) -> Number:
    """A number with the unit that stands behind it as a word of its own, `2 hours`."""
    if number.unit:
        return number
    behind = re.match(r"[\s-]{0,2}(%|[^\W\d_]+)", text[number.end :])
    if behind is None:
        return number
    word = behind[1] if behind[1] == "%" else words_of(behind[1])[0].text
    unit = "%" if word == "%" else _units().get(word, "")
    if not unit or (unit == "x" and number.weak):  # `encore une fois`
        return number
    value = number.value * 1e6 if unit == "million" else number.value
    return replace(number, value=value, unit=unit, end=number.end + behind.end(), weak=False)


def fitting(number: Number, info: FieldInfo) -> int | float:
    """A number in the type of its field: a whole one where it counts, a percentage as a share or of a hundred."""
    most = next((limit.le for limit in info.metadata if hasattr(limit, "le")), None)
    value = number.value
    a_share = most is not None and most <= 1 < value <= 100  # 20 where at most 1 may be set: a percentage
    if a_share or (number.unit == "%" and most != 100 and info.annotation is float):
        value /= 100
    return int(value) if info.annotation is int and value == int(value) else value


_NAMED, _DAY_NAMES = as_typed("spans"), as_typed("weekdays")
_FEW = {"": 1, "few": 3, "couple of": 2, "paar": 3}
_LAST_N = (
    r"(?:last|past|previous|letzten|vergangenen|últimas?|últimos?|dernières?|derniers?) "
    r"(?:(?P<count>\d+|few|couple of|paar) )?(?P<unit>hours?|days?|stunden?|tagen?|tage|horas?|días?|heures?|jours?)"
)
SPANS = (
    re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, _NAMED), key=len, reverse=True))})\b", re.IGNORECASE),
    re.compile(rf"\b{_LAST_N}\b", re.IGNORECASE),
    re.compile(rf"\b(?:(?:on|since|last|am|seit|letzten|el|le) )?(?:{'|'.join(_DAY_NAMES)})\b", re.IGNORECASE),
)
"""How spans are written; a date is found by its shape."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span in somebody's words."""

    words: str

    def window(self, now: datetime | None = None) -> tuple[datetime, datetime] | None:
        """From when and up to when, by this machine's clock; None for a day that there is not."""
        now = now or datetime.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        name = _NAMED.get(self.words, self.words)
        day, monday = timedelta(days=1), midnight - timedelta(days=now.weekday())
        month = midnight.replace(day=1)
        fixed = {
            "today": (midnight, midnight + day),
            "this morning": (midnight, midnight + day / 2),
            "yesterday": (midnight - day, midnight),
            "day before yesterday": (midnight - 2 * day, midnight - day),
            "last night": (midnight - day / 4, midnight + day / 4),  # from six in the evening to six in the morning
            "this week": (monday, monday + 7 * day),
            "last week": (monday - 7 * day, monday),
            "this month": (month, (month + 32 * day).replace(day=1)),  # a day of the next month, then its first
            "last month": ((month - day).replace(day=1), month),
        }
        if name in fixed:
            return fixed[name]
        if match := re.fullmatch(_LAST_N, name, re.IGNORECASE):
            number = match["count"] or ""
            count = int(number) if number.isdigit() else _FEW[number]
            hours = match["unit"][0].lower() in "hs"
            return now - count * (timedelta(hours=1) if hours else day), now
        if (weekday := _DAY_NAMES.get(name.split()[-1])) is not None:
            begin = midnight - timedelta(
                days=(now.weekday() - int(weekday)) % 7 or 7
            )  # a Monday's “Monday” is the last one
            return begin, (now if re.match("since|seit", name) else begin + day)
        try:
            begin = datetime.strptime(name, "%Y-%m-%d")
        except ValueError:  # no day after all: 2026-02-31
            return None
        return begin, begin + day
