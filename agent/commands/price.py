"""What is agreed to: a step's price in a title and three lines with its reservations, all of it for `why`, a plan's.

Names in it are other people's: each entry is one line without a frame, and goes on under its own value alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from tunesmith.agent.commands import theme
from tunesmith.agent.commands.layout import Cell, Labelled, Prose, Rows
from tunesmith.tools.core.format import between, duration, one_line, size
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.models.fitting import lack_sentences

if TYPE_CHECKING:
    from tunesmith.tools.pipeline.forecast import Forecast

_FRAME = re.compile("[\u2500-\u257f]")
_BASIS_CHARACTERS = 44
"""Half of a terminal's line: it stands behind the time."""
_BASES = 3
"""What the times of a plan rest on, at most; the first steps say most of it."""
_TITLE_HANG = 4
"""Behind the name of a step or plan, so that its further lines are seen to be one."""
Entry = tuple[str, Text]


def price_lines(plan: Plan, step: str, *, resumed: bool = False, with_hash: bool = False) -> RenderableType:
    """A step's price in short: time, memory, disk with what is replaced, and every reservation.

    `with_hash` is for whom nobody asks at a terminal: it is what `--approve` takes.
    """
    price = plan.estimate
    memory = Text("RAM ") + _need(price.peak_ram_bytes, plan.free_ram_bytes)
    if price.peak_vram_bytes or plan.free_vram_bytes:
        memory = Text("VRAM ") + _vram(plan) + Text(", ") + memory
    disk = _need(price.disk_bytes, plan.free_disk_bytes) + Text("; replaces ") + _replaced(plan)
    time = _time(price) + Text(f" ({_short_basis(price.basis)})")
    entries: list[Entry] = [*_place(plan), ("time", time), ("memory", memory), ("disk", disk)]
    entries += [("note", _line(note)) for note in plan.notes]
    entries += [("plan", _line(plan.hash[:12]))] if with_hash else []
    return Group(_title(plan, step, resumed=resumed), Labelled(entries))


def in_a_sentence(plan: Plan) -> str:
    """A price once more, in one line, for who asks about it while it waits."""
    price = plan.estimate
    memory = f"RAM {_need(price.peak_ram_bytes, plan.free_ram_bytes).plain}"
    if price.peak_vram_bytes or plan.free_vram_bytes:
        memory = f"VRAM {_vram(plan).plain}; {memory}"
    disk = _need(price.disk_bytes, plan.free_disk_bytes).plain
    return (
        f"{plan.stage} ({plan.summary}): {_time(price).plain}, an estimate by {_short_basis(price.basis)}; {memory}; "
        f"disk {disk}; replaces {_replaced(plan).plain}."
    )


def _vram(plan: Plan) -> Text:
    cards = plan.estimate.cards
    each = Text(f" on each of {cards} cards" if cards > 1 else "")
    return _need(plan.estimate.peak_vram_bytes, plan.free_vram_bytes) + each


def price_page(plan: Plan, step: str) -> RenderableType:
    """All that a plan says of itself, for who answers `why`."""
    price = plan.estimate
    entries: list[Entry] = [*_place(plan), *(("step", _line(f"{n}. {text}")) for n, text in enumerate(plan.steps, 1))]
    entries.append(("time", _time(price) + Text(" (") + _line(price.basis) + Text(")")))
    entries.append(("RAM", _need(price.peak_ram_bytes, plan.free_ram_bytes) + Text(", swap included")))
    if price.peak_vram_bytes or plan.free_vram_bytes:
        entries.append(("VRAM", _vram(plan)))
    entries.append(("disk", _need(price.disk_bytes, plan.free_disk_bytes)))
    entries += [("writes", _line(name)) for name in plan.writes]
    entries += [("replaces", _line(name)) for name in plan.replaces]
    entries += [("chosen", _line(f"{name}: {why}")) for name, why in plan.reasons.items()]
    entries += [("note", _line(note)) for note in plan.notes]
    entries.append(("plan", _line(plan.hash[:12])))
    return Group(_title(plan, step), Labelled(entries))


