"""The one way in which the facts of a query are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from io import StringIO
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.commands.layout import prose
from tunesmith.tools.core.format import count, duration, listed, one_line, p_value, percent, size

if TYPE_CHECKING:
    from tunesmith.agent.queries.facts import Fact, Result

MOST_ROWS = 12
"""An answer stays on a screen; its page has all rows."""
FEW_TEXTS = 3
"""Rows or cases with what they ask and answer: some four lines each."""
_IDS = ("case", "row")
_LONGEST = 300
"""Characters of a text in a fact: two lines of a terminal or three."""
_NAMES = {"seconds": "took", "bytes": "size", "p_value": "p", "fits": "verdict", "fits_now": "free now"}
_FITS = {True: "it fits", False: "too large"}
_WORDS = {"rss": "RAM", "ram": "RAM", "vram": "VRAM", "gpu": "GPU", "gpus": "GPUs", "cpu": "CPU"}
_ASIDE = frozenset(
    ("cases_of_people", "right", "right_of_base", "learned_takes", "for_rows", "row_tokens", "layers", "hidden_size",
     "found_by", "free_swap_bytes")
)  # fmt: skip
"""Facts that the page has and the first screen does not: what the tools' sentence says too, and what few ask for."""
_UNKNOWN: tuple[object, ...] = (None, "", (), [], {})
"""Values that say nothing; 0 and False say something."""
_NO_COUNT = ("seed", "port", "pid", "place", "at_step")
"""Ends of names whose whole numbers are names or places."""


