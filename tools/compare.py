"""Two arms, case by case: what flipped, whether chance explains it, and one of four words for it.

The rule, block by block, at alpha = .05, on the cases that both arms answered:

- target and adversarial: exact McNemar. p < alpha is "better" or "worse", by the side the flips fall on; else
  "no decision".
- general and tools must only not get worse. "better" and "worse" as above. Else "not worse" when Tango's one-sided
  lower bound of (b - a) lies above -margin (5 points unless stated), OR when not one case flipped from pass to fail.
  Else "no decision". The second way is a rule, not a proof: under about 52 cases even no flip at all cannot bound
  the loss below 5 points, and calling such a result undecided would help nobody. `lower_bound` is always shown.
- Too many errors (over 5 % of an arm's cases, missing ones included), or arms that differ in more than what is
  under test, are "no decision" whatever the counts say.

An error is no failure: a case with an error on either side is left out of the pair, and counted. Repeats of a
case are reduced first: passed when more than half of its answers passed, score the mean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.tools.stats import (
    ALPHA,
    mcnemar_exact,
    minimum_detectable_effect,
    non_inferiority,
    paired_bootstrap,
    paired_difference_interval,
    pass_rate_interval,
)

BLOCKS = ("target", "general", "tools", "adversarial")
GUARDED_BLOCKS = ("general", "tools")
"""Blocks that the change under test must not make worse."""

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

    A record is {case_id, block, passed: bool or None, score, error}; a missing answer needs no record. `keys`
    maps each arm to its comparability key; those in `allowed` are under test and may differ.
    """
    a, b = arms
    left, right = reduce_repeats(records_a), reduce_repeats(records_b)
    differing = differences(keys[a], keys[b], allowed)
    present = [record.block for record in (*left.values(), *right.values())]
    names = [name for name in dict.fromkeys((*BLOCKS, *present)) if name in present]
    blocks = {
        name: _block(name, (a, b), _pairs(left, right, name), not differing, margin=margin, alpha=alpha)
        for name in names
    }
    return {
        "arms": [a, b],
        "comparable": not differing,
        "differs_in": differing,
        "blocks": blocks,
        "flips": _flips((a, b), left, right),
        "alpha": alpha,
        "margin": margin,
    }


def differences(key_a: Mapping[str, Any], key_b: Mapping[str, Any], allowed: Collection[str] = ()) -> list[str]:
    """Names of the parts in which two comparability keys differ, a part that one lacks included."""
    lacking = object()
    names = sorted({*key_a, *key_b} - set(allowed))
    return [name for name in names if key_a.get(name, lacking) != key_b.get(name, lacking)]


def reduce_repeats(records: Iterable[Mapping[str, Any]]) -> dict[str, Reduced]:
    """One result a case: repeats that erred are dropped while another answered; passed by more than half."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        grouped.setdefault(record["case_id"], []).append(record)
    return {case_id: _reduced(case_id, group) for case_id, group in grouped.items()}


def _reduced(case_id: str, group: Sequence[Mapping[str, Any]]) -> Reduced:
    answered = [record for record in group if not record.get("error") and record.get("passed") is not None]
    block = str(group[0].get("block") or "target")
    if not answered:
        error = next((str(record["error"]) for record in group if record.get("error")), "no grade was stored")
        return Reduced(case_id, block, None, 0.0, error)
    passes = sum(bool(record["passed"]) for record in answered)
    scores = [_score(record) for record in answered]
    return Reduced(case_id, block, 2 * passes > len(answered), math.fsum(scores) / len(scores), None)


def _score(record: Mapping[str, Any]) -> float:
    score = record.get("score")
    return float(bool(record["passed"])) if score is None else float(score)


Pair = tuple[Reduced | None, Reduced | None]


def _pairs(left: Mapping[str, Reduced], right: Mapping[str, Reduced], block: str) -> list[Pair]:
    """The block's cases, each with both results; None where an arm was never asked."""
    ids = dict.fromkeys((*left, *right))
    pairs = ((left.get(case_id), right.get(case_id)) for case_id in ids)
    return [(a, b) for a, b in pairs if (a or b).block == block]  # type: ignore[union-attr]


