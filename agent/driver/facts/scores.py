"""What every arm passed of every block, by its newest finished evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.memory.arms import ARMS
from tunesmith.memory.records import DONE, EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.suites.case import BLOCKS


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one arm on one block; an error is no failure and outside the rate."""

    arm: str
    block: str
    step: str
    passed: int
    judged: int
    errors: int

    @property
    def told(self) -> str:
        """As it is said: `76 of 87 (87%)`."""
        share = f" ({self.passed / self.judged:.0%})" if self.judged else ""
        erred = f", {self.errors} error{'s' if self.errors > 1 else ''}" if self.errors else ""
        return f"{self.passed} of {self.judged}{share}{erred}"


def step_of(store: Store, run: str, arm: str) -> str:
    """The newest finished step that holds answers of an arm; empty where there is none.

    The base's own are those that stand beside the tuned arm, as `compare` takes them.
    """
    rows = store.read(
        "SELECT DISTINCT e.step FROM eval_results e JOIN steps s ON s.step = e.step AND s.status = ?"
        " WHERE e.run = ? AND e.arm = ? ORDER BY CAST(substr(e.step, 2) AS INTEGER) DESC LIMIT 1",
        DONE,
        run,
        arm,
    )
    return str(rows[0]["step"]) if rows else ""


def results(store: Store, run: str, arm: str) -> list[EvalResult]:
    """The newest answers of an arm, one a case: of repeats the one that shows the verdict."""
    step = step_of(store, run, arm)
    by_case: dict[str, list[EvalResult]] = {}
    for result in store.results(step, arm) if step else []:
        by_case.setdefault(result.case_id, []).append(result)
    return [_reduced(given) for given in by_case.values()]


def _reduced(given: list[EvalResult]) -> EvalResult:
    answered = [one for one in given if one.passed is not None]
    passed = sum(bool(one.passed) for one in answered) * 2 > len(answered)
    return next((one for one in answered if one.passed == passed), given[0])


def of_run(store: Store, run: str) -> list[Score]:
    """Every score of a run, block by block in the order of the arms."""
    scores = []
    answered = {arm: results(store, run, arm) for arm in ARMS}
    for block in BLOCKS:
        for arm, given in answered.items():
            of_block = [one for one in given if one.block == block]
            if of_block:
                judged = [one for one in of_block if one.passed is not None]
                passed = sum(bool(one.passed) for one in judged)
                scores.append(
                    Score(arm, block, step_of(store, run, arm), passed, len(judged), len(of_block) - len(judged))
                )
    return scores
