"""Two arms, case by case: what flipped, whether chance explains it, and one of four words for it.

The rule, block by block, at alpha = .05, on the cases that both arms answered:

- target and adversarial: exact McNemar. p < alpha is "better" or "worse", by the side the flips fall on; else
  "no decision".
- general and tools must only not get worse. "better" and "worse" as above. Else "not worse" when Tango's one-sided
  lower bound of (b - a) lies above -margin (5 points), OR when not one case flipped from pass to fail.
  Else "no decision". The second way is a rule, not a proof: under about 52 cases even no flip at all cannot bound
  the loss below 5 points, and calling such a result undecided would help nobody. `lower_bound` is always shown.
- The target is what the comparison is about, so it is tested at alpha itself. A gain on any other block is looked for
  beside it: there "better" asks for p < alpha after Holm's correction over those blocks (`p_adjusted`). A loss is not
  excused by having looked at several blocks: "worse" goes by p.
- Cases made from one seed row (`cluster`) are no independent evidence: they flip together. With such clusters the
  test is the exact one on clusters, and the bounds allow for cases of one row that always agree. Knowing of clusters
  never makes a verdict more certain: of both tests and both intervals, the more careful one counts.
- Too many errors (over 5 % of an arm's cases, missing ones included), or arms that differ in more than what is
  under test, are "no decision" whatever the counts say.

An error is no failure: a case with an error on either side is left out of the pair, and counted. Repeats of a
case are reduced first: passed when more than half of its answers passed, score the mean. Metrics that a suite names
are compared by their scores, with Holm's correction over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tunesmith.memory.arms import PASSED_SHARE
from tunesmith.memory.records import EvalResult
from tunesmith.tools.core.stats import (
    ALPHA,
    MAX_ERROR_SHARE,
    clustered_difference_interval,
    clustered_pass_rate_interval,
    holm,
    mcnemar_clustered,
    mcnemar_exact,
    mcnemar_mid_p,
    minimum_detectable_effect,
    paired_bootstrap,
    paired_difference_interval,
    sign_flip_test,
)
from tunesmith.tools.evaluation.comparison import (
    BETTER,
    ERRED,
    GAINED,
    LOST,
    NO_DECISION,
    NOT_WORSE,
    WORSE,
    BlockComparison,
    CaseOutcome,
    Comparison,
    Flip,
    FlipKind,
    Interval,
    MetricComparison,
    ScoreComparison,
    Word,
)
from tunesmith.tools.evaluation.protocol import Keys, differences
from tunesmith.tools.suites.case import BLOCKS, GUARDED_BLOCKS, PRIMARY_BLOCK, Case
from tunesmith.tools.suites.grading import total

MARGIN = 0.05
"""Share of cases that may be lost: to tell five points takes some 470 cases, fewer points many more."""
UNDER_TEST: Collection[str] = frozenset({"adapter", "weights"})
_ORDER: tuple[FlipKind, ...] = (LOST, GAINED, ERRED)


def compare_arms(
    outcomes_a: Iterable[CaseOutcome],
    outcomes_b: Iterable[CaseOutcome],
    arms: tuple[str, str],
    keys: Keys,
    *,
    allowed: Collection[str] = UNDER_TEST,
) -> Comparison:
    """What the outcomes of two arms say of them; whose evaluations those were is `pairing`'s to add.

    A missing answer needs no outcome. `keys` maps each arm to its comparability key; the parts in `allowed` are under
    test and may differ.
    """
    a, b = arms
    left, right = ({outcome.case_id: outcome for outcome in outcomes} for outcomes in (outcomes_a, outcomes_b))
    differing = differences(keys[a], keys[b], allowed)
    present = [outcome.block for outcome in (*left.values(), *right.values())]
    names = [name for name in dict.fromkeys((*BLOCKS, *present)) if name in present]
    counted = {name: _Counts.of(_pairs(left, right, name)) for name in names}
    # The primary block is the one claim that was made beforehand; of the others any may look worse by chance.
    adjusted = holm({name: counts.p_value for name, counts in counted.items() if name != PRIMARY_BLOCK})
    blocks = {
        name: _block(name, arms, counts, adjusted.get(name, counts.p_value), not differing)
        for name, counts in counted.items()
    }
    return Comparison(
        run="",
        steps={},
        arms=(a, b),
        differs_in=tuple(differing),
        refused=_refusal(arms, keys, differing),
        blocks=blocks,
        metrics=_metrics(arms, left, right),
        flips=_flips(left, right),
        alpha=ALPHA,
        margin=MARGIN,
        precision_changes=_precision_changes(arms, keys),
    )


def _precision_changes(arms: tuple[str, str], keys: Keys) -> str:
    """From what to what, where the later arm is not the one that is quantized; empty where nothing changes."""
    was, now = (keys[arm].get("precision") for arm in arms)
    if arms[1] == "quantized" or was is None or now is None or was == now:
        return ""
    return f"{was} → {now}"


def _refusal(arms: tuple[str, str], keys: Keys, differing: Sequence[str]) -> str:
    """Why there is no verdict: each difference with both values; empty where there is none."""
    if not differing:
        return ""
    a, b = arms
    values = "; ".join(f"{name}: {_clip(keys[a].get(name))} against {_clip(keys[b].get(name))}" for name in differing)
    return f"{a} and {b} differ in more than what is under test ({values}); evaluate both again under the same settings"


def _clip(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"  # several stand in one sentence


_NO_CASES: Mapping[str, Case] = {}


def case_outcomes(results: Iterable[EvalResult], cases: Mapping[str, Case] = _NO_CASES) -> dict[str, CaseOutcome]:
    """One outcome a case: repeats that erred are dropped while another answered; passed by more than half.

    Seed rows and named metrics are those of `cases`, where they are given.
    """
    grouped: dict[str, list[EvalResult]] = {}
    for result in results:
        grouped.setdefault(result.case_id, []).append(result)
    return {case_id: _outcome(case_id, group, cases.get(case_id)) for case_id, group in grouped.items()}


def _outcome(case_id: str, group: Sequence[EvalResult], case: Case | None) -> CaseOutcome:
    answered = [result for result in group if not result.error and result.passed is not None]
    block, cluster = group[0].block or PRIMARY_BLOCK, case.cluster if case else case_id
    if not answered:
        error = next((result.error for result in group if result.error), "no grade was stored")
        return CaseOutcome(case_id, block, None, 0.0, error, cluster)
    passes = sum(bool(result.passed) for result in answered)
    score = _mean([float(bool(r.passed)) if r.score is None else r.score for r in answered])
    named = [_named_scores(case, result) for result in answered] if case and names_metrics(case) else []
    metrics = {
        name: _mean([scores[name] for scores in named if name in scores])
        for name in dict.fromkeys(name for scores in named for name in scores)
    }
    # Most of its repeats: of a case that is asked once, its one answer.
    return CaseOutcome(case_id, block, passes / len(answered) > PASSED_SHARE, score, None, cluster, metrics)


def _named_scores(case: Case, result: EvalResult) -> Mapping[str, float]:
    """Of the stored verdicts; none where the case was changed since."""
    if [entry.type for entry in result.assertions] != case.assertion_types:
        return {}
    return total(case, result.assertions).named_scores


def names_metrics(case: Case) -> bool:
    """Whether the case's assertions give scores to metrics of their own."""
    return any(a.metric for assertion in case.assertions for a in (assertion, *assertion.children))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


