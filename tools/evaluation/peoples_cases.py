"""People's cases: pairs of answers counted, what they are worth where some are alike, and what *learned* takes of them.

The bound of a share is exact and one-sided (Clopper-Pearson), taken at the number of independent cases.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from tunesmith.tools.core.stats import (
    effective_cases,
    flips_to_show,
    lower_bound,
    mcnemar_clustered,
    mcnemar_exact,
    mcnemar_mid_p,
)

LEARNED_RATE = 0.8
"""The goal: pass rate on the target from which something is learned, or needs no training."""
PEOPLES_CASES = 10
"""Cases of people without which nothing is decided: of ten, nine right reach the bound below; of nine, eight do not."""
LEAST_BOUND = 0.65
"""What the lower bound of people's share must reach: with ten cases nine right are enough, and eight are not."""
BOUND_ERROR = 0.10
"""One-sided, at the first opening of the cases: at 5 % nine of ten right would reach .61 alone."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One case: its seed row, and whether the base and the arm are right."""

    cluster: Hashable
    base: bool
    arm: bool


@dataclass(frozen=True, slots=True)
class Paired:
    """Cases counted, and the exact test of the arm against the base."""

    cases: int
    base: int
    arm: int
    p_value: float
    mid_p_value: float
    effective: float | None = None
    """What cases that are alike, or were made of one row, are worth together; None: each stands alone."""

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Paired:
        net: dict[Hashable, int] = {}
        for pair in pairs:
            net[pair.cluster] = net.get(pair.cluster, 0) + pair.arm - pair.base
        gained, lost = sum(p.arm > p.base for p in pairs), sum(p.arm < p.base for p in pairs)
        # The more cautious of two: cases that were made of one row are no independent ones.
        exact = max(mcnemar_exact(gained, lost), mcnemar_clustered(net.values()))
        base, arm = sum(p.base for p in pairs), sum(p.arm for p in pairs)
        worth = effective_cases(pair.cluster for pair in pairs)
        return cls(len(pairs), base, arm, exact, mcnemar_mid_p(gained, lost), worth)

    @property
    def worth(self) -> float:
        """Independent cases that these are worth."""
        return self.cases if self.effective is None else self.effective

    @property
    def counted(self) -> str:
        """What is said behind their number where they are worth fewer."""
        return f", worth {self.worth:.0f} independent ones" if self.worth < self.cases - 0.5 else ""

    def bound(self, confidence: float) -> float:
        """The exact one-sided lower bound of their share."""
        return _bound(self.arm, self.cases, confidence, self.worth)

    @property
    def rate(self) -> float:
        return self.arm / self.cases if self.cases else 0.0

    @property
    def leaves_nothing(self) -> bool:
        """Whether the base fails too few of them for any gain to show."""
        return self.cases - self.base < flips_to_show()

    @property
    def when_nothing_is_gained(self) -> str:
        """What to do then."""
        if self.leaves_nothing and self.arm >= self.base:
            left = self.cases - self.base
            return f"the base leaves {left} to win, and a gain takes {flips_to_show()}: write cases that it fails"
        return "look at the rows' answers first"


def least_right(cases: int, opening: int = 1, worth: float | None = None) -> int | None:
    """The fewest right ones of so many cases that are *learned*; None where not even all of them are.

    `worth` is the number of independent cases that they are worth, where some are alike.
    """
    enough = (n for n in range(cases + 1) if reaches(n, cases, opening, worth))
    return next(enough, None)


def reaches(passed: int, cases: int, opening: int, worth: float | None = None) -> bool:
    """Whether so many right ones are *learned* at an opening of the cases."""
    if (cases if worth is None else worth) < PEOPLES_CASES or passed < LEARNED_RATE * cases:
        return False
    return _bound(passed, cases, 1 - BOUND_ERROR / opening, worth) >= LEAST_BOUND


def _bound(passed: int, cases: int, confidence: float, worth: float | None) -> float:
    """Clopper-Pearson at the number of independent cases, passes in proportion (Korn & Graubard 1998)."""
    if not cases:
        return 0.0
    independent = cases if worth is None else worth
    return lower_bound(passed * independent / cases, independent, confidence)


def more_needed(people: Paired) -> int:
    """Further messages, each unlike the others, with which they are worth the ten that a decision takes."""
    squares = people.cases**2 / people.worth if people.cases else 0.0  # of the sizes of what is alike
    worth = ((people.cases + more) ** 2 / (squares + more) for more in itertools.count(1))
    return next(more for more, enough in enumerate(worth, 1) if enough >= PEOPLES_CASES - 1e-9)
