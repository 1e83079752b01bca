"""Two arms, case by case: what flipped, whether chance explains it, and one of four words for it.

The rule, block by block, at alpha = .05, on the cases that both arms answered:

- target and adversarial: exact McNemar. p < alpha is "better" or "worse", by the side the flips fall on; else
  "no decision".
- general and tools must only not get worse. "better" and "worse" as above. Else "not worse" when Tango's one-sided
  lower bound of (b - a) lies above -margin (5 points unless stated), OR when not one case flipped from pass to fail.
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
from dataclasses import dataclass, field
from typing import Any

from tunesmith.tools.core.stats import (
    ALPHA,
    clustered_difference_interval,
    clustered_pass_rate_interval,
    holm,
    mcnemar_clustered,
    mcnemar_exact,
    minimum_detectable_effect,
    non_inferiority,
    paired_bootstrap,
    paired_difference_interval,
    sign_flip_test,
)
from tunesmith.tools.suites.case import BLOCKS, GUARDED_BLOCKS, PRIMARY_BLOCK

MARGIN = 0.05
MAX_ERROR_SHARE = 0.05
UNDER_TEST: Collection[str] = frozenset({"adapter", "weights"})

BETTER, WORSE, NOT_WORSE, NO_DECISION = "better", "worse", "not worse", "no decision"


@dataclass(frozen=True)
class Reduced:
    """All answers of one arm to one case. With an `error`, `passed` is None."""

    case_id: str
    block: str
    passed: bool | None
    score: float
    error: str | None
    cluster: str
    """The seed row that the case was made from; its own id where it was made from none."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Mean score of each metric that the suite names."""

    @property
    def word(self) -> str:
        return "error" if self.passed is None else "pass" if self.passed else "fail"