Pair = tuple[CaseOutcome | None, CaseOutcome | None]
Judged = Sequence[tuple[CaseOutcome, CaseOutcome]]


def _pairs(left: Mapping[str, CaseOutcome], right: Mapping[str, CaseOutcome], block: str) -> list[Pair]:
    """The block's cases, each with both results; None where an arm was never asked."""
    ids = dict.fromkeys((*left, *right))
    pairs = ((left.get(case_id), right.get(case_id)) for case_id in ids)
    # mypy does not see that one of both is there: the id came from one of them.
    return [(a, b) for a, b in pairs if (a or b).block == block]  # type: ignore[union-attr]


@dataclass(frozen=True)
class _Counts:
    """One block's pairs counted: the flips, and the p-value of the exact test on them."""

    pairs: Sequence[Pair]
    judged: Judged
    gained: int
    lost: int
    p_value: float
    clusters: int
    """Seed rows that the judged cases were made from; as many as cases where each has its own."""

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> _Counts:
        judged = [(a, b) for a, b in pairs if a and b and a.passed is not None and b.passed is not None]
        gained = sum(bool(b.passed and not a.passed) for a, b in judged)
        lost = sum(bool(a.passed and not b.passed) for a, b in judged)
        net: dict[str, int] = {}
        for a, b in judged:
            net[a.cluster] = net.get(a.cluster, 0) + bool(b.passed) - bool(a.passed)
        # Flips of one row that cancel out leave the clusters' test: it may then be the more certain of the two.
        p_value = max(mcnemar_exact(gained, lost), mcnemar_clustered(net.values()))
        return cls(pairs, judged, gained, lost, p_value, len(net))

    @property
    def clustered(self) -> bool:
        return self.clusters < len(self.judged)

    def bounds(self, confidence: float) -> tuple[float, float]:
        """Interval of the difference in pass rate: Tango's, or with clusters one that allows for them."""
        if not self.clustered:
            return paired_difference_interval(len(self.judged), self.gained, self.lost, confidence)
        differences = [float(bool(b.passed)) - float(bool(a.passed)) for a, b in self.judged]
        return clustered_difference_interval(differences, [a.cluster for a, _ in self.judged], confidence)

    def rate_interval(self, passed: int) -> tuple[float, float]:
        """Interval of one arm's pass rate."""
        return clustered_pass_rate_interval(passed, [a.cluster for a, _ in self.judged])


