"""The one way in which the facts of a query are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO

from rich.console import Console, Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.queries.facts import Fact, Result, moment
from tunesmith.tools.core.format import count, duration, listed, one_line, p_value, percent, size

MOST_ROWS = 12
"""An answer stays on a screen; its page has all rows."""
_LONGEST = 300
"""Characters of a text in a fact: two lines of a terminal or three."""
_NAMES = {"seconds": "took", "bytes": "size", "p_value": "p"}
_WORDS = {"rss": "RAM", "ram": "RAM", "vram": "VRAM", "gpu": "GPU", "gpus": "GPUs", "cpu": "CPU"}
_UNKNOWN: tuple[object, ...] = (None, "", (), [], {})
"""Values that say nothing; 0 and False say something."""
_NO_COUNT = ("seed", "port", "pid", "place")
"""Whole numbers that are names."""


def shown(name: str, value: object) -> str:
    """A value as people read it, by the unit in its name."""
    value = moment(name, value)
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(name, value)
    if isinstance(value, Mapping):
        known = {str(key): inner for key, inner in value.items() if inner not in _UNKNOWN}
        return ", ".join(f"{_key(one_line(key))}: {shown(key, inner)}" for key, inner in known.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return listed([shown(name, one) for one in value], MOST_ROWS) or "none"
    text = one_line(value).replace("T", " ", 1) if name.endswith("_at") else one_line(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()}…"


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
    return str(value) if name in _NO_COUNT else f"{value:,}" if value else "none"


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


def table(facts: Sequence[Fact], most: int = 0) -> RenderableType:
    """Facts as a table, a row each: all, or the first `most`. A column that no fact fills is left out."""
    filled = {name for fact in facts for name, value in fact.items() if value not in _UNKNOWN}
    names = [name for name in dict.fromkeys(name for fact in facts for name in fact) if name in filled]
    rows = [[shown(name, fact.get(name)) for name in names] for fact in facts[: most or None]]
    return render.rows_table([title(name) for name in names], rows, exact=True)


def view(result: Result, *, whole: bool = False) -> RenderableType:
    """A result on the screen: what it is of, what the tools say, the facts, the texts, and what is left out."""
    parts: list[RenderableType] = [prose(one) for one in (line(result.of), *result.says) if one]
    most = 0 if whole else MOST_ROWS
    if len(result.facts) == 1:
        parts.append(prose(line(result.facts[0])))
    elif result.facts:
        parts.append(table(result.facts, most))
    for text in result.texts[: most or None]:
        parts += _of_texts(text)
    more = max(0, max(len(result.facts), len(result.texts)) - most) if most else 0
    if more:
        parts.append(prose(f"{more:,} more: “show all” lists them."))
    if result.left_out:
        parts.append(prose(f"Not shown: {listed([_left_out(name, n) for name, n in result.left_out.items()])}."))
    for one in result.proposals:
        fields = " ".join(f"{name}={shown(name, value)}" for name, value in one.fields.items())
        parts.append(prose(f"Could follow: {' '.join(word for word in (one.stage, fields) if word)} of {one.run}"))
    return Group(*parts)


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
        prose(line(short)),
        *(prose(f"  {title(name)}: {shown(name, value)}", hang=4) for name, value in long.items()),
    ]


def _left_out(name: str, number: int) -> str:
    return count(number, name.removesuffix("s"), name)
