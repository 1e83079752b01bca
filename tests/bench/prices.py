"""Prices that learn, held against their goal: from the third step of a first run on, 80 % of the steps within ±35 %.

A short demo's steps are replayed: what arithmetic priced them at, what they took on an idle machine of two cores, by
kind of work, and how much slower each kind is on five others. Every step is priced by what was seen before it, as a
first run does it, then noise is added; 200 runs a machine, seeded. Beside it what arithmetic alone would have said.
The factors are assumptions; the run at the end took place, beside six other programs.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tunesmith.tools.core.pace import Pace, Past
from tunesmith.tools.core.rates import ANSWER, COMPUTE, READ, START, TRAIN

RUNS = 200
NEAR, GOAL = 1.35, 0.8
_SEEN = 2
"""Steps of a run before the first that counts."""
_NOISE_SD = 0.10

Priced = Mapping[str, float]
KINDS = (START, READ, ANSWER, TRAIN, COMPUTE)


class Recorded(NamedTuple):
    """A step of the short demo."""

    stage: str
    like: str
    priced: Priced
    """By arithmetic, on the rates of a machine with two cores of AVX512-BF16; seconds by kind of work."""
    idle: float
    """What it took there with nobody else at work."""
    busy: float
    """What it took beside six other programs on the same two cores."""


DEMO = (
    Recorded("base", "bundled", {"start": 1.0, "read": 13.7}, 8.6, 11.5),
    Recorded("baseline", "", {"start": 17.5, "read": 0.6, "answer": 10.1}, 29.2, 81.0),
    Recorded("generate", "", {"start": 3.0, "answer": 41.9}, 39.0, 88.0),
    Recorded("critique", "", {"start": 3.0, "compute": 0.7}, 2.8, 2.8),
    Recorded("preflight", "", {"start": 12.0, "read": 0.6, "answer": 1.3, "train": 3.0}, 12.2, 12.9),
    Recorded("train", "", {"start": 7.5, "read": 0.6, "train": 97.5}, 104.4, 682.3),
    Recorded("evaluate", "adapter", {"start": 4.5, "answer": 36.0}, 42.1, 135.4),
    Recorded("merge", "", {"start": 8.5, "read": 2.2, "compute": 2.1}, 10.6, 20.1),
    Recorded("quantize", "", {"start": 10.5, "read": 1.7, "compute": 11.7}, 25.5, 55.0),
    Recorded("evaluate", "quantized", {"start": 20.5, "read": 0.4, "answer": 17.1}, 25.7, 113.5),
    Recorded("deploy", "", {"start": 4.0}, 3.8, 9.9),
)


class Slowed(NamedTuple):
    """How much longer each kind of work takes, and how much that changes from step to step (of its logarithm)."""

    by: Priced
    changes: float = 0.0
    drawn: float = 1.0
    """The factor up to which each kind takes longer still, drawn anew for every run."""


IDLE = "idle"
SLOWED = {
    "half a core": Slowed({"start": 2.2, "read": 1.6, "answer": 4.0, "train": 4.0, "compute": 4.0}),
    "a busy neighbour": Slowed({"start": 1.8, "read": 1.5, "answer": 2.5, "train": 3.0, "compute": 2.5}, 0.15),
    "AVX2 alone": Slowed({"answer": 1.7, "train": 4.0, "compute": 1.5}),
    "a slow disk": Slowed({"start": 2.5, "read": 6.0}),
    "each kind 1 to 5 times": Slowed({}, drawn=5.0),
}
MACHINES = {IDLE: Slowed({}), **SLOWED}


class Found(NamedTuple):
    """Shares of the steps that count."""

    near: float
    """Within ±35 % of their price."""
    arithmetic_near: float
    """The same of arithmetic alone."""
    within: float
    """Within the price's interval."""


def runs(machine: Slowed, count: int) -> Iterator[list[tuple[Recorded, Priced]]]:
    """First runs on a machine: each step, and what every kind of work in it took."""
    for seed in range(count):
        chance = random.Random(seed)
        busy = chance.gauss(0, machine.changes)
        slower = {kind: machine.by.get(kind, 1.0) * machine.drawn ** chance.random() for kind in KINDS}
        steps = []
        for step in DEMO:
            busy = 0.8 * busy + 0.6 * chance.gauss(0, machine.changes)
            off = step.idle / sum(step.priced.values()) * math.exp(busy)
            took = {
                kind: seconds * off * slower[kind] * math.exp(chance.gauss(0, _NOISE_SD))
                for kind, seconds in step.priced.items()
            }
            steps.append((step, _as_seen(step, took)))
        yield steps


def _as_seen(step: Recorded, took: Priced) -> Priced:
    """As workers see it: what is read is read while a server starts, or among the work that it is for."""
    if step.stage == "base" or "read" not in took:
        return took
    seen = dict(took)
    among = "train" if "train" in seen else "start" if "answer" in seen else "compute"
    seen[among] += seen.pop("read")
    return seen


def replay(machine: str, count: int = RUNS) -> Found:
    """Price every step of first runs on one of `MACHINES` by the steps before it."""
    told = [prices(steps) for steps in runs(MACHINES[machine], count)]
    counted = [price for run in told for price in run[_SEEN:]]
    return Found(
        *(
            sum(good) / len(counted)
            for good in (
                [_near(price.took, price.seconds) for price in counted],
                [_near(price.took, price.arithmetic) for price in counted],
                [price.least <= price.took <= price.most for price in counted],
            )
        )
    )


def _near(took: float, priced: float) -> bool:
    return 1 / NEAR <= took / priced <= NEAR


class Price(NamedTuple):
    """Of one step, before it and after it."""

    name: str
    arithmetic: float
    seconds: float
    least: float
    most: float
    took: float


def prices(steps: list[tuple[Recorded, Priced]], *, kinds: bool = True) -> list[Price]:
    """The steps of a run, each priced by those before it; without `kinds` only the whole time of each was seen."""
    past: list[Past] = []
    told = []
    for step, took in steps:
        work = Past(step.stage, step.like, "r1", tuple(step.priced.items()))
        price, seconds = Pace(past).price(work), sum(took.values())
        name = " ".join(filter(None, (step.stage, step.like)))
        told.append(Price(name, sum(step.priced.values()), price.seconds, price.least, price.most, seconds))
        past.append(Past(step.stage, step.like, "r1", work.priced, seconds, tuple(took.items()) if kinds else ()))
    return told


def main() -> int:
    """Print the shares of every machine beside those of arithmetic, and the recorded run; 1 where a goal is missed."""
    print(f"{RUNS} first runs each, from step {_SEEN + 1} on    within ±35 %   arithmetic alone   inside its interval")
    good = True
    for machine in MACHINES:
        found = replay(machine)
        good &= found.near >= GOAL
        print(f"{machine:34}{found.near:15.0%}{found.arithmetic_near:19.0%}{found.within:22.0%}")
    print("\nneighbour, recorded (whole times)      arithmetic    priced        interval        took")
    for price in prices([(step, {"whole": step.busy}) for step in DEMO], kinds=False):
        between = f"{price.least:.0f} to {price.most:.0f}"
        print(f"{price.name:36}{price.arithmetic:12.0f} s{price.seconds:8.0f} s{between:>16}{price.took:10.0f} s")
    print("within the goal" if good else f"MISSED: {GOAL:.0%} of the steps within ±35 % on every machine")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
