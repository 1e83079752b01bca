"""The evaluation part of a report: scores per block and arm, and for every hop its statistics and flipped cases.

Statistics come from `compare_run`, the same numbers that `tunesmith compare` prints. Only finished steps count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import DONE, EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import ARMS
from tunesmith.tools.core.stats import clustered_pass_rate_interval
from tunesmith.tools.evaluation.comparison import cases_of, compare_run
from tunesmith.tools.evaluation.lineage import advice, goal_rate
from tunesmith.tools.evaluation.protocol import keys_of
from tunesmith.tools.evaluation.statistics import reduce_repeats
from tunesmith.tools.suites.case import BLOCKS
from tunesmith.tools.suites.loading import read_suite

_HOPS = (("base", "prompted"), ("base", "adapter"), ("adapter", "merged"), ("adapter", "quantized"))
_SHOWN_FLIPS = 200
_SHOWN_REASONS = 4


@dataclass(frozen=True, slots=True)
class Score:
    """What one arm passed of one block. Errors are no answers: they are outside the rate."""

    block: str
    arm: str
    cases: int
    passed: int
    errors: int
    low: float
    high: float
    rows: int
    """Seed rows that the graded cases were made from; as many as these where each has its own."""

    @property
    def graded(self) -> int:
        """Cases that got a verdict."""
        return self.cases - self.errors

    @property
    def rate(self) -> float | None:
        """Passed of graded; None where nothing was graded."""
        return self.passed / self.graded if self.graded else None


@dataclass(frozen=True, slots=True)
class Answer:
    """One arm's answer to one case: the repeat that shows its verdict."""

    arm: str
    block: str
    passed: bool | None
    output: str
    tool_calls: list[Any]
    reasons: list[str]
    """Why it failed, one a failed assertion."""
    finish_reason: str
    error: str | None
    repeats: int
    cluster: str
    """The seed row that the case was made from; the case's own id where it was made from none, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A case whose verdict is another after a hop."""

    case_id: str
    before: Answer
    after: Answer
    question: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """Two neighbouring arms of the chain of custody, paired case by case."""

    a: str
    b: str
    comparison: dict[str, Any]
    """As `tunesmith compare` prints it; empty where the two could not be compared."""
    problem: str
    lost: list[Flip]
    """Passed before, does not any more; the first of `lost_count`."""
    gained: list[Flip]
    lost_count: int
    gained_count: int

    @property
    def blocks(self) -> dict[str, Any]:
        """Counts and verdict per block."""
        blocks: dict[str, Any] = self.comparison.get("blocks", {})
        return blocks


@dataclass(frozen=True, slots=True)
class KeyField:
    """One field of the comparability key, and its value in every arm."""

    name: str
    values: dict[str, Any]
    same: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything a report says about quality."""

    arms: list[str]
    blocks: list[str]
    scores: dict[tuple[str, str], Score]
    hops: list[Hop]
    net: dict[str, dict[str, Any]]
    """Arm → its comparison with the base."""
    answers: dict[str, dict[str, Answer]]
    """Arm → case → answer."""
    keys: list[KeyField]
    repeats: int
    takes_tools: bool = True
    """False where the base's chat template left out the tools that the suite offers."""
    advice: str = ""
    """What the prompted arm says about training at all; empty where it was not measured."""

    def score(self, block: str, arm: str) -> Score | None:
        """The score of an arm on a block, where it was run."""
        return self.scores.get((block, arm))

    @property
    def last_arm(self) -> str:
        """The arm at the end of the chain: quantized where it was evaluated; empty without any."""
        return next((arm for arm in reversed(self.arms) if arm != "prompted"), "")


def evaluation(store: Store, run: str) -> Evaluation:
    """Read the newest finished evaluation of every arm of a run, and compare its hops."""
    steps = [step for step in store.steps(run, status=DONE) if keys_of(step)]
    newest = {arm: step for step in steps for arm in keys_of(step)}
    rows = {arm: _seed_rows(store, run, keys_of(step)[arm]) for arm, step in newest.items()}
    answers = {
        arm: found for arm in ARMS if arm in newest if (found := _answers(store, newest[arm].id, arm, rows[arm]))
    }
    arms, baselines = list(answers), [step for step in steps if step.stage == "baseline"]
    questions = _questions(store, run)
    blocks = {answer.block for by_case in answers.values() for answer in by_case.values()}
    net = {arm: found for arm in arms if arm != "base" if (found := _compare(store, run, "base", arm)[0])}
    return Evaluation(
        arms=arms,
        blocks=sorted(blocks, key=_block_order),
        scores=_scores(answers),
        hops=[_hop(store, run, pair, questions) for pair in _hop_pairs(arms)],
        net=net,
        answers=answers,
        keys=_key_fields({arm: dict(keys_of(newest[arm])[arm]) for arm in arms}),
        repeats=max((a.repeats for by_case in answers.values() for a in by_case.values()), default=1),
        takes_tools=all((step.result or {}).get("takes_tools", True) for step in baselines[-1:]),
        advice=advice(rival, goal_rate(store, rival)) if (rival := net.get("prompted")) else "",
    )


