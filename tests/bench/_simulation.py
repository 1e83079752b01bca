"""Synthetic A/B pairs whose truth is known: how often our interval holds it, how often a difference is seen in none.

Each pair is a suite of 40–240 cases (or 16–24, as some that ship) answered by two arms. A case has its own difficulty,
so the arms' answers are correlated, as those of a base and its fine-tune are. Beside our figures stand those of
comparing two pass rates: as bare numbers (the higher one wins), and as two independent proportions with a 95 % interval
(Wald).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from tunesmith.tools.core.stats import (
    clustered_difference_interval,
    mcnemar_clustered,
    mcnemar_exact,
    paired_bootstrap,
    paired_difference_interval,
)

_AGREE = (0.2, 0.9)
"""How often a case does as the first one of its seed row does."""
_RESAMPLES = 2000


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
    ignoring_covered: int = 0
    """By the interval of independent cases, whatever the clusters."""

    def share(self, count: float) -> float:
        """A count or a sum over the number of pairs."""
        return count / self.pairs


def simulate(
    pairs: int, seed: int, *, no_difference: bool, cases: tuple[int, int] = (40, 240), cluster: int = 1
) -> Tally:
    """Draw `pairs` A/B pairs and tally how ours and the naive figures do.

    With `cluster`, that many cases come from one seed row, and most of them do as its first one does.
    """
    rng, tally = random.Random(seed), Tally()
    for _ in range(pairs):
        count = rng.randint(*cases)
        flips = rng.uniform(0.12, 0.5)  # share of the cases on which one answers otherwise than the other
        lean = 0.5 if no_difference else rng.uniform(0.3, 0.9)  # share of the flips that b wins
        both_pass = rng.uniform(0.1, 1 - flips)
        agree = rng.uniform(*_AGREE) if cluster > 1 else 0.0
        draws: list[float] = []
        for number in range(count):
            first = draws[number - number % cluster] if number % cluster else None
            draws.append(first if first is not None and rng.random() < agree else rng.random())
        gained, lost = [draw < flips * lean for draw in draws], [flips * lean <= draw < flips for draw in draws]
        both = sum(flips <= draw < flips + both_pass for draw in draws)
        nets = [float(g) - float(m) for g, m in zip(gained, lost, strict=True)]
        labels = [number // cluster for number in range(count)]
        _count(tally, count, both, nets, labels, flips * (2 * lean - 1))
    return tally


def simulate_graded(pairs: int, seed: int, *, cases: tuple[int, int] = (40, 240), cluster: int = 1) -> Tally:
    """The same for scores from 0 to 1: most cases score alike on both arms, the others move by anything up to 1."""
    rng, tally = random.Random(seed), Tally()
    for _ in range(pairs):
        count, moved, up = rng.randint(*cases), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.9)
        agree = rng.uniform(*_AGREE) if cluster > 1 else 0.0
        deltas: list[float] = []
        for number in range(count):
            own = rng.random() * (1 if rng.random() < up else -1) if rng.random() < moved else 0.0
            deltas.append(deltas[number - number % cluster] if number % cluster and rng.random() < agree else own)
        labels = [number // cluster for number in range(count)]
        truth, found = moved * (2 * up - 1) / 2, paired_bootstrap(deltas, clusters=labels, resamples=_RESAMPLES)
        tally.pairs += 1
        tally.covered += found.low <= truth <= found.high
        tally.width += found.high - found.low
    return tally


def _count(tally: Tally, cases: int, both: int, nets: list[float], labels: list[int], truth: float) -> None:
    gained, lost, clustered = nets.count(1.0), nets.count(-1.0), len(set(labels)) < len(labels)
    if clustered:
        low, high = clustered_difference_interval(nets, labels, resamples=_RESAMPLES)
    else:
        low, high = paired_difference_interval(cases, gained, lost)
    ignoring = paired_difference_interval(cases, gained, lost)
    tally.ignoring_covered += ignoring[0] <= truth <= ignoring[1]
    by_row: dict[int, int] = {}
    for label, net in zip(labels, nets, strict=True):
        by_row[label] = by_row.get(label, 0) + int(net)
    rate_a, rate_b = (both + lost) / cases, (both + gained) / cases
    half = 1.959964 * math.sqrt((rate_a * (1 - rate_a) + rate_b * (1 - rate_b)) / cases)
    observed = rate_b - rate_a
    tally.pairs += 1
    tally.covered += low <= truth <= high
    tally.width += high - low
    tally.naive_covered += observed - half <= truth <= observed + half
    tally.naive_width += 2 * half
    tally.alarms += max(mcnemar_exact(gained, lost), mcnemar_clustered(by_row.values())) < 0.05
    tally.naive_alarms += abs(observed) > half
    tally.higher_wins += observed > 0
