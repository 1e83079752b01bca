"""Whether what stands on a screen holds a fact that the store holds: computed at run time, in any unit and rounding."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.tools.machine.measure import measure_machine

NOWHERE = (
    r"\{\s*\"?(?:tool|name|arguments|act|kind)\"?\s*:",
    r"</?tool_call",
    r"Traceback \(most",
    r"unexpected \w*Error",
    r"taken 0\.0 s",
    r"\bNone\b(?! of)(?! gained)(?! was)(?! of its)",
    r"pydantic",
)
"""What no answer may hold."""
_TIMES = re.compile(r"(?:(\d+) h)? ?(?:(\d+) min)? ?(?:(\d+(?:\.\d+)?) s)?\b")
_SIZES = re.compile(r"(\d+(?:\.\d+)?) (KiB|MiB|GiB)")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Facts:
    """The store of one home, and what questions call its runs."""

    home: Path
    names: Mapping[str, str]

    @classmethod
    def of(cls, home: Path) -> Facts:
        """`first`, `last`: the oldest and the newest run that evaluated something; `case_lost`: a case that fails."""
        store = cls(home, {})
        runs = store.rows(
            "SELECT r.run, r.name FROM runs r WHERE r.run IN (SELECT run FROM eval_results WHERE arm = 'adapter')"
            " ORDER BY r.created_at"
        )
        (first, name), (last, name_last) = runs[0], runs[-1]
        lost = store.rows(
            "SELECT case_id FROM eval_results WHERE run = '" + first + "' AND arm = 'quantized' AND passed = 0"
            " AND output <> '' AND block = 'target' ORDER BY case_id LIMIT 1"
        )
        names = {"first": first, "last": last, "name_first": name, "name_last": name_last, "case_lost": lost[0][0]}
        return cls(home, names)

    def said(self, text: str) -> str:
        """A sentence, a pattern or a query with the runs of this home put in."""
        for name, value in self.names.items():
            text = text.replace(f"<{name}>", value)
        return text

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer of the store."""
        with sqlite3.connect(f"file:{self.home}/tunesmith.db?mode=ro", uri=True) as db:
            return db.execute(self.said(sql)).fetchall()

    def shown(self, fact: str | Mapping[str, Any], text: str) -> bool:
        """Whether a text holds a fact: a pattern, `{machine: …}`, `{sql: …, as: …}` or one of `_SHORT`.

        Every row of the store's answer is wanted.
        """
        if isinstance(fact, str):
            return re.search(self.said(fact), text, re.IGNORECASE | re.DOTALL) is not None
        if "machine" in fact:
            return self._of_machine(fact["machine"], text)
        fact = _written_out(fact)
        wanted = [value for row in self.rows(fact["sql"]) for value in row]
        if not wanted or any(value is None for value in wanted):
            raise LookupError(f"the store holds nothing for {fact['sql']}")
        kept = wanted[: fact.get("most", len(wanted))]
        return all(_held(value, fact["as"], text) for value in kept)

    def _of_machine(self, what: str, text: str) -> bool:
        machine = measure_machine(self.home)
        if what == "gpus":
            return bool(machine.gpus) != bool(re.search(r"GPUs none", text))
        if what == "cores":
            return f"cores {machine.cores} " in text
        total = {"ram": machine.ram_total_bytes, "disk": machine.disk_free_bytes}[what]
        return _near(total, [size for size, _ in _sizes(text)], 0.2 if what == "disk" else 0.01)


_STEP = "FROM steps WHERE run = '{of}' AND stage = '{it}' AND status = 'done' ORDER BY rowid DESC LIMIT 1"
_SHORT: Mapping[str, tuple[str, str]] = {
    "took": (f"SELECT seconds {_STEP}", "duration"),
    "estimated": (f"SELECT estimated_seconds {_STEP}", "duration"),
    "peak": (f"SELECT peak_rss_bytes {_STEP}", "bytes"),
    "asked": (f"SELECT json_extract(request, '$.{{field}}') {_STEP}", "number"),
    "result": (f"SELECT json_extract(result, '$.{{field}}') {_STEP}", "number"),
    "size": ("SELECT bytes FROM artifacts WHERE run = '{of}' AND kind = '{it}' ORDER BY rowid DESC LIMIT 1", "bytes"),
    "rows": ("SELECT count(*) FROM rows WHERE run = '{of}' AND {it}", "count"),
    "passed": (
        "SELECT sum(passed) || ' of ' || count(passed) FROM eval_results WHERE run = '{of}' AND arm = '{it}' AND block"
        " = '{block}' AND step = (SELECT step FROM eval_results WHERE run = '{of}' AND arm = '{it}' ORDER BY"
        " CAST(substr(step, 2) AS INTEGER) DESC LIMIT 1)",
        "passed",
    ),
}
"""Facts that many questions are about, each with the SQL for it; `of` is the run, the newest where none is said."""


def _written_out(fact: Mapping[str, Any]) -> Mapping[str, Any]:
    name = next((name for name in _SHORT if name in fact), "")
    if not name:
        return fact
    sql, form = _SHORT[name]
    given = {"of": "<last>", **fact, "it": fact[name]}
    return {"sql": sql.format(**given), "as": fact.get("as", form)}


def _held(value: Any, form: str, text: str) -> bool:
    if form == "duration":
        return _near(float(value), _durations(text), 0.01, least=1.01)
    if form == "bytes":
        return any(abs(size - float(value)) <= max(0.02 * float(value), grain) for size, grain in _sizes(text))
    if form == "count":
        return any(re.search(rf"(?<![\d.,]){re.escape(one)}(?![\d,]*\d)", text) for one in (f"{value}", f"{value:,}"))
    if form == "number":
        return _near(float(value), [float(one) for one in _NUMBERS.findall(text.replace(",", ""))], 0.01)
    if form == "words":
        return _words(str(value))[:6] == _after(_words(str(value))[:6], _words(text))
    if form == "passed":
        passed, judged = str(value).split(" of ")
        either = rf"\b{passed}(?: of |\W+(?:judged )?){judged}\b|\bjudged {judged}\b[^\n]*\bpassed {passed}\b"
        return re.search(either, text) is not None
    if form == "text":
        return " ".join(str(value).split()) in " ".join(text.split())
    raise ValueError(form)


def _near(wanted: float, found: Sequence[float], share: float, least: float = 0.0) -> bool:
    return any(abs(one - wanted) <= max(share * abs(wanted), least) for one in found)


def _durations(text: str) -> list[float]:
    found = []
    for hours, minutes, seconds in _TIMES.findall(text):
        if hours or minutes or seconds:
            found.append(3600 * float(hours or 0) + 60 * float(minutes or 0) + float(seconds or 0))
    return found


def _sizes(text: str) -> list[tuple[float, float]]:
    """Each size, and half of what its last digit stands for."""
    found = [(number, number.partition(".")[2], _UNITS[unit]) for number, unit in _SIZES.findall(text)]
    return [(float(number) * unit, 0.5 * unit / 10 ** len(decimals)) for number, decimals, unit in found]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _after(wanted: list[str], among: list[str]) -> list[str]:
    """The words of a text that are those wanted, in a row; empty where they are not."""
    width = len(wanted)
    return next((among[at : at + width] for at in range(len(among)) if among[at : at + width] == wanted), [])
