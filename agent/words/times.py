"""Spans of time as people name them: `yesterday`, `letzte Woche`, `in the last 3 hours`, `on monday`, `2026-11-20`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_WEEKDAYS = (
    ("monday", "montag", "lunes", "lundi"), ("tuesday", "dienstag", "martes", "mardi"),
    ("wednesday", "mittwoch", "miércoles", "mercredi"), ("thursday", "donnerstag", "jueves", "jeudi"),
    ("friday", "freitag", "viernes", "vendredi"), ("saturday", "samstag", "sábado", "samedi"),
    ("sunday", "sonntag", "domingo", "dimanche"),
)  # fmt: skip
_FIXED = {
    "day before yesterday": ("day before yesterday", "vorgestern", "anteayer", "avant-hier"),
    "yesterday": ("yesterday", "gestern", "ayer", "hier"),
    "today": ("today", "heute", "hoy", "aujourd'hui"),
    "this morning": ("this morning", "heute morgen", "heute früh", "esta mañana", "ce matin"),
    "last night": ("last night", "overnight", "gestern nacht", "anoche", "cette nuit"),
    "this week": ("this week", "diese woche", "esta semana", "cette semaine"),
    "last week": ("last week", "letzte woche", "letzter woche", "semana pasada", "la semaine dernière"),
    "this month": ("this month", "diesen monat", "este mes", "ce mois"),
    "last month": ("last month", "letzten monat", "el mes pasado", "le mois dernier"),
}  # fmt: skip
_NAMED = {word: name for name, words in _FIXED.items() for word in words}
_DAY_NAMES = {word: number for number, words in enumerate(_WEEKDAYS) for word in words}
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
            "last night": (midnight - day / 4, midnight + day / 4),
            "this week": (monday, monday + 7 * day),
            "last week": (monday - 7 * day, monday),
            "this month": (month, (month + 32 * day).replace(day=1)),
            "last month": ((month - day).replace(day=1), month),
        }
        if name in fixed:
            return fixed[name]
        if match := re.fullmatch(_LAST_N, name, re.IGNORECASE):
            said = match["count"] or ""
            count = int(said) if said.isdigit() else _FEW[said]
            hours = match["unit"][0].lower() in "hs"
            return now - count * (timedelta(hours=1) if hours else day), now
        if (weekday := _DAY_NAMES.get(name.split()[-1])) is not None:
            begin = midnight - timedelta(days=(now.weekday() - weekday) % 7 or 7)
            return begin, (now if re.match("since|seit", name) else begin + day)
        try:
            begin = datetime.strptime(name, "%Y-%m-%d")
        except ValueError:
            return None
        return begin, begin + day