def forecast_table(name: str, steps: Sequence[Forecast], reasons: Sequence[str] = ()) -> RenderableType:
    """What a whole plan will probably cost, step by step and in total; nothing is agreed to by it.

    Steps have the numbers that errors give them. What steps lack comes first; `reasons` say why it has its models.
    """
    prices = [step.estimate for step in steps if step.estimate]
    on_card = any(price.peak_vram_bytes for price in prices)
    rows: list[Sequence[Cell]] = [
        [_line(f"{number} {step.stage}"), _line(step.summary), *_costs(step.estimate, on_card=on_card)]
        for number, step in enumerate(steps, 1)
    ]
    total = [
        duration(sum(price.seconds for price in prices)),
        *([size(max(price.peak_vram_bytes for price in prices))] if on_card else []),
        size(max((price.peak_ram_bytes for price in prices), default=0)),
        size(sum(price.disk_bytes for price in prices)),
    ]
    bases = list(dict.fromkeys(_short_basis(price.basis) for price in prices))[:_BASES]
    rows.append([Text("total", style="bold"), "", *(Text(cell, style=theme.PRICE) for cell in total)])
    memory = ["VRAM", "RAM"] if on_card else ["RAM"]
    columns = ["step", "what", "time", *memory, "disk"]
    return Group(
        Prose(Text("plan ") + _line(name), hang=_TITLE_HANG, fold=True),
        *(Prose(line, hang=_TITLE_HANG, fold=True) for line in _lacking(steps)),
        Rows(columns, rows, ("disk", *reversed(memory)), frozenset(range(2, len(columns)))),
        *([Prose(Text(f"Times by {'; '.join(bases)}.", style=theme.LABEL))] if bases else []),
        *(Prose(_line(where), hang=_TITLE_HANG, fold=True) for where in _places(steps)),
        *(Prose(_line(reason), hang=_TITLE_HANG, fold=True) for reason in reasons),
        Prose(Text("Each step is priced again, and asked about, when its turn comes.", style=theme.LABEL)),
    )


def _lacking(steps: Sequence[Forecast]) -> Iterator[Text]:
    """What does not fit, and what would do: a line for each kind of memory, the disk, and each other reason."""
    numbered = [(str(number), step) for number, step in enumerate(steps, 1)]
    never = [(number, lack, step.fitting) for number, step in numbered for lack in step.lacks]
    now = [(number, held, step.fitting) for number, step in numbered for held in step.held]
    for when, lacking in (("does not fit", never), ("would not fit now", now)):
        for why in lack_sentences(lacking, "step"):
            yield Text(f"{when}: ", style=theme.BAD) + _line(why)


def _places(steps: Sequence[Forecast]) -> list[str]:
    """Which steps of a plan are carried out on another machine, and which stay; none where all do."""
    places = dict.fromkeys(step.on for step in steps)
    if not any(places):
        return []
    stages = {place: ", ".join(dict.fromkeys(s.stage for s in steps if s.on == place)) for place in places}
    return [f"{f'on {place}' if place else 'here'}: {stages[place]}" for place in sorted(places, reverse=True)]


def _costs(price: Estimate | None, *, on_card: bool) -> list[str]:
    """Time, VRAM for a plan of a card, RAM and disk."""
    if price is None:
        return ["when due", *["–"] * (3 if on_card else 2)]
    each = f"{price.cards} × " if price.cards > 1 else ""
    vram = [f"{each}{size(price.peak_vram_bytes)}" if price.peak_vram_bytes else "–"] if on_card else []
    ram = size(price.peak_ram_bytes) if price.peak_ram_bytes else "–"
    return [duration(price.seconds), *vram, ram, size(price.disk_bytes)]


def _title(plan: Plan, step: str, *, resumed: bool = False) -> Prose:
    again = " again" if resumed else ""
    named = ", ".join(filter(None, (step, plan.run)))  # a question leaves no step
    line = _line(f"{plan.stage}{f' ({named})' if named else ''}{again}: {plan.summary}")
    line.stylize("bold")
    return Prose(line, hang=_TITLE_HANG, fold=True)


def _place(plan: Plan) -> list[Entry]:
    """Where it is carried out, if not here."""
    return [("on", _line(plan.on))] if plan.on else []


def _time(price: Estimate) -> Text:
    """The price, and the range in which four of five such steps end."""
    time = Text("about ") + Text(duration(price.seconds), style=theme.PRICE)
    if price.most_seconds < price.least_seconds + 1:
        return time
    return time + Text(f", {between(price.least_seconds, price.most_seconds)}")


def _short_basis(basis: str) -> str:
    """What a time rests on, in a few words."""
    words = _line(basis).plain.removesuffix(" on this machine")
    first = words.partition(";")[0].partition(" until ")[0]
    return first if len(first) <= _BASIS_CHARACTERS else f"{first[: _BASIS_CHARACTERS - 1].rstrip()}…"


def _replaced(plan: Plan) -> Text:
    return _line(", ".join(plan.replaces)) if plan.replaces else Text("nothing")


def _line(entry: str) -> Text:
    """An entry on one line and without a frame: a model's name must not look like a row."""
    return Text(_FRAME.sub("·", one_line(entry)))


def _need(needed: int, free: int) -> Text:
    return Text(f"{size(needed)} needed, {size(free)} free", style=theme.BAD if needed > free else theme.PRICE)
