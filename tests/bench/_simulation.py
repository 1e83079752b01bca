"""Synthetic A/B pairs whose truth is known: how often our interval holds it, how often a difference is seen in none.

Each pair is a suite of 40–240 cases answered by two arms. A case has its own difficulty, so the arms' answers are
correlated, as those of a base and its fine-tune are. Beside our figures stand those of comparing two pass rates: as
bare numbers (the higher one wins), and as two independent proportions with a 95 % interval (Wald).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from tunesmith.tools.stats import mcnemar_exact, paired_difference_interval


@dataclass
class Tally:
    """Shares over many pairs."""

    pairs: int = 0
    covered: int = 0
    naive_covered: int = 0
    width: float = 0.0
    naive_width: float = 0.0
    alarms: int = 0
    naive_alarms: int = 0
    higher_wins: int = 0

    def share(self, count: float) -> float:
        """A count or a sum over the number of pairs."""
        return count / self.pairs


def simulate(pairs: int, seed: int, *, no_difference: bool) -> Tally:
    """Draw `pairs` A/B pairs and tally how ours and the naive figures do."""
    rng, tally = random.Random(seed), Tally()
    for _ in range(pairs):
        cases = rng.randint(40, 240)
        flips = rng.uniform(0.12, 0.5)  # share of the cases on which one answers otherwise than the other
        lean = 0.5 if no_difference else rng.uniform(0.3, 0.9)  # share of the flips that b wins
        both_pass = rng.uniform(0.1, 1 - flips)
        gained = lost = both = 0
        for _ in range(cases):
            draw = rng.random()
            gained += draw < flips * lean
            lost += flips * lean <= draw < flips
            both += flips <= draw < flips + both_pass
        truth = flips * (2 * lean - 1)
        _count(tally, cases, both, gained, lost, truth)
    return tally


def _count(tally: Tally, cases: int, both: int, gained: int, lost: int, truth: float) -> None:
    low, high = paired_difference_interval(cases, gained, lost)
    rate_a, rate_b = (both + lost) / cases, (both + gained) / cases
    half = 1.959964 * math.sqrt((rate_a * (1 - rate_a) + rate_b * (1 - rate_b)) / cases)
    observed = rate_b - rate_a
    tally.pairs += 1
    tally.covered += low <= truth <= high
    tally.width += high - low
    tally.naive_covered += observed - half <= truth <= observed + half
    tally.naive_width += 2 * half
    tally.alarms += mcnemar_exact(gained, lost) < 0.05
    tally.naive_alarms += abs(observed) > half
    tally.higher_wins += observed > 0