def compare_arms(
    records_a: Iterable[Mapping[str, Any]],
    records_b: Iterable[Mapping[str, Any]],
    arms: Sequence[str],
    keys: Mapping[str, Mapping[str, Any]],
    *,
    allowed: Collection[str] = UNDER_TEST,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> dict[str, Any]:
    """The body of `tunesmith compare`: everything but the run's name.

    A record is {case_id, block, passed: bool or None, score, error}, with `cluster` and `metrics` where the suite
    says so; a missing answer needs no record. `keys` maps each arm to its comparability key; the parts in `allowed`
    are under test and may differ.
    """
    a, b = arms
    left, right = reduce_repeats(records_a), reduce_repeats(records_b)
    differing = differences(keys[a], keys[b], allowed)
    present = [record.block for record in (*left.values(), *right.values())]
    names = [name for name in dict.fromkeys((*BLOCKS, *present)) if name in present]
    counted = {name: _Counts.of(_pairs(left, right, name)) for name in names}
    adjusted = holm({name: counts.p_value for name, counts in counted.items() if name != PRIMARY_BLOCK})
    blocks = {
        name: _block(
            name, (a, b), counts, adjusted.get(name, counts.p_value), not differing, margin=margin, alpha=alpha
        )
        for name, counts in counted.items()
    }
    return {
        "arms": [a, b],
        "comparable": not differing,
        "differs_in": differing,
        "refused": _refusal((a, b), keys, differing),
        "blocks": blocks,
        "metrics": _metrics((a, b), left, right),
        "flips": _flips((a, b), left, right),
        "alpha": alpha,
        "margin": margin,
    }


def differences(key_a: Mapping[str, Any], key_b: Mapping[str, Any], allowed: Collection[str] = ()) -> list[str]:
    """Names of the parts in which two comparability keys differ, a part that one lacks included."""
    lacking = object()
    names = sorted({*key_a, *key_b} - set(allowed))
    return [name for name in names if key_a.get(name, lacking) != key_b.get(name, lacking)]


def _refusal(arms: tuple[str, str], keys: Mapping[str, Mapping[str, Any]], differing: Sequence[str]) -> str:
    """Why there is no verdict: each difference with both values; empty where there is none."""
    if not differing:
        return ""
    a, b = arms
    told = "; ".join(f"{name}: {_clip(keys[a].get(name))} against {_clip(keys[b].get(name))}" for name in differing)
    return f"{a} and {b} differ in more than what is under test ({told}); evaluate both again under the same settings"


def _clip(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def reduce_repeats(records: Iterable[Mapping[str, Any]]) -> dict[str, Reduced]:
    """One result a case: repeats that erred are dropped while another answered; passed by more than half."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        grouped.setdefault(record["case_id"], []).append(record)
    return {case_id: _reduced(case_id, group) for case_id, group in grouped.items()}


def _reduced(case_id: str, group: Sequence[Mapping[str, Any]]) -> Reduced:
    answered = [record for record in group if not record.get("error") and record.get("passed") is not None]
    block, cluster = str(group[0].get("block") or "target"), str(group[0].get("cluster") or case_id)
    if not answered:
        error = next((str(record["error"]) for record in group if record.get("error")), "no grade was stored")
        return Reduced(case_id, block, None, 0.0, error, cluster)
    passes = sum(bool(record["passed"]) for record in answered)
    score = _mean([_score(record) for record in answered])
    names = dict.fromkeys(name for record in answered for name in record.get("metrics") or ())
    metrics = {
        name: _mean([r["metrics"][name] for r in answered if name in (r.get("metrics") or ())]) for name in names
    }
    return Reduced(case_id, block, 2 * passes > len(answered), score, None, cluster, metrics)


def _score(record: Mapping[str, Any]) -> float:
    score = record.get("score")
    return float(bool(record["passed"])) if score is None else float(score)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


Pair = tuple[Reduced | None, Reduced | None]
Judged = Sequence[tuple[Reduced, Reduced]]


def _pairs(left: Mapping[str, Reduced], right: Mapping[str, Reduced], block: str) -> list[Pair]:
    """The block's cases, each with both results; None where an arm was never asked."""
    ids = dict.fromkeys((*left, *right))
    pairs = ((left.get(case_id), right.get(case_id)) for case_id in ids)
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

    def lower_bound(self, margin: float, alpha: float) -> float:
        """One-sided lower bound of the difference at 1 - alpha."""
        if self.clustered:
            return self.bounds(1 - 2 * alpha)[0]
        return non_inferiority(len(self.judged), self.gained, self.lost, margin, alpha).lower_bound


def _block(
    name: str,
    arms: tuple[str, str],
    counts: _Counts,
    p_adjusted: float,
    comparable: bool,
    *,
    margin: float,
    alpha: float,
) -> dict[str, Any]:
    pairs, judged = counts.pairs, counts.judged
    bound = counts.lower_bound(margin, alpha)
    errors = {arm: sum(not (pair[i] and pair[i].passed is not None) for pair in pairs) for i, arm in enumerate(arms)}  # type: ignore[union-attr]
    verdict, why = _verdict(name, counts, p_adjusted, bound, margin=margin, alpha=alpha)
    obstacle = _obstacle(len(judged), max(errors.values()), len(pairs), comparable)
    if obstacle:
        verdict, why = NO_DECISION, obstacle
    passed = {arm: sum(bool(pair[i].passed) for pair in judged) for i, arm in enumerate(arms)}
    effect = minimum_detectable_effect(len(judged), alpha, rows=counts.clusters)
    return {
        "cases": len(pairs),
        "passed": passed,
        "errors": errors,
        "fail_to_pass": counts.gained,
        "pass_to_fail": counts.lost,
        "p_value": counts.p_value,
        "verdict": verdict,
        "reason": why,
        "tested": not obstacle,
        "p_adjusted": p_adjusted,
        "judged": len(judged),
        "clusters": counts.clusters,
        "difference": (counts.gained - counts.lost) / len(judged) if judged else None,
        "interval": list(counts.bounds(1 - alpha)) if judged else None,
        "lower_bound": bound if judged else None,
        "pass_rate_intervals": {arm: list(counts.rate_interval(passed[arm])) for arm in arms},
        "detectable": effect if math.isfinite(effect) else None,
        "scores": _scores(arms, judged),
    }


def _obstacle(judged: int, errors: int, cases: int, comparable: bool) -> str:
    """Why a block cannot have a verdict, however its cases came out; empty where it can."""
    if not judged:
        return "no case was answered by both arms"
    if errors > MAX_ERROR_SHARE * cases:
        return f"{errors} of {cases} cases erred, over {MAX_ERROR_SHARE:.0%}: run them again"
    return "" if comparable else "the arms differ in more than what is under test"


def _verdict(
    block: str, counts: _Counts, p_adjusted: float, lower_bound: float, *, margin: float, alpha: float
) -> tuple[str, str]:
    """The word for a block, and the reason in one line."""
    gained, lost, cases, p_value = counts.gained, counts.lost, len(counts.judged), counts.p_value
    test = f"exact test on {counts.clusters} seed rows" if counts.clustered else "exact McNemar"
    if p_value < alpha and gained < lost:
        return WORSE, f"{gained} gained and {lost} lost of {cases}: {test} p = {p_value:.2g}"
    if p_adjusted < alpha and gained > lost:
        return BETTER, f"{gained} gained and {lost} lost of {cases}: {test} p = {p_value:.2g}"
    if block not in GUARDED_BLOCKS:
        return NO_DECISION, f"{gained} gained and {lost} lost of {cases} can be chance: {test} p = {p_value:.2g}"
    if lower_bound > -margin:
        return NOT_WORSE, f"at most {max(0.0, -lower_bound):.1%} lost at 95 %, within the margin of {margin:.0%}"
    if lost == 0:
        return NOT_WORSE, f"no case was lost (by rule: {cases} cases alone bound the loss only at {-lower_bound:.1%})"
    return NO_DECISION, f"up to {-lower_bound:.1%} may be lost, over the margin of {margin:.0%}; more cases would tell"


def _scores(arms: tuple[str, str], judged: Judged) -> dict[str, Any] | None:
    """Mean graded scores with the bootstrap interval of their paired difference; None where scores are pass or fail."""
    if all(record.score in (0.0, 1.0) for pair in judged for record in pair):
        return None
    found = paired_bootstrap([b.score - a.score for a, b in judged], clusters=[a.cluster for a, _ in judged])
    means = {arm: _mean([pair[i].score for pair in judged]) for i, arm in enumerate(arms)}
    return {"mean": means, "difference": found.mean, "interval": [found.low, found.high], "resamples": found.resamples}


def _metrics(
    arms: tuple[str, str], left: Mapping[str, Reduced], right: Mapping[str, Reduced]
) -> dict[str, dict[str, Any]]:
    """Each metric that the suite names: means, the bootstrap interval of the paired difference, Holm's p-value."""
    both = [(left[case_id], right[case_id]) for case_id in left if case_id in right]
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for a, _ in both for name in a.metrics):
        pairs = [(a, b) for a, b in both if name in a.metrics and name in b.metrics]
        if not pairs:
            continue
        deltas, clusters = [b.metrics[name] - a.metrics[name] for a, b in pairs], [a.cluster for a, _ in pairs]
        interval = paired_bootstrap(deltas, clusters=clusters)
        found[name] = {
            "cases": len(pairs),
            "mean": {arm: _mean([pair[i].metrics[name] for pair in pairs]) for i, arm in enumerate(arms)},
            "difference": interval.mean,
            "interval": [interval.low, interval.high],
            "p_value": sign_flip_test(deltas, clusters=clusters),
        }
    adjusted = holm({name: metric["p_value"] for name, metric in found.items()})
    return {name: {**metric, "p_adjusted": adjusted[name]} for name, metric in found.items()}


def _flips(arms: tuple[str, str], left: Mapping[str, Reduced], right: Mapping[str, Reduced]) -> list[dict[str, Any]]:
    """Every case on which the arms differ, losses first: pass or fail of each arm, "error", or "missing"."""
    rows = []
    for case_id in dict.fromkeys((*left, *right)):
        words = [found.word if (found := side.get(case_id)) else "missing" for side in (left, right)]
        known = left.get(case_id) or right[case_id]
        kind = {("fail", "pass"): "fail_to_pass", ("pass", "fail"): "pass_to_fail"}.get((words[0], words[1]), "error")
        if words[0] != words[1]:
            rows.append({"case_id": case_id, "block": known.block, "flip": kind, **dict(zip(arms, words, strict=True))})
    order = ("pass_to_fail", "fail_to_pass", "error")
    return sorted(rows, key=lambda row: (order.index(row["flip"]), row["block"], row["case_id"]))
