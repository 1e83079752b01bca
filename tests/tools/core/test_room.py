"""What a step would not find is told with its numbers, and apart from what other programs merely hold now."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.fixtures.tables import table
from tunesmith.tools.core.estimate import Lack, held_notes, held_now, lacks_memory, room
from tunesmith.tools.core.machine import Gpu, Machine, usable_bytes, whole_bytes
from tunesmith.tools.core.stage import GIB, Estimate, Facts, Fitting, Plan

WAYS = (Fitting(settings="micro_batch=1", peak_bytes=GIB), Fitting(settings="load_in_4bit=true", peak_bytes=GIB))


def machine(*, ram: tuple[float, float], cards: tuple[tuple[float, float], ...] = (), disk: float = 100) -> Machine:
    """Of (total, free) each, in GiB, and a GiB of swap."""
    gpus = tuple(Gpu(n, "a card", int(t * GIB), int(f * GIB), "9.0", "") for n, (t, f) in enumerate(cards))
    return Machine("a processor", 8, int(ram[0] * GIB), int(ram[1] * GIB), GIB, int(disk * GIB), gpus)


def priced(*, ram: float = 0, vram: float = 0, disk: float = 0, cards: int = 1) -> Estimate:
    peaks = {"peak_ram_bytes": int(ram * GIB), "peak_vram_bytes": int(vram * GIB), "disk_bytes": int(disk * GIB)}
    return Estimate(seconds=1, basis="", cards=cards, **peaks)


def lacks(of: Machine, *, ram: float = 0, vram: float = 0, disk: float = 0, cards: int = 1) -> tuple[Lack, ...]:
    """What a step lacks there that needs so many GiB."""
    price = priced(ram=ram, vram=vram, disk=disk, cards=cards)
    return room(price, Facts(Path(), of, "r1"), remedy="a smaller base", fitting=WAYS)


def test_a_lack_is_a_sentence_and_what_it_is_made_of() -> None:
    [vram] = lacks(machine(ram=(32, 30), cards=((24, 20), (24, 10))), vram=25, cards=2)
    sentence = "needs 25.0 GiB of VRAM on each of 2 cards, there is room for 23.6 GiB; try micro_batch=1 (1.0 GiB), or "
    assert vram == f"{sentence}load_in_4bit=true (1.0 GiB)" and isinstance(vram, str)
    assert (vram.what, vram.needed_bytes, vram.free_bytes) == ("VRAM", 25 * GIB, usable_bytes(24 * GIB))
    assert vram.try_ == tuple(map(str, WAYS))
    [disk] = lacks(machine(ram=(32, 30)), disk=101)
    assert disk.startswith("needs 101 GiB of disk, 100 GiB free; try making room")


@table(
    ("needs", "refused", "held"),
    [({"ram": 20}, 0, 0), ({"ram": 25}, 0, 1), ({"ram": 34}, 1, 0), ({"vram": 11}, 0, 0), ({"vram": 13}, 0, 1),
     ({"vram": 24}, 1, 0), ({"vram": 9, "cards": 2}, 0, 1), ({"vram": 13, "cards": 2}, 1, 0),
     ({"vram": 1, "cards": 3}, 1, 0), ({"ram": 25, "vram": 13}, 0, 2)],
)  # fmt: skip
def test_a_plan_is_refused_by_what_there_is_and_warns_of_what_others_hold_now(
    needs: dict[str, float], refused: int, held: int
) -> None:
    of = machine(ram=(32, 20), cards=((24, 12), (12, 8)))
    price = priced(**needs)  # type: ignore[arg-type]
    assert (len(lacks(of, **needs)), len(held_notes(price, of))) == (refused, held)  # type: ignore[arg-type]
    assert lacks_memory(price, of) == bool(refused)
    now = held_now(price, of)
    assert len(now) == (refused or held), "at its turn both keep it from starting"
    assert all(one.endswith("free; try stopping another program") for one in now)
    assert all(f"it {one} before it starts" in note for one, note in zip(now, held_notes(price, of), strict=False))


def test_what_there_is_is_all_but_what_the_driver_keeps_and_the_other_way_round() -> None:
    draw = random.Random(3)
    for _ in range(300):
        total = draw.uniform(1, 90)
        needed, free = draw.uniform(0, 1.2 * total), draw.uniform(0, total)
        most = total - max(0.4, 0.01 * total)
        assert bool(lacks(machine(ram=(64, 64), cards=((total, free),)), vram=needed)) == (needed > most)
        assert abs(whole_bytes(usable_bytes(int(total * GIB))) - total * GIB) < 3


def test_a_plan_keeps_what_its_refusals_are_made_of_and_is_stored_as_their_sentences() -> None:
    refusals = lacks(machine(ram=(8, 8)), ram=20)
    plan = Plan(stage="train", run="", summary="", steps=(), request={}, estimate=Estimate(seconds=1, basis=""))
    plan = Plan(**{**plan.model_dump(), "refusals": refusals})
    assert isinstance(plan.refusals[0], Lack) and isinstance(plan.in_run("r2").refusals[0], Lack)
    stored = json.loads(json.dumps(plan.model_dump(mode="json")))
    assert stored["refusals"] == [str(one) for one in refusals]
    assert Plan.model_validate(stored).hash == plan.hash
