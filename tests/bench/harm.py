"""How often a harmless arm is refused and a harmful one passes, by the rule of `tools/evaluation/harm.py`.

Three guarded blocks of a size each. A harmless arm flips a share of the cases, as many one way as the other; a harmful
one loses ten points more of one block. Goals: both at most 5 % from 250 cases on. Below, a harmful arm passes with the
words "cannot tell", and a harmless one is still refused in at most 5 %.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np

from tunesmith.tools.core.stats import mcnemar_exact
from tunesmith.tools.evaluation.harm import ENOUGH_CASES, HARMED, of_counts

DRAWS, BLOCKS, LEFT = 4000, 3, 0.05
SIZES, FLIPS = (10, 20, 35, 60, 120, 250, 400), (0.04, 0.08)


@cache
def _harmed(cases: int, gained: int, lost: int) -> bool:
    p_value = mcnemar_exact(gained, lost)
    worse = lost > gained and p_value < LEFT
    return of_counts("block", cases, lost, gained, worse=worse, bound=0.0).word == HARMED


def refused(random: np.random.Generator, cases: int, flips: float, loss: float, blocks: int) -> float:
    """Share of draws in which harm is shown to at least one of so many blocks."""
    chances = [flips / 2, flips / 2 + loss, 1 - flips - loss]
    drawn = random.multinomial(cases, chances, (DRAWS, blocks))
    return float(np.mean([any(_harmed(cases, int(g), int(lost)) for g, lost, _ in draw) for draw in drawn]))


def main() -> int:
    random, missed = np.random.default_rng(20261204), 0
    print("| cases a block | neutral flips | harmless refused | ten points lost, passed |\n|---|---|---|---|")
    for cases in SIZES:
        for flips in FLIPS:
            harmless = refused(random, cases, flips, 0.0, BLOCKS)
            passed = 1 - refused(random, cases, flips, 0.1, 1)
            missed += harmless > LEFT or (cases >= ENOUGH_CASES and passed > LEFT)
            print(f"| {cases} | {flips:.0%} | {harmless:.1%} | {passed:.0%} |")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
