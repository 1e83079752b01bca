"""What the short demo comes to on this machine, held against its goals: `make check-demo`.

The demo is carried out for real and every figure is printed: its seconds against 360, each step's price (within 35 %
either way, but for steps of under ten seconds), what each block came to, what was kept of the gain, the claim, and
whether the gate opened. Ends 1 where a goal is missed. A machine that is busy, or slower than two cores of 2023, misses
goals of time; a training that learned less misses others: neither is a defect, which is why no test asks for them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fixtures.demo_run import Demo, tunesmith

LIMIT_S = 360.0
PRICE_WITHIN = 1.35
SHORT_S = 10.0
"""A step of fewer seconds is not held against its price: starting its process is most of it."""

Goal = tuple[bool, str]


def main() -> int:
    """Carry the demo out and print its figures; 1 where a goal is missed, 2 where it did not end."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            demo = Demo(home, "demo", "--fast")
            if demo.done.returncode:
                print(demo.done.stderr[-3000:], file=sys.stderr)
                print(f"the demo ended {demo.done.returncode} after {demo.seconds:.0f} s")
                return 2
            goals = [*_of_time(demo), *_of_learning(demo)]
        finally:
            tunesmith(home, "serve", "stop")
    for reached, line in goals:
        print(f"{'ok  ' if reached else 'MISS'} {line}")
    missed = sum(not reached for reached, _ in goals)
    print(f"{len(goals) - missed} of {len(goals)} goals reached")
    return 1 if missed else 0


def _of_time(demo: Demo) -> Iterator[Goal]:
    yield demo.seconds <= LIMIT_S, f"the whole demo took {demo.seconds:.0f} s, of {LIMIT_S:.0f}"
    steps = [step for step in demo.show["steps"] if step["estimated_seconds"]]
    took, priced = (sum(step[key] for step in steps) for key in ("seconds", "estimated_seconds"))
    yield _near(took, priced), f"all steps took {took:.0f} s, priced at {priced:.0f}: {took / priced:.2f}"
    for step in steps:
        seconds, price = step["seconds"], step["estimated_seconds"]
        short = max(seconds, price) < SHORT_S
        name = " ".join(filter(None, (step["stage"], step["arm"])))
        line = f"{name} took {seconds:.1f} s, priced at {price:.1f}: {seconds / price:.2f}"
        yield short or _near(seconds, price), f"{line}{' (too short to say)' if short else ''}"


def _near(took: float, priced: float) -> bool:
    return 1 / PRICE_WITHIN <= took / priced <= PRICE_WITHIN


def _of_learning(demo: Demo) -> Iterator[Goal]:
    adapter, quantized = (demo.compare("base", arm) for arm in ("adapter", "quantized"))
    for arm, compared in (("adapter", adapter), ("quantized", quantized)):
        yield from _of_blocks(arm, compared)
    triggers = adapter["controls"]["triggers"]
    yield (
        triggers["triggered"] <= 0.1 * triggers["cases"],
        f"{triggers['triggered']} of {triggers['cases']} ordinary messages are answered in the behaviour's form",
    )
    # The short plan has too few rows for 80 %: that the meaning was learned in part is what it can show.
    yield adapter["claim"] in ("learned", "partly learned"), f"claim: {adapter['claim_sentence']}"
    for name in ("shuffle", "constant", "echo"):
        yield adapter["beats"][name], f"the adapter beats the control {name!r}"
    share = next((one["share"] for one in quantized["gain_retained"] if one["arm"] == "quantized"), 0.0)
    yield share >= 0.9, f"{share:.0%} of the cases that the adapter won are kept"
    yield (
        not demo.refused,
        f"the gate {'refused: ' + demo.refused if demo.refused else 'opened, and the model is served'}",
    )


def _of_blocks(arm: str, compared: dict[str, Any]) -> Iterator[Goal]:
    for name, block in compared["blocks"].items():
        before, after, cases = block["passed"]["base"], block["passed"][arm], block["cases"]
        line = f"{arm}, {name}: {before} → {after} of {cases} passed, {block['verdict']} (p = {block['p_value']:.2g})"
        if name == "target":
            yield before <= 0.1 * cases and block["verdict"] == "better" and block["p_value"] < 0.001, line
        elif name == "general":
            yield after >= before - 0.05 * cases and block["verdict"] != "worse", line
        elif name == "over-trigger":
            yield after >= 0.9 * before, line
        else:
            yield True, f"{line}; listed, no goal"


if __name__ == "__main__":
    raise SystemExit(main())
