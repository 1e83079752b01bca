"""What every arm passed of every block, by its newest finished evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.agent.queries.answer import Context, find
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.retained import gain_retained
from tunesmith.tools.suites.case import BLOCKS

TUNED = ("adapter", "merged", "quantized")


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one arm on one block; an error is no failure and outside the rate."""

    run: str
    arm: str
    block: str
    step: str
    passed: int
    judged: int
    errors: int

    @property
    def rate(self) -> float:
        """The share that passed of those that were judged."""
        return self.passed / self.judged if self.judged else 0.0

    def __str__(self) -> str:
        share = f" ({self.rate:.0%})" if self.judged else ""
        erred = f", {self.errors} error{'s' if self.errors > 1 else ''}" if self.errors else ""
        return f"{self.passed} of {self.judged}{share}{erred}"


def evaluated_run(context: Context, name: str, *, arm: str = "") -> Run:
    """The run that is meant: where none is named, the newest with measured answers. Raises NotFound."""
    if name:
        return find(context.store, name)
    tuned = "arm IN ('adapter', 'merged', 'quantized')"
    for wanted in ["1"] if arm == "base" else [tuned, "1"]:
        for run in context.runs():
            if context.store.read(f"SELECT 1 FROM eval_results WHERE run = ? AND {wanted} LIMIT 1", run.id):
                return run
    raise NotFound("Nothing was measured yet: no run has a baseline or an evaluation.")


def arms_measured(store: Store, run: str) -> list[str]:
    """The arms with answers, in the order of the pipeline."""
    return [arm for arm in ARMS if step_of(store, run, arm)]


def last_arm(store: Store, run: str) -> str:
    """The last tuned arm that was measured, else the last measured one, else the adapter."""
    arms = arms_measured(store, run)
    return ([arm for arm in arms if arm in TUNED] or arms or ["adapter"])[-1]


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
    """The suite whose cases a step asked: the one that it was given, or made; empty for no step."""
    if not step:
        return ""
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

    All to the cases of one suite: that of the newest evaluation of a tuned arm, with which counts can be compared. An
    arm that was never asked these has its own.
    """
    newest = next((suite_of(store, step) for step in _steps(store, run)), "")
    suites = {arm: newest if step_of(store, run, arm, newest) else "" for arm in ARMS}
    answered = {arm: results(store, run, arm, suites[arm]) for arm in ARMS}
    found = []
    for block in BLOCKS:
        for arm, given in answered.items():
            of_block = [one for one in given if one.block == block]
            judged = [one for one in of_block if one.passed is not None]
            passed, errors = sum(bool(one.passed) for one in judged), len(of_block) - len(judged)
            step = step_of(store, run, arm, suites[arm]) if of_block else ""
            found += [Score(run, arm, block, step, passed, len(judged), errors)] if of_block else []
    return found


def kept_of_the_gain(store: Store, run: str, arm: str) -> str:
    """What a merged or quantized model kept of what the adapter won, in passed cases; else empty."""
    if arm not in ("merged", "quantized"):
        return ""
    kept = next((one for one in gain_retained(store, run) if one.arm == arm), None)
    return f"{arm} keeps {kept.kept} of the {kept.won} target cases that the adapter won." if kept else ""
