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


def step_of(store: Store, run: str, arm: str, suite: str = "") -> str:
    """The newest finished step that holds answers of an arm, to the cases of `suite` where one is named; else empty.

    The base's own are those that stand beside the tuned arm, as `compare` takes them.
    """
    return next((step for step in _steps(store, run, arm) if not suite or suite_of(store, step) in ("", suite)), "")


def _steps(store: Store, run: str, arm: str = "") -> list[str]:
    """The finished steps with answers of an arm, or of any tuned one, the newest first."""
    arms = "e.arm = ?" if arm else "e.arm IN ('adapter', 'merged', 'quantized') AND ? = ''"
    rows = store.read(
        "SELECT DISTINCT e.step FROM eval_results e JOIN steps s ON s.step = e.step AND s.status = ?"
        f" WHERE e.run = ? AND {arms} ORDER BY CAST(substr(e.step, 2) AS INTEGER) DESC",
        DONE,
        run,
        arm,
    )
    return [str(row["step"]) for row in rows]


def suite_of(store: Store, step: str) -> str:
    """The suite whose cases a step asked: the one that it was given, or made."""
    one = store.step(step)
    made = (artifact.id for artifact in store.artifacts(one.run, "suite") if artifact.step == step)
    return one.inputs.get("suite") or next(made, "")


def results(store: Store, run: str, arm: str, suite: str = "") -> list[EvalResult]:
    """The newest answers of an arm, to a suite where one is named, one a case: of repeats the one with the verdict."""
    step = step_of(store, run, arm, suite)
    by_case: dict[str, list[EvalResult]] = {}
    for result in store.results(step, arm) if step else []:
        by_case.setdefault(result.case_id, []).append(result)
    return [_reduced(given) for given in by_case.values()]


def _reduced(given: list[EvalResult]) -> EvalResult:
    answered = [one for one in given if one.passed is not None]
    passed = sum(bool(one.passed) for one in answered) * 2 > len(answered)
    return next((one for one in answered if one.passed == passed), given[0])


def of_run(store: Store, run: str) -> list[Score]:
    """Every score of a run, block by block in the order of the arms.

    All to the cases of one suite: that of the newest evaluation of a tuned arm, beside which counts can be held. An arm
    that was never asked these stands with its own.
    """
    scores = []
    newest = next((suite_of(store, step) for step in _steps(store, run)), "")
    suites = {arm: newest if step_of(store, run, arm, newest) else "" for arm in ARMS}
    answered = {arm: results(store, run, arm, suites[arm]) for arm in ARMS}
    for block in BLOCKS:
        for arm, given in answered.items():
            of_block = [one for one in given if one.block == block]
            if of_block:
                judged = [one for one in of_block if one.passed is not None]
                passed = sum(bool(one.passed) for one in judged)
                scores.append(
                    Score(
                        arm,
                        block,
                        step_of(store, run, arm, suites[arm]),
                        passed,
                        len(judged),
                        len(of_block) - len(judged),
                    )
                )
    return scores