def _block_order(block: str) -> tuple[int, str]:
    return (BLOCKS.index(block) if block in BLOCKS else len(BLOCKS), block)


def _seed_rows(store: Store, run: str, key: Mapping[str, Any]) -> dict[str, str]:
    """Case → the seed row that it was made from, in the suite that an arm answered; empty where that is gone."""
    try:
        return {case_id: case.cluster for case_id, case in cases_of(store, run, key.get("suite")).items()}
    except TunesmithError:
        return {}


def _answers(store: Store, step: str, arm: str, rows: Mapping[str, str] | None = None) -> dict[str, Answer]:
    by_case: dict[str, list[EvalResult]] = {}
    for result in store.results(step, arm):
        by_case.setdefault(result.case_id, []).append(result)
    verdicts = reduce_repeats([asdict(r) for repeats in by_case.values() for r in repeats])
    return {
        case_id: _answer(repeats, verdicts[case_id].passed, (rows or {}).get(case_id, case_id))
        for case_id, repeats in by_case.items()
    }


def _answer(repeats: Sequence[EvalResult], passed: bool | None, cluster: str) -> Answer:
    """The answer to show is the first that has the verdict of the whole."""
    shown = next((r for r in repeats if r.passed is passed), repeats[0])
    failed = [a for a in shown.assertions if not a.get("passed")]
    reasons = [str(a.get("reason") or a.get("type") or "failed") for a in failed]
    return Answer(
        arm=shown.arm,
        block=shown.block,
        passed=passed,
        output=shown.output,
        tool_calls=shown.tool_calls,
        reasons=reasons[:_SHOWN_REASONS],
        finish_reason=shown.finish_reason,
        error=shown.error,
        repeats=len(repeats),
        cluster=cluster,
    )


def _scores(answers: Mapping[str, Mapping[str, Answer]]) -> dict[tuple[str, str], Score]:
    scores = {}
    for arm, by_case in answers.items():
        for block in {answer.block for answer in by_case.values()}:
            asked = [answer for answer in by_case.values() if answer.block == block]
            graded = [answer for answer in asked if answer.passed is not None]
            passed, clusters = sum(answer.passed is True for answer in graded), [a.cluster for a in graded]
            low, high = clustered_pass_rate_interval(passed, clusters)
            errors, rows = len(asked) - len(graded), len(set(clusters))
            scores[block, arm] = Score(block, arm, len(asked), passed, errors, low, high, rows)
    return scores


def _hop_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """The hops of the chain; where the adapter was not evaluated, what it became is held against the base."""
    pairs = [(a, b) for a, b in _HOPS if a in arms and b in arms]
    if "adapter" not in arms:
        pairs += [("base", b) for b in ("merged", "quantized") if "base" in arms and b in arms]
    return pairs


def _compare(store: Store, run: str, a: str, b: str) -> tuple[dict[str, Any], str]:
    """The comparison, or why there is none: a report of half a run is still a report."""
    try:
        return compare_run(store, run, a, b), ""
    except TunesmithError as error:
        return {}, str(error)


def _hop(store: Store, run: str, pair: tuple[str, str], questions: Mapping[str, str]) -> Hop:
    a, b = pair
    comparison, problem = _compare(store, run, a, b)
    flips = comparison.get("flips", [])
    lost = [flip for flip in flips if flip["flip"] == "pass_to_fail"]
    gained = [flip for flip in flips if flip["flip"] == "fail_to_pass"]
    answers = {arm: _answers(store, step, arm) for arm, step in comparison.get("steps", {}).items()}

    def shown(some: Sequence[Mapping[str, Any]]) -> list[Flip]:
        ids = sorted((str(flip["case_id"]) for flip in some), key=lambda i: (_block_order(answers[a][i].block), i))
        return [Flip(i, answers[a][i], answers[b][i], questions.get(i, "")) for i in ids[:_SHOWN_FLIPS]]

    return Hop(a, b, comparison, problem, shown(lost), shown(gained), len(lost), len(gained))


def _key_fields(keys: Mapping[str, Mapping[str, Any]]) -> list[KeyField]:
    """Every part of the comparability keys; those in which the arms differ come first."""
    fields = []
    for name in dict.fromkeys(name for key in keys.values() for name in key):
        values = {arm: key.get(name) for arm, key in keys.items()}
        first = next(iter(values.values()))
        fields.append(KeyField(name, values, all(value == first for value in values.values())))
    return sorted(fields, key=lambda f: f.same)


def _questions(store: Store, run: str) -> dict[str, str]:
    """Case → what was asked, from the suite that the baseline fixed; empty where that is gone."""
    suites = store.artifacts(run, "suite")
    if not suites:
        return {}
    try:
        suite = read_suite(suites[-1].path)
    except (OSError, ValueError):
        return {}
    return {case.case_id: "\n\n".join(str(m.get("content", "")) for m in case.messages) for case in suite.cases}
