"""The evaluation part of a report: scores per block and arm, and for every hop its statistics and flipped cases.

Statistics come from `compare_run`, the same numbers that `tunesmith compare` prints. Only finished steps count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import DONE, EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.core.stats import clustered_pass_rate_interval
from tunesmith.tools.evaluation.advice import goal_rate, prompt_advice
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.evaluation.comparison import GAINED, LOST, BlockComparison, BlockScore, Comparison, Flip
from tunesmith.tools.evaluation.evidence import Evidence, evidence_of
from tunesmith.tools.evaluation.pairing import Evaluations, cases_of, compare_run
from tunesmith.tools.evaluation.protocol import Key, Keys
from tunesmith.tools.evaluation.retained import GainRetained, gain_retained
from tunesmith.tools.evaluation.statistics import case_outcomes
from tunesmith.tools.suites.case import BLOCKS
from tunesmith.tools.suites.loading import newest_cases

_HOPS = (("base", "prompted"), ("base", "adapter"), ("adapter", "merged"), ("adapter", "quantized"))
_MAX_FLIPS = 200
"""A page that a person reads; the store and `compare` have all of them."""
_MAX_REASONS = 4
"""Of a judge or an assertion, for one case: the first ones tell."""


@dataclass(frozen=True, slots=True)
class Score(BlockScore):
    """What one arm passed of one block. Errors are no answers: they are outside the rate."""

    block: str
    arm: str
    low: float
    high: float
    rows: int
    """Seed rows that the judged cases were made from; as many as these where each has its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One arm's answer to one case."""

    sample: EvalResult
    """The first repeat that has the verdict of the whole."""
    passed: bool | None
    repeats: int
    cluster: str
    """The seed row that the case was made from; the case's own id where it was made from none, or nobody knows."""

    @property
    def block(self) -> str:
        return self.sample.block

    @property
    def reasons(self) -> list[str]:
        """Why it failed, one a failed assertion."""
        return [a.reason or a.type for a in self.sample.assertions if not a.passed][:_MAX_REASONS]


@dataclass(frozen=True, slots=True)
class FlippedCase:
    """A case whose verdict is another after a hop."""

    case_id: str
    before: Answer
    after: Answer
    question: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """Two neighbouring arms of the lineage, paired case by case."""

    a: str
    b: str
    comparison: Comparison | None
    """None where the two could not be compared."""
    problem: str
    lost: list[FlippedCase]
    """Passed before, does not any more; the first of `lost_count`."""
    gained: list[FlippedCase]
    lost_count: int
    gained_count: int
    """Blind cases included."""

    @property
    def blocks(self) -> Mapping[str, BlockComparison]:
        """Counts and verdict per block."""
        return self.comparison.blocks if self.comparison else {}


@dataclass(frozen=True, slots=True)
class KeyField:
    """One field of the comparability key, and its value in every arm."""

    name: str
    values: Mapping[str, JsonValue]
    same: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything a report says about quality."""

    arms: list[str]
    blocks: list[str]
    scores: dict[tuple[str, str], Score]
    hops: list[Hop]
    evidence: Mapping[str, Evidence]
    """Trained arm → the verdict on it against the base, and the controls."""
    net: Mapping[str, Comparison]
    """Arm → its comparison with the base."""
    answers: dict[str, dict[str, Answer]]
    """Arm → case → answer."""
    keys: list[KeyField]
    repeats: int
    takes_tools: bool = True
    """False where the base's chat template left out the tools that the suite offers."""
    advice: str = ""
    """What the prompted arm says about training at all; empty where it was not measured."""
    retained: Sequence[GainRetained] = ()
    """What merge and quantize left of the adapter's gain."""
    hidden: frozenset[str] = frozenset()
    """Blind cases that nobody opened: no text names them."""

    def score(self, block: str, arm: str) -> Score | None:
        """The score of an arm on a block, where it was run."""
        return self.scores.get((block, arm))

    def against_base(self, arm: str, block: str) -> BlockComparison | None:
        """What an arm came to on a block against the base, where the two were compared."""
        compared = self.net.get(arm)
        return compared.blocks.get(block) if compared else None

    @property
    def last_arm(self) -> str:
        """The arm at the end of the chain: quantized where it was evaluated; empty without any."""
        return next((arm for arm in reversed(self.arms) if arm != "prompted"), "")


