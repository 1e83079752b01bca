"""The last answer in another form: shares in percent, spans and sizes in other units, its first sentence, a table.

What is computed here is computed from the answer's own words, which code wrote: `57 of 60`, `3 min 05 s`, `812 MiB`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.agent.driver.turn_deps import TurnDeps

_SHARE = re.compile(r"(?<![\w.,])(\d[\d,]*) of (\d[\d,]*)(?![\d.,]*\d)")
_SPAN = re.compile(r"(?<![\w.,])(?:(\d+) h (\d\d) min|(\d+) min (\d\d) s|(\d+(?:\.\d+)?) s)(?!\w)")
_SIZE = re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?) (TiB|GiB|MiB|KiB)")
_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_MOST = 8
"""Figures of an answer: more are a table's."""
_NOTHING = "I have said nothing yet in this conversation."


def restated(deps: TurnDeps, form: str) -> str:
    """The last answer once more, or its shares in `percent`, spans and sizes in `units`, `shorter`, as a `table`."""
    text = deps.last_answer
    if not text:
        return _NOTHING
    if form == "table":
        if deps.page is None:
            return "The last answer has no table; “compare r1 and r2” or “show me the results” have one."
        deps.show(deps.page())
        return "That is all of it as a table."
    deps.last_answer = deps.last_answer if form else ""
    return in_form(text, form)


def in_form(text: str, form: str) -> str:
    """A text once more, or its shares, its spans and sizes, or its first sentence."""
    if form == "shorter":
        return _first_sentence(text)
    if form in ("percent", "units"):
        figures = list(dict.fromkeys(_percent(text) if form == "percent" else _units(text)))
        what = "no share of a whole" if form == "percent" else "no span of time and no size"
        return "; ".join(figures[:_MOST]) + "." if figures else f"The last answer holds {what}: {_first_sentence(text)}"
    return f"Once more: {text}"


def _first_sentence(text: str) -> str:
    first = text.splitlines()[0]
    end = re.search(r"[.;](?=\s)", first)
    return f"{first[: end.start()]}." if end else first


def _percent(text: str) -> Iterator[str]:
    for one in _SHARE.finditer(text):
        part, whole = (int(number.replace(",", "")) for number in one.groups())
        if whole:
            yield f"{one.group()} is {100 * part / whole:.1f} %"


def _units(text: str) -> Iterator[str]:
    for one in _SPAN.finditer(text):
        hours, minutes, whole_minutes, rest, alone = (float(number or 0) for number in one.groups())
        seconds = hours * 3600 + minutes * 60 + whole_minutes * 60 + rest + alone
        yield f"{one.group()} is {seconds / 3600:.2f} h, {seconds / 60:.1f} min or {seconds:,.0f} s"
    for one in _SIZE.finditer(text):
        bytes_ = float(one.group(1)) * _BYTES[one.group(2)]
        yield f"{one.group()} is {bytes_ / 1e9:.2f} GB, {bytes_ / _BYTES['GiB']:.2f} GiB or {bytes_ / 1e6:,.0f} MB"
