"""How numbers and strange text are written, on a terminal and in a report: pure functions.

Text here comes from models and data sets: escaping HTML is the template's job, showing what hides is this one's.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence

MOST_CHARACTERS = 4000
"""Of a cell, a report's line, or an error: what a stranger's bytes may fill of a page; nobody reads further there."""

# C0 and C1 controls (not tab and newline), direction overrides, invisible operators, line separators, surrogates,
# tag characters: text that a reader cannot see must not be able to change what the reader sees.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\uffff"
    "\U000e0000-\U000e007f]"
)


_SPELLED = re.compile("⟨U\\+([0-9A-F]{4,6})⟩")


def visible(value: object) -> str:
    """`value` as text in which every character that hides or reorders others is spelled out, such as ⟨U+202E⟩."""
    return HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", str(value).replace("\r\n", "\n"))


def one_line(value: object) -> str:
    """The visible text on one line: for a title, a table's cell, or a file in which a new line says something."""
    return " ".join(visible(value).split())


def unspelled(text: str) -> str:
    """`text` with what `visible` spelled out put back: for an answer that a person edits as it was shown."""
    return _SPELLED.sub(lambda match: chr(int(match[1], 16)) if _hides(match[1]) else match[0], text)


def _hides(digits: str) -> bool:
    return int(digits, 16) <= 0x10FFFF and HIDDEN.fullmatch(chr(int(digits, 16))) is not None


def clip(value: object, most: int = MOST_CHARACTERS) -> str:
    """The visible text, cut after `most` characters with a note of how many were left out."""
    text = visible(value)
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def percent(rate: float | None) -> str:
    """A share as a whole percentage; one that is nearly all or nearly nothing is never rounded to all or nothing."""
    if rate is None:
        return "–"
    whole = round(rate * 100)
    if (whole == 100 and rate < 1) or (whole == 0 and rate > 0):
        return f"{min(99.9, max(0.1, rate * 100)):.1f} %"  # 99.96 would be 100.0 again
    return f"{whole} %"


def p_value(p: float | None) -> str:
    """A p-value as papers print it."""
    if p is None:
        return "p not computed"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as 0.4 s, 42 s, 3 min 05 s or 1 h 12 min."""
    if seconds is None:
        return "–"
    if seconds < 9.95:  # from here on one place would show it as 10.0 s
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def between(least: float, most: float) -> str:
    """A range of seconds in as few words as it is known: 16 to 28 s, 50 s to 2 min, 4 to 16 min, 1.2 to 3.5 h."""
    (low, unit), (high, of) = _coarse(least), _coarse(most)
    return f"{low} to {high} {of}" if unit == of else f"{low} {unit} to {high} {of}"


def _coarse(seconds: float) -> tuple[str, str]:
    if seconds < 89.5:  # rounded, 89.5 s would be 90 s: from there on minutes say as much
        return f"{seconds:.0f}", "s"
    return (f"{seconds / 60:.0f}", "min") if seconds < 89.5 * 60 else (f"{seconds / 3600:.1f}", "h")


def size(count_bytes: float | None) -> str:
    """Bytes in binary units: 812 MiB, 2.4 GiB."""
    if count_bytes is None:
        return "–"
    for unit, bytes_ in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count_bytes >= bytes_:
            value = count_bytes / bytes_
            return f"{value:.{0 if value >= 99.5 else 1}f} {unit}"  # would be shown as 100.0: three digits say enough
    return f"{count_bytes:.0f} B"


def ratio(measured: float | None, estimated: float | None) -> str:
    """Measured over estimated as 0.8×; empty where there is nothing to divide."""
    if measured is None or not estimated:
        return ""
    share = measured / estimated
    # two digits that count, whichever size it has
    return f"{share:.{2 if share < 0.095 else 1 if share < 9.95 else 0}f}×"


def moment(at: float | None) -> str:
    """A point in time to the minute, in UTC so that the same store gives the same report everywhere."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def short(digest: str) -> str:
    """The first twelve digits of a sha256."""
    return digest[:12]


def brief(text: str) -> str:
    """A text in which every long hexadecimal digest is cut to its first seven digits."""
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]{25,}\b", r"\1", text)


def plain(value: object) -> str:
    """A value from JSON as a reader would write it; the rest stays JSON."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return visible(json.dumps(value, ensure_ascii=False, sort_keys=True))


def count(number: int, noun: str, nouns: str = "") -> str:
    """A number with its noun: 1 case, 3 cases."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:  # more names than six are no sentence
    """Names joined for a sentence; those beyond `most` are counted."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def as_number(value: object) -> float | None:
    """A number, or a text that is one; None for anything else, yes and no included."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except ValueError:  # no number: shown as the text that it is
        return None