def evaluation(store: Store, run: str) -> Evaluation:
    """Read the newest finished evaluation of every arm of a run, and compare its hops."""
    evaluations = Evaluations.of(store, run)
    newest = {arm: evaluations.of_arm(arm)[-1] for arm in evaluations.arms}
    keys = {arm: evaluations.keys[step][arm] for arm, step in newest.items()}
    answers = {
        arm: answered
        for arm, step in newest.items()
        if (answered := _answers(store, step, arm, _seed_rows(store, run, keys[arm])))
    }
    arms = list(answers)
    baselines = [step for step in store.steps(run, status=DONE) if step.stage == "baseline"]
    questions = _questions(store, run)
    blocks = {answer.block for by_case in answers.values() for answer in by_case.values()}
    net = {arm: compared for arm in arms if arm != "base" if (compared := _compare(store, run, "base", arm)[0])}
    return Evaluation(
        arms=arms,
        blocks=sorted(blocks, key=_block_order),
        scores=_scores(answers),
        hops=[_hop(store, run, pair, questions) for pair in _hop_pairs(arms)],
        evidence={arm: evidence_of(store, run, arm) for arm in arms if arm not in ("base", "prompted")},
        net=net,
        answers=answers,
        keys=_key_fields({arm: keys[arm] for arm in arms}),
        repeats=max((a.repeats for by_case in answers.values() for a in by_case.values()), default=1),
        takes_tools=all(step.report.get("takes_tools", True) for step in baselines[-1:]),
        advice=prompt_advice(rival, goal_rate(store, rival)) if (rival := net.get("prompted")) else "",
        retained=gain_retained(store, run),
        hidden=hidden_cases(store, run),
    )


def _block_order(block: str) -> tuple[int, str]:
    return (BLOCKS.index(block) if block in BLOCKS else len(BLOCKS), block)


def _seed_rows(store: Store, run: str, key: Key) -> dict[str, str]:
    """Case → the seed row that it was made from, in the suite that an arm answered; empty where that is gone."""
    try:
        return {case_id: case.cluster for case_id, case in cases_of(store, run, key.get("suite")).items()}
    except TunesmithError:
        return {}


def _answers(store: Store, step: str, arm: str, rows: Mapping[str, str] | None = None) -> dict[str, Answer]:
    by_case: dict[str, list[EvalResult]] = {}
    for result in store.results(step, arm):
        by_case.setdefault(result.case_id, []).append(result)
    outcomes = case_outcomes(result for repeats in by_case.values() for result in repeats)
    answers = {}
    for case_id, repeats in by_case.items():
        passed = outcomes[case_id].passed
        sample = next((r for r in repeats if r.passed is passed), repeats[0])
        answers[case_id] = Answer(sample, passed, len(repeats), (rows or {}).get(case_id, case_id))
    return answers


def _scores(answers: Mapping[str, Mapping[str, Answer]]) -> dict[tuple[str, str], Score]:
    scores = {}
    for arm, by_case in answers.items():
        for block in {answer.block for answer in by_case.values()}:
            asked = [answer for answer in by_case.values() if answer.block == block]
            graded = [answer for answer in asked if answer.passed is not None]
            passed, clusters = sum(answer.passed is True for answer in graded), [a.cluster for a in graded]
            low, high = clustered_pass_rate_interval(passed, clusters)
            counts = (len(asked), len(graded), passed, len(asked) - len(graded))
            scores[block, arm] = Score(*counts, block, arm, low, high, len(set(clusters)))
    return scores


def _hop_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """The hops of the chain; where the adapter was not evaluated, what it became is held against the base."""
    pairs = [(a, b) for a, b in _HOPS if a in arms and b in arms]
    if "adapter" not in arms:
        pairs += [("base", b) for b in ("merged", "quantized") if "base" in arms and b in arms]
    return pairs


def _compare(store: Store, run: str, a: str, b: str) -> tuple[Comparison | None, str]:
    """The comparison, or why there is none: a report of half a run is still a report."""
    try:
        return compare_run(store, run, a, b), ""
    except TunesmithError as error:
        return None, str(error)


def _hop(store: Store, run: str, pair: tuple[str, str], questions: Mapping[str, str]) -> Hop:
    a, b = pair
    comparison, problem = _compare(store, run, a, b)
    if comparison is None:
        return Hop(a, b, None, problem, [], [], 0, 0)
    lost, gained = comparison.flips_of(LOST), comparison.flips_of(GAINED)  # blind ones are counted alone
    counts = comparison.blocks.values()
    answers = {arm: _answers(store, step, arm) for arm, step in comparison.steps.items()}

    def visible(flips: Sequence[Flip]) -> list[FlippedCase]:
        ids = sorted((flip.case_id for flip in flips), key=lambda i: (_block_order(answers[a][i].block), i))
        return [FlippedCase(i, answers[a][i], answers[b][i], questions.get(i, "")) for i in ids[:_MAX_FLIPS]]

    return Hop(
        a,
        b,
        comparison,
        problem,
        visible(lost),
        visible(gained),
        sum(c.pass_to_fail for c in counts),
        sum(c.fail_to_pass for c in counts),
    )


def _key_fields(keys: Keys) -> list[KeyField]:
    """Every part of the comparability keys; those in which the arms differ come first."""
    fields = []
    for name in dict.fromkeys(name for key in keys.values() for name in key):
        values = {arm: key.get(name) for arm, key in keys.items()}
        first = next(iter(values.values()))
        fields.append(KeyField(name, values, all(value == first for value in values.values())))
    return sorted(fields, key=lambda f: f.same)


def _questions(store: Store, run: str) -> dict[str, str]:
    """Case → what was asked, from the suite that the baseline fixed; empty where that is gone."""
    cases = newest_cases(store, run)
    return {case.case_id: "\n\n".join(str(m.get("content", "")) for m in case.messages) for case in cases}
