"""Prices: how long a step will take and whether it fits, each with the reason why we think so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from tunesmith.tools.core.format import size
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.pace import Past, pace_of
from tunesmith.tools.core.rates import Rates, Seconds
from tunesmith.tools.core.stage import Estimate, Facts, Fitting

_GPU = "GPU"
_NAMED = 2
"""Steps of a run that a price names as what it rests on."""
_OR, _MORE_DISK = ", or ", "making room, or TUNESMITH_HOME on another disk"
_ROOM, _FREE = "there is room for {}", "{} free"
STORE_BYTES = (1_000 * 4_120) + (256 << 10)
"""Of disk, whatever a step writes: the log of the store, which SQLite begins anew after 1,000 pages; the first pages of
a new one, its shared memory, locks and manifests."""
_PAGE, _COLUMNS, _INDEXED = 4_096, 90, 40
"""Bytes: of a page, and what a record takes beside its text, with its columns and in the indexes."""
_INNER = 1.1
"""Pages that lead to pages, and the part of an index that stays free."""


def recorded_bytes(bytes_: int, records: int) -> int:
    """Disk that records with so much text take in the store: in its pages, and once more in its log."""
    each = bytes_ / max(1, records) + _COLUMNS
    # Records alike fill a page with whole ones; of one that is longer than a page only the rest shares one.
    within = _PAGE / (_PAGE // each) if each <= _PAGE else each + _PAGE / 4
    return round(2 * records * (within + _INDEXED) * _INNER)


def estimate(
    stage: str,
    facts: Facts,
    *,
    seconds: float | Seconds,
    rates: Rates | None = None,
    ram_bytes: int = 0,
    vram_bytes: int = 0,
    disk_bytes: int = 0,
    like: str = "",
    cards: int = 1,
) -> Estimate:
    """Price a step from what arithmetic says of its time, corrected by what finished steps took on this machine.

    What they say of it is reckoned by `pace`: those of this run weigh more than those before it, those of the same
    stage more than others. Where a stage does different kinds of work, `like` names the kind; a step that is priced in
    VRAM is of another device than the same on the CPU. `rates` are the device's: until they were measured, or it worked
    here before, the price is the middle of a wide range. What the store needs beside `disk_bytes` is added.
    """
    device = _GPU if vram_bytes else ""
    work = seconds if isinstance(seconds, Seconds) else Seconds(compute=seconds)
    past = tuple(step for step in facts.past if step.device == device)
    if rates and not rates.measured:  # priced by the same rates: how far those are off is in what the steps took
        past = tuple(replace(step, spread=1.0) for step in past)
    unmeasured = bool(rates and not rates.measured and not past)
    spread = rates.spread if rates and unmeasured else 1.0
    step = Past(stage, like, facts.run, tuple(work.by_kind.items()), device=device)
    learned = pace_of(past).price(step, spread=spread)
    return Estimate(
        seconds=round(learned.seconds, 1),
        basis=_basis(step, past, rates),
        peak_ram_bytes=ram_bytes,
        peak_vram_bytes=vram_bytes,
        cards=cards,
        disk_bytes=disk_bytes + STORE_BYTES,
        calibrated_seconds=round(work.total, 1),
        fixed_seconds=round(work.fixed, 1),
        least_seconds=round(learned.least, 1),
        most_seconds=round(learned.most, 1),
        unmeasured=unmeasured,
        rates_spread=rates.spread if rates else 1.0,
        parts={kind: round(of_kind, 2) for kind, of_kind in learned.seconds_by_kind.items()},
        work={kind: round(of_kind, 2) for kind, of_kind in work.by_kind.items()},
        answers=round(work.answers, 1),
        like=f"{like}, {device}".strip(", ") if device else like,
    )


def _basis(step: Past, past: Sequence[Past], rates: Rates | None) -> str:
    """What a price rests on, in words: the nearest of what was seen."""
    of = ", ".join(filter(None, (step.like, step.device)))
    what = f"{step.stage} ({of})" if of else step.stage
    kinds = {kind for kind, _ in step.priced}
    mine = [one.stage for one in past if step.run and one.run == step.run and kinds & {kind for kind, _ in one.priced}]
    # Turned around to keep the newest, and again below: they are named in their order.
    newest = list(dict.fromkeys(reversed(mine)))[:_NAMED]
    named = " and ".join(reversed(newest))
    if same := sum(one.stage == step.stage and one.like == step.like for one in past):
        runs = "1 past run" if same == 1 else f"{same} past runs"
        return f"{runs} of {what} on this machine" + (f"; and what {named} of this run took" if named else "")
    unseen = f"no {what} has ended on this machine yet"
    if named:
        return f"what this run's {named} took; {unseen}"
    if past:
        return f"{len(past)} past step{'s' if len(past) > 1 else ''} of other kinds on this machine; {unseen}"
    if rates and not rates.measured:
        return f"usual rates of {'a card' if step.device else 'such a processor'} until this one is measured; {unseen}"
    by = "this device's measured rates" if rates else "arithmetic"
    return f"{by}; {unseen}"


def lacks_memory(price: Estimate, machine: Machine) -> bool:
    """Whether a step needs more memory than a machine has, of either kind, however little other programs hold."""
    return price.peak_ram_bytes > machine.memory_room_bytes or price.peak_vram_bytes > machine.vram_room_on(price.cards)


class Lack(str):
    """What a step would not find: the sentence of its refusal, with what that is made of."""

    what: str
    """RAM, VRAM (of each of its cards), or disk."""
    needed_bytes: int
    free_bytes: int
    """Of the disk; of a memory, what there is for it: all of it in a plan, what is free now at its turn."""
    try_: tuple[str, ...]
    """What would do, best first."""

    def __new__(
        cls, what: str, needed_bytes: int, free_bytes: int, try_: Sequence[str], *, named: str = "", have: str = _ROOM
    ) -> Self:
        """`named` is how the sentence calls it, `have` how it says what there is."""
        needs = f"needs {size(needed_bytes)} of {named or what}, {have.format(size(free_bytes))}"
        lack = super().__new__(cls, f"{needs}; try {_OR.join(try_)}")
        lack.what, lack.needed_bytes, lack.free_bytes, lack.try_ = what, needed_bytes, free_bytes, tuple(try_)
        return lack


def room(price: Estimate, facts: Facts, *, remedy: str, fitting: Sequence[Fitting] = ()) -> tuple[Lack, ...]:
    """Refusals of a plan that does not fit into the machine, however little other programs hold, or onto its disk.

    Where memory is lacking, `fitting` is what would fit, best first, and `remedy` what to try where nothing does. The
    disk has one remedy.
    """
    machine, ways = facts.machine, [*map(str, fitting)] or remedy.split(_OR)
    memory = _lacking(price, machine.memory_room_bytes, machine.vram_room_on(price.cards), ways, _ROOM)
    disk = Lack("disk", price.disk_bytes, machine.disk_free_bytes, [_MORE_DISK], have=_FREE)
    return (*memory, disk) if disk.needed_bytes > disk.free_bytes else memory


def held_now(price: Estimate, machine: Machine, *, remedy: str = "stopping another program") -> tuple[Lack, ...]:
    """Memory that a step would not find as things are now: it refuses what starts at once, and is a note before."""
    return _lacking(price, machine.memory_free_bytes, machine.vram_free_on(price.cards), remedy.split(_OR), _FREE)


def held_notes(price: Estimate, machine: Machine) -> tuple[str, ...]:
    """What a price says of memory that it counts on and that other programs hold now."""
    held = () if lacks_memory(price, machine) else held_now(price, machine)
    why = "other programs hold memory that this counts on"
    return tuple(f"{why}: it {lack} before it starts" for lack in held)


def _lacking(price: Estimate, ram: int, vram: int, ways: Sequence[str], have: str) -> tuple[Lack, ...]:
    """What of its memory a step would not find where there are so many bytes of each."""
    on_each = f"VRAM on each of {price.cards} cards" if price.cards > 1 else "VRAM"
    kinds = (("RAM", "RAM and swap", price.peak_ram_bytes, ram), ("VRAM", on_each, price.peak_vram_bytes, vram))
    lacks = (Lack(kind, needed, there, ways, named=named, have=have) for kind, named, needed, there in kinds)
    return tuple(lack for lack in lacks if lack.needed_bytes > lack.free_bytes)
