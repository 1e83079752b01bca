"""Spans of time as people name them: `yesterday`, `last week`, `in the last 3 hours`, `on monday`, `2026-11-20`."""

from __future__ import annotations

import re
import time

_DAY_S, _HOUR_S = 86400.0, 3600.0
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SPAN = re.compile(
    r"\b(?:day before yesterday|yesterday|today|this morning|tonight|last night|(?:last|this) (?:week|month)|"
    r"(?:last|past|previous) (?:(?:\d+|few|couple of) )?(?:hours?|days?)|\d{4}-\d\d-\d\d|"
    rf"(?:on |last )(?:{'|'.join(_WEEKDAYS)}))\b"
)


def span_named(text: str) -> str:
    """The span that a readable sentence names, in its words; empty: none."""
    return match[0].removeprefix("on ") if (match := _SPAN.search(text)) else ""


def window(span: str) -> tuple[float, float] | None:
    """From and to, in seconds since the epoch by this machine's clock; None for words that name no span."""
    span, now = span.strip().lower(), time.time()
    midnight = _midnight(now)
    monday = _midnight(midnight - time.localtime(midnight).tm_wday * _DAY_S)
    first = _midnight(midnight - (time.localtime(midnight).tm_mday - 1) * _DAY_S)
    fixed = {
        "today": (midnight, midnight + _DAY_S),
        "this morning": (midnight, midnight + _DAY_S / 2),
        "tonight": (midnight + 18 * _HOUR_S, midnight + _DAY_S),
        "yesterday": (_midnight(midnight - 1), midnight),
        "day before yesterday": (_midnight(_midnight(midnight - 1) - 1), _midnight(midnight - 1)),
        "last night": (midnight - 6 * _HOUR_S, midnight + 6 * _HOUR_S),
        "this week": (monday, midnight + _DAY_S),
        "last week": (_midnight(monday - 7 * _DAY_S), monday),
        "this month": (first, midnight + _DAY_S),
        "last month": (_midnight(first - 1 - (time.localtime(first - 1).tm_mday - 1) * _DAY_S), first),
    }
    if span in fixed:
        return fixed[span]
    if match := re.fullmatch(r"(?:last|past|previous) (?:(\d+|few|couple of) )?(hour|day)s?", span):
        count = int(match[1]) if match[1] and match[1].isdigit() else 3 if match[1] else 1
        return now - count * (_HOUR_S if match[2] == "hour" else _DAY_S), now
    if re.fullmatch(r"\d{4}-\d\d-\d\d", span):
        try:
            begin = time.mktime(time.strptime(span, "%Y-%m-%d"))
        except ValueError:  # 2026-13-40
            return None
        return begin, begin + _DAY_S
    if (weekday := span.removeprefix("last ")) in _WEEKDAYS:
        back = (time.localtime(midnight).tm_wday - _WEEKDAYS.index(weekday)) % 7 or 7
        return _midnight(midnight - back * _DAY_S), _midnight(midnight - (back - 1) * _DAY_S)
    return None


def _midnight(at: float) -> float:
    """The midnight that a point in time follows; an hour is added, for days of 23 and 25 hours."""
    day = time.localtime(at + _HOUR_S)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))