def _block(name: str, arms: tuple[str, str], counts: _Counts, p_adjusted: float, comparable: bool) -> BlockComparison:
    pairs, judged = counts.pairs, counts.judged
    bound = counts.bounds(1 - 2 * ALPHA)[0]  # one-sided, at 1 - ALPHA
    # Ignored: mypy does not see that the `and` asks first whether the case was asked at all.
    errors = {arm: sum(not (pair[i] and pair[i].passed is not None) for pair in pairs) for i, arm in enumerate(arms)}  # type: ignore[union-attr]
    verdict, why = _verdict(name, counts, p_adjusted, bound)
    obstacle = _obstacle(len(judged), max(errors.values()), len(pairs), comparable)
    if obstacle:
        verdict, why = NO_DECISION, obstacle
    passed = {arm: sum(bool(pair[i].passed) for pair in judged) for i, arm in enumerate(arms)}
    effect = minimum_detectable_effect(len(judged), ALPHA, rows=counts.clusters)
    return BlockComparison(
        cases=len(pairs),
        passed=passed,
        errors=errors,
        fail_to_pass=counts.gained,
        pass_to_fail=counts.lost,
        p_value=counts.p_value,
        verdict=verdict,
        reason=why,
        tested=not obstacle,
        p_adjusted=p_adjusted,
        judged=len(judged),
        clusters=counts.clusters,
        difference=(counts.gained - counts.lost) / len(judged) if judged else None,
        interval=counts.bounds(1 - ALPHA) if judged else None,
        lower_bound=bound if judged else None,
        pass_rate_intervals={arm: counts.rate_interval(passed[arm]) for arm in arms},
        detectable=effect if math.isfinite(effect) else None,
        scores=_scores(arms, judged),
        mid_p_value=mcnemar_mid_p(counts.gained, counts.lost),
    )


def _obstacle(judged: int, errors: int, cases: int, comparable: bool) -> str:
    """Why a block cannot have a verdict, however its cases came out; empty where it can."""
    if not judged:
        return "no case was answered by both arms"
    if errors > MAX_ERROR_SHARE * cases:
        return f"{errors} of {cases} cases erred, over {MAX_ERROR_SHARE:.0%}: run them again"
    return "" if comparable else "the arms differ in more than what is under test"


