"""Gain retained: of the target cases that the adapter won over the base, how many a model made from it still passes.

A case was won where the base fails and the adapter passes, both by the answers that count for their comparison. Cases
that a later model passes and the adapter did not are not set against those that it lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.memory.arms import CHAIN
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.store import Store
from tunesmith.tools.core.stats import clustered_pass_rate_interval
from tunesmith.tools.evaluation.comparison import CaseOutcome, Interval, Json
from tunesmith.tools.evaluation.pairing import Evaluations, cases_of, compare_run
from tunesmith.tools.evaluation.statistics import case_outcomes
from tunesmith.tools.suites.case import PRIMARY_BLOCK


@dataclass(frozen=True, slots=True)
class GainRetained:
    """What one arm kept of the adapter's gain."""

    arm: str
    won: int
    """Cases that the adapter won over the base, and that this arm answered."""
    passed: int
    """Of these, those that it passes."""
    interval: Interval
    """Of the share, 95 %; cases of one seed row count as one where they agree."""

    @property
    def share(self) -> float:
        """Passed of won."""
        return self.passed / self.won

    @property
    def sentence(self) -> str:
        """The number with its interval."""
        low, high = self.interval
        return (
            f"{self.arm} keeps {self.passed} of the {self.won} target cases that the adapter won over the base "
            f"({self.share:.0%}, 95 % interval {low:.0%} to {high:.0%})"
        )

    def to_json(self) -> Json:
        """As `compare` and the report print it."""
        return {
            "arm": self.arm,
            "won": self.won,
            "kept": self.passed,
            "interval": list(self.interval),
            "share": self.share,
        }


def gain_retained(store: Store, run: str) -> tuple[GainRetained, ...]:
    """What every evaluated arm after the adapter kept, the earlier hop first; none where the adapter won nothing."""
    after = CHAIN[CHAIN.index("adapter") + 1 :]
    return tuple(gain for arm in after if (gain := _retained(store, run, arm)))


def _retained(store: Store, run: str, arm: str) -> GainRetained | None:
    """None where one of the three was not evaluated, or may not be compared with the next."""
    try:
        gained, hop = compare_run(store, run, "base", "adapter"), compare_run(store, run, "adapter", arm)
        suite = Evaluations.of(store, run).keys[hop.steps[arm]][arm].get("suite")
        cases = cases_of(store, run, suite)
    except TunesmithError:  # one of them was never evaluated
        return None
    if not (gained.comparable and hop.comparable):
        return None
    steps = {"base": gained.steps["base"], "adapter": hop.steps["adapter"], arm: hop.steps[arm]}
    base, adapter, later = (case_outcomes(store.results(step, name), cases) for name, step in steps.items())

    def passed(outcomes: dict[str, CaseOutcome], case_id: str) -> bool | None:
        return outcomes[case_id].passed if case_id in outcomes else None

    won = [
        case_id
        for case_id, outcome in adapter.items()
        if outcome.block == PRIMARY_BLOCK
        and outcome.passed
        and passed(base, case_id) is False
        and passed(later, case_id) is not None
    ]
    if not won:
        return None
    retained = sum(passed(later, case_id) is True for case_id in won)
    interval = clustered_pass_rate_interval(retained, [adapter[case_id].cluster for case_id in won])
    return GainRetained(arm, len(won), retained, interval)
