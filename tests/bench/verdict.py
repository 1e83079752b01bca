"""How often *learned* is said of an arm: by its true rate, the number of people's cases, and the opening.

    python tests/bench/verdict.py

The words are those of the product, on simulated cases: an arm that is right on each with the true rate, a base that is
right on none. `exact` is the binomial probability of the least number that is learned. The second table is the case of
somebody who trains up to three times and keeps the best by the same cases; the third puts a base that is right on a
share of the cases next to the arm.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tunesmith.tools.evaluation.peoples_cases import Pair, least_right
from tunesmith.tools.evaluation.verdict import LEARNED, Facts, decide

DRAWS = 4_000
CASES = (10, 14, 20, 30)
RATES = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def learned(draw: random.Random, rate: float, cases: int, opening: int = 1, base: float = 0.0) -> bool:
    """Whether one drawn evaluation ends in *learned*."""
    pairs = [Pair(n, draw.random() < base, draw.random() < rate) for n in range(cases)]
    return decide(Facts(rated=pairs, opening=opening)).word == LEARNED


def exact(rate: float, cases: int) -> float:
    """The probability that so many cases come out right as are learned at the first opening."""
    least = least_right(cases)
    assert least is not None
    return math.fsum(math.comb(cases, n) * rate**n * (1 - rate) ** (cases - n) for n in range(least, cases + 1))


def rows(draw: random.Random, rates: Sequence[float]) -> list[str]:
    """A line for each true rate."""
    lines = []
    for rate in rates:
        cells = [
            f"{sum(learned(draw, rate, cases) for _ in range(DRAWS)) / DRAWS:.3f} ({exact(rate, cases):.3f})"
            for cases in CASES
        ]
        lines.append(f"| {rate} | {' | '.join(cells)} |")
    return lines


def best_of(draw: random.Random, rate: float, cases: int, tries: int, *, paid: bool) -> float:
    """How often one of so many trainings is called learned by the same cases, with and without paying for openings."""
    hits = 0
    for _ in range(DRAWS):
        hits += any(learned(draw, rate, cases, number if paid else 1) for number in range(1, tries + 1))
    return hits / DRAWS


def main() -> None:
    """Print the tables."""
    draw = random.Random(20261129)
    print(f"share called learned in {DRAWS} draws (exact)\n| true rate | {' | '.join(map(str, CASES))} cases |")
    print("\n".join(rows(draw, RATES)))
    print("\nbest of three trainings: bound at 1 - 0.10 / k (bound at 0.90 each time)")
    for rate in (0.6, 0.65, 0.7, 0.75):
        cells = [
            f"{best_of(draw, rate, n, 3, paid=True):.3f} ({best_of(draw, rate, n, 3, paid=False):.3f})" for n in CASES
        ]
        print(f"| {rate} | {' | '.join(cells)} |")
    print("\na base that is right on 0.3 of the cases")
    for rate in (0.65, 0.9):
        cells = [f"{sum(learned(draw, rate, n, base=0.3) for _ in range(DRAWS)) / DRAWS:.3f}" for n in CASES]
        print(f"| {rate} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