def _verdict(block: str, counts: _Counts, p_adjusted: float, lower_bound: float) -> tuple[Word, str]:
    """The word for a block, and the reason in one line."""
    gained, lost, cases, p_value = counts.gained, counts.lost, len(counts.judged), counts.p_value
    test = f"exact test on {counts.clusters} independent cases" if counts.clustered else "exact McNemar"
    if p_value < ALPHA and gained < lost:
        return WORSE, f"{gained} gained and {lost} lost of {cases}: {test} p = {p_value:.2g}"
    if p_adjusted < ALPHA and gained > lost:
        return BETTER, f"{gained} gained and {lost} lost of {cases}: {test} p = {p_value:.2g}"
    if block not in GUARDED_BLOCKS:
        return NO_DECISION, f"{gained} gained and {lost} lost of {cases} can be chance: {test} p = {p_value:.2g}"
    if lower_bound > -MARGIN:
        return NOT_WORSE, f"at most {max(0.0, -lower_bound):.1%} lost at 95 %, within the margin of {MARGIN:.0%}"
    if lost == 0:
        return NOT_WORSE, f"no case was lost (by rule: {cases} cases alone bound the loss only at {-lower_bound:.1%})"
    return NO_DECISION, f"up to {-lower_bound:.1%} may be lost, over the margin of {MARGIN:.0%}; more cases would tell"


def _scores(arms: tuple[str, str], judged: Judged) -> ScoreComparison | None:
    """Mean graded scores with the bootstrap interval of their paired difference; None where scores are pass or fail."""
    if all(outcome.score in (0.0, 1.0) for pair in judged for outcome in pair):
        return None
    bootstrap = paired_bootstrap([b.score - a.score for a, b in judged], clusters=[a.cluster for a, _ in judged])
    means = {arm: _mean([pair[i].score for pair in judged]) for i, arm in enumerate(arms)}
    return ScoreComparison(means, bootstrap.mean, (bootstrap.low, bootstrap.high), bootstrap.resamples)


def _metrics(
    arms: tuple[str, str], left: Mapping[str, CaseOutcome], right: Mapping[str, CaseOutcome]
) -> dict[str, MetricComparison]:
    """Each metric that the suite names, in the order that it names them."""
    both = [(left[case_id], right[case_id]) for case_id in left if case_id in right]
    metrics: dict[str, MetricComparison] = {}
    for name in dict.fromkeys(name for a, _ in both for name in a.metrics):
        pairs = [(a, b) for a, b in both if name in a.metrics and name in b.metrics]
        if not pairs:
            continue
        deltas, clusters = [b.metrics[name] - a.metrics[name] for a, b in pairs], [a.cluster for a, _ in pairs]
        bootstrap = paired_bootstrap(deltas, clusters=clusters)
        interval: Interval = (bootstrap.low, bootstrap.high)
        means = {arm: _mean([pair[i].metrics[name] for pair in pairs]) for i, arm in enumerate(arms)}
        p_value = sign_flip_test(deltas, clusters=clusters)
        metrics[name] = MetricComparison(len(pairs), means, bootstrap.mean, interval, p_value, p_value)
    adjusted = holm({name: metric.p_value for name, metric in metrics.items()})
    return {name: replace(metric, p_adjusted=adjusted[name]) for name, metric in metrics.items()}


def _flips(left: Mapping[str, CaseOutcome], right: Mapping[str, CaseOutcome]) -> tuple[Flip, ...]:
    """Every case on which the arms differ, losses first: pass or fail of each arm, "error", or "missing"."""
    flips = []
    for case_id in dict.fromkeys((*left, *right)):
        before, after = (outcome.word if (outcome := side.get(case_id)) else "missing" for side in (left, right))
        block = (left.get(case_id) or right[case_id]).block
        if before != after:
            flips.append(Flip(case_id, block, _KINDS.get((before, after), ERRED), before, after))
    # what was lost first
    return tuple(sorted(flips, key=lambda flip: (_ORDER.index(flip.kind), flip.block, flip.case_id)))


_KINDS: Mapping[tuple[str, str], FlipKind] = {("fail", "pass"): GAINED, ("pass", "fail"): LOST}