def _block(
    name: str, arms: tuple[str, str], pairs: Sequence[Pair], comparable: bool, *, margin: float, alpha: float
) -> dict[str, Any]:
    judged = [(a, b) for a, b in pairs if a and b and a.passed is not None and b.passed is not None]
    gained = sum(bool(b.passed and not a.passed) for a, b in judged)
    lost = sum(bool(a.passed and not b.passed) for a, b in judged)
    p_value = mcnemar_exact(gained, lost)
    low, high = paired_difference_interval(len(judged), gained, lost, 1 - alpha)
    bound = non_inferiority(len(judged), gained, lost, margin, alpha)
    errors = {arm: sum(not (pair[i] and pair[i].passed is not None) for pair in pairs) for i, arm in enumerate(arms)}  # type: ignore[union-attr]
    verdict, why = _verdict(name, len(judged), gained, lost, p_value, bound.lower_bound, margin=margin, alpha=alpha)
    worst = max(errors.values())
    if not judged:
        verdict, why = NO_DECISION, "no case was answered by both arms"
    elif worst > MAX_ERROR_SHARE * len(pairs):
        verdict, why = NO_DECISION, f"{worst} of {len(pairs)} cases erred, over {MAX_ERROR_SHARE:.0%}: run them again"
    elif not comparable:
        verdict, why = NO_DECISION, "the arms differ in more than what is under test"
    passed = {arm: sum(bool(pair[i].passed) for pair in judged) for i, arm in enumerate(arms)}
    effect = minimum_detectable_effect(len(judged), alpha)
    return {
        "cases": len(pairs),
        "passed": passed,
        "errors": errors,
        "fail_to_pass": gained,
        "pass_to_fail": lost,
        "p_value": p_value,
        "verdict": verdict,
        "reason": why,
        "judged": len(judged),
        "difference": (gained - lost) / len(judged) if judged else None,
        "interval": [low, high] if judged else None,
        "lower_bound": bound.lower_bound if judged else None,
        "pass_rate_intervals": {arm: list(pass_rate_interval(passed[arm], len(judged))) for arm in arms},
        "detectable": effect if math.isfinite(effect) else None,
        "scores": _scores(arms, judged),
    }


def _verdict(
    block: str, cases: int, gained: int, lost: int, p_value: float, lower_bound: float, *, margin: float, alpha: float
) -> tuple[str, str]:
    """The word for a block, and the reason in one line."""
    if p_value < alpha:
        side = BETTER if gained > lost else WORSE
        return side, f"{gained} gained and {lost} lost of {cases}: exact McNemar p = {p_value:.2g}"
    if block not in GUARDED_BLOCKS:
        return NO_DECISION, f"{gained} gained and {lost} lost of {cases} can be chance: exact McNemar p = {p_value:.2g}"
    if lower_bound > -margin:
        return NOT_WORSE, f"at most {max(0.0, -lower_bound):.1%} lost at 95 %, within the margin of {margin:.0%}"
    if lost == 0:
        return NOT_WORSE, f"no case was lost (by rule: {cases} cases alone bound the loss only at {-lower_bound:.1%})"
    return NO_DECISION, f"up to {-lower_bound:.1%} may be lost, over the margin of {margin:.0%}; more cases would tell"


def _scores(arms: tuple[str, str], judged: Sequence[tuple[Reduced, Reduced]]) -> dict[str, Any] | None:
    """Mean graded scores with the bootstrap interval of their paired difference; None where scores are pass or fail."""
    if all(record.score in (0.0, 1.0) for pair in judged for record in pair):
        return None
    found = paired_bootstrap([b.score - a.score for a, b in judged])
    means = {arm: math.fsum(pair[i].score for pair in judged) / len(judged) for i, arm in enumerate(arms)}
    return {"mean": means, "difference": found.mean, "interval": [found.low, found.high], "resamples": found.resamples}


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
