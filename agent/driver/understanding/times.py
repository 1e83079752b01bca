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
    midnight, today = _day(0), time.localtime()
    monday = _day(-today.tm_wday)
    fixed = {
        "today": (midnight, _day(1)),
        "this morning": (midnight, midnight + 12 * _HOUR_S),
        "tonight": (midnight + 18 * _HOUR_S, _day(1)),
        "yesterday": (_day(-1), midnight),
        "day before yesterday": (_day(-2), _day(-1)),
        "last night": (midnight - 6 * _HOUR_S, midnight + 6 * _HOUR_S),
        "this week": (monday, _day(1)),
        "last week": (_day(-today.tm_wday - 7), monday),
        "this month": (_month(0), _day(1)),
        "last month": (_month(-1), _month(0)),
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
        back = (today.tm_wday - _WEEKDAYS.index(weekday)) % 7 or 7
        return _day(-back), _day(1 - back)
    return None


def _day(offset: int) -> float:
    """The midnight so many days from today's, whatever the length of the days between."""
    today = time.localtime()
    return time.mktime((today.tm_year, today.tm_mon, today.tm_mday + offset, 0, 0, 0, 0, 0, -1))


def _month(offset: int) -> float:
    """The midnight with which a month begins, so many months from this one."""
    today = time.localtime()
    return time.mktime((today.tm_year, today.tm_mon + offset, 1, 0, 0, 0, 0, 0, -1))
