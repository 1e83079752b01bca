"""What passed: every arm's score on every block, the verdict on it, and how fast it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tunesmith.agent.queries.answer import Context, find
from tunesmith.agent.queries.facts import AnyArm, AnyBlock, Fact, Query, Result, RunName
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound, TunesmithError
from tunesmith.memory.records import DONE, EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed
from tunesmith.tools.evaluation.comparison import WORSE, Comparison
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.evaluation.peoples_cases import least_right
from tunesmith.tools.evaluation.retained import gain_retained
from tunesmith.tools.suites.case import BLOCKS

TUNED = ("adapter", "merged", "quantized")
CUT_OFF = "length"
"""How an answer ended that may have no more tokens."""


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
    cut_off: int = 0
    """Answers that ended at the most tokens that they may have."""
    answer_seconds: float | None = None
    """Median, where many are asked for at once."""
    answer_tokens: int | None = None

    @property
    def rate(self) -> float:
        """The share that passed of those that were judged."""
        return self.passed / self.judged if self.judged else 0.0

    def __str__(self) -> str:
        return f"{self.passed} of {self.judged}"


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


def unmeasured(store: Store, run: Run, arm: str, block: str = "") -> NotFound:
    """The error of an arm or a block without answers, with those that have some."""
    arms = listed(arms_measured(store, run.id)) or "none"
    blocks = listed([*dict.fromkeys(score.block for score in of_run(store, run.id))]) or "none"
    of, on = f" of the {arm} arm" if arm else "", f" on the {block} block" if block else ""
    return NotFound(f"{run.id} has no answers{of}{on}; measured arms: {arms}; measured blocks: {blocks}.")


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
    own = (artifact.id for artifact in store.artifacts(one.run, "suite") if artifact.step == step)
    return one.inputs.get("suite") or next(own, "")


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
    chosen = {
        (block, arm): of_block
        for block in BLOCKS
        for arm, given in answered.items()
        if (of_block := [one for one in given if one.block == block])
    }
    return [
        _score(run, arm, block, step_of(store, run, arm, suites[arm]), given) for (block, arm), given in chosen.items()
    ]


def _score(run: str, arm: str, block: str, step: str, given: Sequence[EvalResult]) -> Score:
    judged = [one for one in given if one.passed is not None]
    timed = [one for one in given if one.completion_tokens]
    return Score(
        run, arm, block, step, sum(bool(one.passed) for one in judged), len(judged), len(given) - len(judged),
        sum(one.finish_reason == CUT_OFF for one in given),
        median(one.latency_ms for one in timed) / 1000 if timed else None,
        round(median(one.completion_tokens for one in timed)) if timed else None,
    )  # fmt: skip


# The verdict, in the words of the one rule


def verdict_fact(store: Store, run: str, arm: str = "") -> Fact:
    """The verdict on a tuned arm, else on the last that was measured, with people's cases; empty where none was."""
    arm = arm if arm in TUNED else last_arm(store, run)
    if not step_of(store, run, arm) or arm not in TUNED:
        return {}
    verdict = evidence_of(store, run, arm).verdict
    counted: Fact = {} if (people := verdict.people) is None else {
        "cases_of_people": people.cases, "right": people.arm, "right_of_base": people.base,
        "learned_takes": least_right(people.cases, verdict.opening, people.worth),
    }  # fmt: skip
    return {"verdict_on": arm, "verdict": verdict.word, **counted}


def verdict_says(store: Store, run: str, arm: str) -> str:
    """The sentence of the verdict on an arm."""
    return f"{evidence_of(store, run, arm).verdict.sentence}."


def block_facts(compared: Comparison, worse: Sequence[str] = ()) -> Mapping[str, Fact]:
    """Block → what was gained and lost between two arms, by the exact test; worse too where the verdict says so."""
    fallen = {line.partition(" ")[0] for line in worse}
    return {
        name: {
            "gained": counts.fail_to_pass,
            "lost": counts.pass_to_fail,
            "p_value": counts.p_value,
            "verdict": WORSE if name in fallen else counts.verdict,
        }
        for name, counts in compared.blocks.items()
        if compared.comparable
    }


def against_base(store: Store, run: str, arm: str) -> Mapping[str, Fact]:
    """Block → what an arm gained and lost against the base; empty where one of them was not measured alike."""
    try:
        compared = compare_run(store, run, "base", arm)
    except TunesmithError:  # one was never evaluated, or its suite is gone
        return {}
    return block_facts(compared, evidence_of(store, run, arm).verdict.worse if arm in TUNED else ())


# What is asked of them


class ResultQuery(Query):
    """What a run's models pass, the verdict, gains and losses, speed of answers."""

    kind: Literal["result"] = "result"
    run: RunName = ""
    arm: AnyArm = ""
    block: AnyBlock = ""


def answer(query: ResultQuery, context: Context) -> Result:
    """Every score, or those of an arm or a block. Raises NotFound where there is none."""
    store, run = context.store, evaluated_run(context, query.run, arm=query.arm)
    scores = [one for one in of_run(store, run.id) if query.arm in ("", one.arm) and query.block in ("", one.block)]
    if not scores:
        raise unmeasured(store, run, query.arm, query.block)
    beside = {
        arm: against_base(store, run.id, arm) for arm in dict.fromkeys(one.arm for one in scores) if arm != "base"
    }
    verdict = verdict_fact(store, run.id, query.arm)
    says = [verdict_says(store, run.id, str(verdict["verdict_on"]))] if verdict else []
    says += [f"{one.sentence}." for one in gain_retained(store, run.id) if query.arm in ("", one.arm)]
    return Result(
        tuple(_fact(one, beside.get(one.arm, {}).get(one.block, _NOTHING)) for one in scores),
        {"run": run.id, "name": run.name, "arm": query.arm, "block": query.block,
         "suite": suite_of(store, scores[-1].step), **verdict},
        says=tuple(says),
    )  # fmt: skip


_NOTHING: Fact = dict.fromkeys(("gained", "lost", "p_value", "verdict"))


def _fact(one: Score, beside_base: Fact) -> Fact:
    return {
        "block": one.block, "arm": one.arm, "passed": one.passed, "judged": one.judged,
        "share": one.rate if one.judged else None, "errors": one.errors or None,
        "answers_cut_off": one.cut_off or None, **beside_base,
        "answer_seconds": one.answer_seconds, "answer_tokens": one.answer_tokens, "step": one.step,
    }  # fmt: skip