def shown(name: str, value: object) -> str:
    """A value as people read it, by the unit in its name."""
    value = moment(name, value)
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return _FITS[value] if name == "fits" else "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(name, value)
    if isinstance(value, Mapping):
        known = {str(key): inner for key, inner in value.items() if inner not in _UNKNOWN}
        return ", ".join(f"{_key(one_line(key))}: {shown(key, inner)}" for key, inner in known.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return listed([shown(name, one) for one in value], MOST_ROWS) or "none"
    text = one_line(value).replace("T", " ", 1) if name.endswith("_at") else one_line(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()}…"


def moment(name: str, value: object) -> object:
    """A Unix time as ISO 8601 by this machine's clock, within a mapping too; another value as it is."""
    if isinstance(value, Mapping):
        return {key: moment(str(key), inner) for key, inner in value.items()}
    if name.endswith("_at") and isinstance(value, int | float):
        return datetime.fromtimestamp(value).isoformat(timespec="minutes")
    return value


def _number(name: str, value: float) -> str:
    if name.endswith("seconds"):
        return duration(value)
    if name.endswith("bytes"):
        return size(value)
    if name.endswith("share"):
        return percent(value)
    if name == "p_value":
        return p_value(value).removeprefix("p ").removeprefix("= ")
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if name.endswith(_NO_COUNT) else f"{value:,}" if value else "none"


def _key(name: str) -> str:
    """A name within a value: only one with a unit is ours, another may be a label."""
    return title(name) if name.endswith(("_seconds", "_bytes", "_share", "_at")) else name


def title(name: str) -> str:
    """A fact's name in words, without its unit."""
    bare = name
    for unit in ("_seconds", "_bytes", "_at"):
        bare = bare.removesuffix(unit)
    words = _NAMES.get(bare, bare).replace("_", " ").split()
    return " ".join(_WORDS.get(one, one) for one in words)


def line(fact: Fact) -> str:
    """A fact in one line: its names and values, without those that are not known."""
    known = {name: value for name, value in fact.items() if value not in _UNKNOWN}
    return " · ".join(f"{title(name)} {shown(name, value)}" for name, value in known.items())


def table(facts: Sequence[Fact]) -> RenderableType:
    """Facts as a table, a row each. What a fact does not have is blank; a column that none fills is left out."""
    filled = {name for fact in facts for name, value in fact.items() if value not in _UNKNOWN}
    names = [name for name in dict.fromkeys(name for fact in facts for name in fact) if name in filled]
    rows = [[_cell(name, fact.get(name)) for name in names] for fact in facts]
    return render.rows_table([title(name) for name in names], rows, exact=True)


def _cell(name: str, value: object) -> str:
    return "" if value in _UNKNOWN else shown(name, value)


def view(result: Result, *, whole: bool = False) -> RenderableType:
    """A result on the screen: what it is of, what the tools say, the facts, the texts, and what is left out.

    A single fact stands first. Facts with other names stand in a table of their own; a row or case whose texts are
    shown, among its texts alone.
    """
    told = {text.get(name) for text in result.texts for name in _IDS} - {None}
    facts = [_read(one, whole) for one in result.facts if told.isdisjoint(one.get(name) for name in _IDS)]
    alone = facts if len(facts) == 1 and not result.texts else []
    of = {name: value for name, value in _read(result.of, whole).items() if (name, value) not in _items(alone)}
    parts: list[RenderableType] = [prose(one) for one in (*_lines(*alone), *_lines(of), *result.says)]
    most = 0 if whole else max(result.most, MOST_ROWS)
    of_texts = 0 if whole else result.most or FEW_TEXTS
    for _, alike in groupby([] if alone else facts[: most or None], key=tuple):
        group = list(alike)
        parts += [prose(one) for one in _lines(*group)] if len(group) == 1 else [table(_without(group, of))]
    for text in result.texts[: of_texts or None]:
        parts += _of_texts(text)
    more = 0 if whole else max(0, len(facts) - most) + max(0, len(result.texts) - of_texts)
    parts += map(prose, result.notes)
    if more:
        parts.append(prose(f"{more:,} more: “show all” lists them."))
    if result.left_out:
        parts.append(prose(f"Not shown: {listed([_left_out(name, n) for name, n in result.left_out.items()])}."))
    for one in result.proposals:
        fields = " ".join(f"{name}={shown(name, value)}" for name, value in one.fields.items())
        parts.append(prose(f"Could follow: {' '.join(word for word in (one.stage, fields) if word)} of {one.run}"))
    return Group(*parts)


def _read(fact: Fact, whole: bool) -> Fact:
    """A fact as people read it: `59 of 60` is one value, and the first screen has what many ask for."""
    out_of = next((fact[name] for name in ("judged", "out_of") if isinstance(fact.get(name), int)), None)
    read = dict[str, object]()
    for name, value in fact.items():
        if not (name in _ASIDE and not whole) and not (out_of is not None and name in ("judged", "out_of")):
            counted = out_of is not None and name.endswith("passed") and isinstance(value, int)
            read[name] = f"{value} of {out_of}" if counted else value
    return read


def _items(facts: Sequence[Fact]) -> list[tuple[str, object]]:
    return [item for fact in facts for item in fact.items()]


def _lines(*facts: Fact) -> list[str]:
    """Facts in lines: the plain values of each in one, every value that has parts in one of its own."""
    lines = list[str]()
    for fact in facts:
        parted = {name: value for name, value in fact.items() if isinstance(value, Mapping)}
        plain = {name: value for name, value in fact.items() if name not in parted}
        lines += [line(plain), *(line({name: value}) for name, value in parted.items())]
    return [one for one in lines if one]


def _without(facts: Sequence[Fact], of: Fact) -> Sequence[Fact]:
    """Facts without what the line above them says of them all."""
    said = {name for name, value in of.items() if all(fact.get(name) == value for fact in facts)}
    return [{name: value for name, value in fact.items() if name not in said} for fact in facts]


def shown_rows(result: Result) -> Sequence[Fact]:
    """The texts of a result that the screen shows, else its facts."""
    return result.texts[: result.most or FEW_TEXTS] or result.facts[: max(result.most, MOST_ROWS)]


def whole_page(result: Result) -> Callable[[], RenderableType]:
    """The page behind a result: its own, else all of its facts and texts."""
    return result.page or (lambda: view(result, whole=True))


def text_of(result: Result, width: int = 118) -> tuple[str, ...]:
    """A result as lines of text, as a terminal of such a width shows it."""
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(view(result))
    return tuple(line.rstrip() for line in captured.get().splitlines())


def _of_texts(texts: Fact) -> list[RenderableType]:
    """One row or case: its short values in a line, every longer text in a line of its own."""
    short = {name: value for name, value in texts.items() if len(shown(name, value)) <= 40}
    long = {name: value for name, value in texts.items() if name not in short}
    return [
        *([prose(line(short))] if short else []),
        *(prose(f"  {title(name)}: {shown(name, value)}", hang=4) for name, value in long.items()),
    ]


def _left_out(name: str, number: int) -> str:
    return count(number, name.removesuffix("s"), name)
