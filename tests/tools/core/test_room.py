"""What a step would not find is told with its numbers, and apart from what other programs merely hold now."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.fixtures.tables import table
from tunesmith.tools.core.estimate import Lack, room
from tunesmith.tools.core.machine import Gpu, Machine
from tunesmith.tools.core.stage import GIB, Estimate, Facts, Fitting, Plan

WAYS = (Fitting(settings="micro_batch=1", peak_bytes=GIB), Fitting(settings="load_in_4bit=true", peak_bytes=GIB))


def machine(*, ram: tuple[float, float], cards: tuple[tuple[float, float], ...] = (), disk: float = 100) -> Machine:
    """Of (total, free) each, in GiB, and a GiB of swap."""
    gpus = tuple(Gpu(n, "a card", int(t * GIB), int(f * GIB), "9.0", "") for n, (t, f) in enumerate(cards))
    return Machine("a processor", 8, int(ram[0] * GIB), int(ram[1] * GIB), GIB, int(disk * GIB), gpus)


def lacks(of: Machine, *, ram: float = 0, vram: float = 0, disk: float = 0, cards: int = 1) -> tuple[Lack, ...]:
    """What a step lacks there that needs so many GiB."""
    peaks = {"peak_ram_bytes": int(ram * GIB), "peak_vram_bytes": int(vram * GIB), "disk_bytes": int(disk * GIB)}
    price = Estimate(seconds=1, basis="", cards=cards, **peaks)
    return room(price, Facts(Path(), of, "r1"), remedy="a smaller base", fitting=WAYS)


def test_a_lack_is_a_sentence_and_what_it_is_made_of() -> None:
    [vram] = lacks(machine(ram=(32, 30), cards=((24, 20), (24, 10))), vram=25, cards=2)
    sentence = "needs 25.0 GiB of VRAM on each of 2 cards, 10.0 GiB free; try micro_batch=1 (1.0 GiB), or "
    assert vram == f"{sentence}load_in_4bit=true (1.0 GiB)" and isinstance(vram, str)
    assert (vram.what, vram.needed_bytes, vram.free_bytes) == ("VRAM", 25 * GIB, 10 * GIB)
    assert vram.try_ == tuple(map(str, WAYS))
    [disk] = lacks(machine(ram=(32, 30)), disk=101)
    assert disk.startswith("needs 101 GiB of disk, 100 GiB free; try making room") and disk.lasting


@table(
    ("needs", "lasting"),
    [({"ram": 25}, False), ({"ram": 34}, True), ({"vram": 13}, False), ({"vram": 24}, True),
     ({"vram": 9, "cards": 2}, False), ({"vram": 13, "cards": 2}, True), ({"vram": 1, "cards": 3}, True)],
)  # fmt: skip
def test_what_others_hold_now_is_not_what_the_machine_never_has(needs: dict[str, float], lasting: bool) -> None:
    [lack] = lacks(machine(ram=(32, 20), cards=((24, 12), (12, 8))), **needs)  # type: ignore[arg-type]
    assert lack.lasting == lasting, lack


@table(
    ("remedy", "ever", "now"),
    [("stopping another program", "a smaller base", "stopping another program"),
     ("a smaller base, or stopping another program", "a smaller base", "a smaller base, or stopping another program"),
     ("fewer rows", "fewer rows", "fewer rows")],
)  # fmt: skip
def test_stopping_others_is_advised_only_where_it_helps(remedy: str, ever: str, now: str) -> None:
    facts = Facts(Path(), machine(ram=(32, 8)), "r1")
    for needed, told in ((20, now), (40, ever)):
        [lack] = room(Estimate(seconds=1, basis="", peak_ram_bytes=needed * GIB), facts, remedy=remedy)
        assert lack.endswith(f"; try {told}") and lack.try_ == tuple(told.split(", or "))


def test_what_fits_lacks_nothing_and_what_others_let_go_of_is_all_but_what_the_driver_keeps() -> None:
    draw = random.Random(3)
    for _ in range(300):
        total = draw.uniform(4, 90)
        free, needed = draw.uniform(0, total), draw.uniform(0, 1.2 * total)
        found = lacks(machine(ram=(64, 64), cards=((total, free),)), vram=needed)
        assert bool(found) == (int(needed * GIB) > int(free * GIB))
        most = total - max(0.4, 0.01 * total)
        assert all(lack.lasting == (needed > max(free, most)) for lack in found)


def test_a_plan_keeps_what_its_refusals_are_made_of_and_is_stored_as_their_sentences() -> None:
    refusals = lacks(machine(ram=(8, 8)), ram=20)
    plan = Plan(stage="train", run="", summary="", steps=(), request={}, estimate=Estimate(seconds=1, basis=""))
    plan = Plan(**{**plan.model_dump(), "refusals": refusals})
    assert isinstance(plan.refusals[0], Lack) and isinstance(plan.in_run("r2").refusals[0], Lack)
    stored = json.loads(json.dumps(plan.model_dump(mode="json")))
    assert stored["refusals"] == [str(one) for one in refusals]
    assert Plan.model_validate(stored).hash == plan.hash
