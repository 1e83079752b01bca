"""Statistics for paired pass/fail and graded comparisons: exact where the counts are small, and it says which.

Special functions are scipy's, imported where they are used; its statistics, which take a second and a half to import,
are what the tests hold these against. Every formula of our own names its source. Nothing here reads files or knows
about arms; `compare` turns these numbers into verdicts. Unpaired comparisons are not covered, on purpose.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist

ALPHA = 0.05
"""As the field has it; a claim of the tool is read beside others' claims."""
MAX_ERROR_SHARE = 0.05
"""Share of questions without an answer above which a step fails, an arm says nothing, and no gate opens: those that are
lacking could turn what the others say."""
EXACT_BELOW_CASES = 300
"""The exact interval covers what it says at any size; from so many cases on Wilson's ends within a fifth of a point of
it."""
RESAMPLES = 10_000
"""Where 10,000 are drawn, a p-value near .05 is known to 0.004 and the ends of a 95 % interval hardly move with the
seed."""
_BOOTSTRAP_CELLS = 2_000_000
"""Resampled values held in memory at once: 16 MB of float64."""


@lru_cache(maxsize=1024)  # a page asks for the same few counts again and again
def mcnemar_exact(fail_to_pass: int, pass_to_fail: int) -> float:
    """Two-sided p-value of the exact McNemar test: the flips against a fair coin.

    Binomial(n = flips, 1/2), twice the smaller tail, at most 1 (McNemar 1947, Psychometrika 12; the exact form is
    Conover 1999, "Practical Nonparametric Statistics", 3.5). Counted in whole numbers: every verdict wants it, and
    scipy's takes a second and a half to import.
    """
    flips = fail_to_pass + pass_to_fail
    ways = tail = 1  # in which none of the rarer kind comes up
    for fewer in range(min(fail_to_pass, pass_to_fail)):
        ways = ways * (flips - fewer) // (fewer + 1)
        tail += ways
    return float(min(Fraction(1), Fraction(2 * tail, 2**flips)))


def mcnemar_mid_p(fail_to_pass: int, pass_to_fail: int) -> float:
    """The same, what was observed counted half (Fagerland et al. 2013, BMC Med. Res. Methodol. 13, 91): for show."""
    flips, halves = fail_to_pass + pass_to_fail, 2 if fail_to_pass == pass_to_fail else 1
    observed = math.comb(flips, fail_to_pass) / 2**flips if flips else 0.0
    return mcnemar_exact(fail_to_pass, pass_to_fail) - observed / halves


def mcnemar_clustered(net_flips: Iterable[int]) -> float:
    """The same test where cases come in clusters: each cluster's net flips keep their size and toss for their side.

    The exact distribution of that sum (Fisher's randomisation test on clusters; for McNemar's table Yang, Sun &
    Hardin 2010, Statistics in Medicine 29). Clusters of one case each give exactly `mcnemar_exact`.
    """
    nets = [net for net in net_flips if net]
    sizes = [abs(net) for net in nets]
    if set(sizes) <= {1}:
        return mcnemar_exact(nets.count(1), nets.count(-1))
    ways = {0: 1}  # sum → number of ways to reach it
    for size in sizes:
        after: dict[int, int] = {}
        for total, count in ways.items():
            for reached in (total - size, total + size):
                after[reached] = after.get(reached, 0) + count
        ways = after
    extreme = sum(count for total, count in ways.items() if abs(total) >= abs(sum(nets)))
    return float(Fraction(extreme, 2 ** len(sizes)))


def sign_flip_test(differences: Sequence[float], *, clusters: Sequence[Hashable] | None = None) -> float:
    """Two-sided p-value of a mean paired difference of graded scores: the clusters' sums against random signs.

    Fisher 1935, "The Design of Experiments", 21. Exact up to 13 clusters that differ, else seeded Monte Carlo with
    the observed order counted among the drawn ones (Phipson & Smyth 2010), so it is never 0.
    """
    import numpy as np

    # 0 but for the rounding of sums of floats
    sums = np.asarray([total for total in _cluster_totals(differences, clusters)[0] if abs(total) > 1e-12])
    if len(sums) < 2:  # both signs are as far
        return 1.0
    least = abs(float(sums.sum())) * (1 - 1e-12)  # sums in another order, which are as far, differ in their last digits
    exact = 2 ** len(sums) <= RESAMPLES
    resamples = 2 ** len(sums) if exact else RESAMPLES
    random, as_far = np.random.default_rng(0), 0
    batch = max(1, _BOOTSTRAP_CELLS // len(sums))
    for first in range(0, resamples, batch):
        drawn = min(batch, resamples - first)
        if exact:  # the bits of a number are one way to choose the signs
            chosen = np.arange(first, first + drawn)[:, None] >> np.arange(len(sums)) & 1
        else:
            chosen = random.integers(0, 2, (drawn, len(sums)))
        as_far += int((np.abs((2 * chosen - 1) @ sums) >= least).sum())
    return as_far / resamples if exact else (as_far + 1) / (resamples + 1)


def wilson_interval(passed: float, cases: float, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, JASA 22, 209-212)."""
    if cases == 0:
        return 0.0, 1.0
    z = _z_two_sided(confidence)
    rate, shrink = passed / cases, 1 + z * z / cases
    centre = (rate + z * z / (2 * cases)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / cases + z * z / (4 * cases * cases))
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    return low, 1.0 if passed == cases else min(1.0, centre + half)


def clopper_pearson(passed: float, cases: float, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion: covers at least `confidence` (Clopper & Pearson 1934, Biometrika 26)."""
    if cases == 0:
        return 0.0, 1.0
    from scipy.special import betaincinv  # half a second to import, and only this wants it

    tail, failed = (1 - confidence) / 2, cases - passed
    low = 0.0 if passed == 0 else float(betaincinv(passed, failed + 1, tail))
    high = 1.0 if failed == 0 else float(betaincinv(passed + 1, failed, 1 - tail))
    return low, high


def lower_bound(passed: float, cases: float, confidence: float) -> float:
    """The exact one-sided lower bound of a proportion, by Clopper and Pearson: one tail holds all of the error."""
    return clopper_pearson(passed, cases, 2 * confidence - 1)[0]


def pass_rate_interval(passed: float, cases: float) -> tuple[float, float]:
    """The interval that is shown for a pass rate: exact under 300 cases, Wilson's from there on.

    Cases in clusters are given as `effective_cases`, passes in proportion (Korn & Graubard 1998, Surv. Methodol. 24).
    """
    method = clopper_pearson if cases < EXACT_BELOW_CASES else wilson_interval
    return method(passed, cases)


def clustered_pass_rate_interval(passed: int, clusters: Sequence[Hashable]) -> tuple[float, float]:
    """The interval that is shown for cases with these cluster labels, one a case, of which so many passed."""
    if len(set(clusters)) == len(clusters):
        return pass_rate_interval(passed, len(clusters))
    effective = effective_cases(clusters)
    return pass_rate_interval(passed / len(clusters) * effective, effective)


def effective_cases(clusters: Iterable[Hashable]) -> float:
    """What cases with these cluster labels are worth at the least: as if those of one cluster always agreed.

    n² / Σ m² for clusters of m cases (Kish 1965, "Survey Sampling", 8.2, at an intraclass correlation of 1): their
    number where they are of one size, fewer where a few are large, n where every case stands alone.
    """
    sizes = Counter(clusters).values()
    return sum(sizes) ** 2 / sum(size * size for size in sizes) if sizes else 0.0


def clustered_difference_interval(
    differences: Sequence[float],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
    *,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Interval of (pass rate of b - pass rate of a) where cases come in clusters; differences are -1, 0 or 1.

    From the lower to the higher end of two: the bootstrap of whole clusters, and Tango's interval at `effective_cases`
    (counts scaled down in proportion: Rao & Scott 1992, Biometrics 48, with the largest design effect there can be).
    The bootstrap alone is too narrow for few clusters and has no width where nothing flipped. So it covers more than
    it says where a cluster's cases do not agree, and is never narrower than the interval of independent cases.
    """
    effective, cases = effective_cases(clusters), len(differences)
    gained = sum(d > 0 for d in differences) / cases * effective
    lost = sum(d < 0 for d in differences) / cases * effective
    low, high = paired_difference_interval(effective, gained, lost, confidence)
    bootstrap = paired_bootstrap(differences, clusters=clusters, confidence=confidence, resamples=resamples)
    return min(low, bootstrap.low), max(high, bootstrap.high)


def paired_difference_interval(
    cases: float, fail_to_pass: float, pass_to_fail: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of (pass rate of b - pass rate of a) on the same cases: Tango's score interval.

    Tango 1998, Statistics in Medicine 17, 891-908. Asymptotic, yet close to its nominal coverage from about
    20 cases on and never degenerate: with no flip at all the lower end is -z²/(n + z²). The lower end at 1 - 2 alpha
    lies above -margin exactly when his one-sided test, at alpha, rejects that b is worse by the margin.
    """
    if cases == 0:
        return -1.0, 1.0
    z = _z_two_sided(confidence)

    def distance(difference: float) -> float:
        return _tango_statistic(cases, fail_to_pass, pass_to_fail, difference)

    observed = (fail_to_pass - pass_to_fail) / cases
    low = _bisect(lambda d: z - distance(d), -1.0, observed)
    high = _bisect(lambda d: -z - distance(d), observed, 1.0)
    return low, high


@dataclass(frozen=True)
class Bootstrap:
    """Mean of paired differences with its interval."""

    mean: float
    low: float
    high: float
    resamples: int
    seed: int


def paired_bootstrap(
    differences: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Bootstrap:
    """Bootstrap interval of the mean paired difference of scores from 0 to 1, never inside Student's.

    Percentiles as by Efron & Tibshirani 1993, chapters 13 and 16, at tails that make up for few draws (Hesterberg 2015,
    The American Statistician 69, "expanded percentile"); a handful of clusters cannot even draw such tails, so that
    Student's interval is a floor. With `clusters` (one label a difference) whole clusters are drawn, so that cases made
    from one seed row do not count as independent (Davison & Hinkley 1997, 3.8). Where no two clusters differ there is
    nothing to draw from: then z² / (n + z²) to either side, Tango's ends for n cases without a flip, and the whole
    range for a single cluster. No end lies outside [-1, 1], where no mean can be; of values that do not keep to it
    neither end is cut. Seeded: the same input gives the same interval.
    """
    import numpy as np

    if not differences:
        return Bootstrap(0.0, 0.0, 0.0, resamples, seed)
    sums, sizes = _cluster_totals(differences, clusters)
    mean = math.fsum(differences) / len(differences)
    if (half := _unseen(sums, sizes, confidence)) is not None:
        return Bootstrap(mean, *_possible(mean - half, mean + half, differences), resamples, seed)
    totals, weights = np.asarray(sums), np.asarray(sizes, dtype=float)
    student = _student(len(totals), confidence)
    tail = NormalDist().cdf(-math.sqrt(len(totals) / (len(totals) - 1)) * student)
    random, drawn = np.random.default_rng(seed), []
    batch = max(1, _BOOTSTRAP_CELLS // len(totals))
    for first in range(0, resamples, batch):
        places = random.integers(0, len(totals), (min(batch, resamples - first), len(totals)))
        drawn.append(totals[places].sum(1) / weights[places].sum(1))
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    half = student * _standard_error(sums, sizes)
    ends = _possible(min(float(low), mean - half), max(float(high), mean + half), differences)
    return Bootstrap(mean, *ends, resamples, seed)


def _possible(low: float, high: float, differences: Sequence[float]) -> tuple[float, float]:
    """The part of an interval in which the mean can lie, where the values are differences of scores from 0 to 1."""
    if max(map(abs, differences)) > 1:
        return low, high
    return max(-1.0, low), min(1.0, high)


def _unseen(sums: Sequence[float], sizes: Sequence[int], confidence: float) -> float | None:
    """Half of the interval where all clusters have one mean, so that drawing gives none; None where they differ."""
    means = [total / size for total, size in zip(sums, sizes, strict=True)]
    if max(means) - min(means) > 1e-12:  # the same but for rounding
        return None
    z, clusters = _z_two_sided(confidence), len(sums)
    return 1.0 if clusters == 1 else z * z / (clusters + z * z)


def _student(clusters: int, confidence: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(clusters - 1, 0.5 + confidence / 2))  # half of what is left out lies on each side


def _standard_error(sums: Sequence[float], sizes: Sequence[int]) -> float:
    """Of the mean over all cases, its clusters drawn (a ratio's, Cochran 1977, "Sampling Techniques", 2.11)."""
    mean, clusters = math.fsum(sums) / sum(sizes), len(sums)
    squares = math.fsum((total - mean * size) ** 2 for total, size in zip(sums, sizes, strict=True))
    return math.sqrt(squares * clusters / (clusters - 1)) / sum(sizes)


def flips_to_show(alpha: float = ALPHA) -> int:
    """How many flips, all one way, the exact McNemar test needs: the smallest k with 2 / 2^k < alpha (6 at .05)."""
    return math.floor(1 - math.log2(alpha)) + 1


def minimum_detectable_effect(cases: int, alpha: float = ALPHA, *, rows: int | None = None) -> float:
    """The smallest gain in pass rate that the exact McNemar test can show on `cases` pairs; infinite where none.

    Best case: every flip goes one way; `flips_to_show` of them over the cases. A real gain with losses mixed in needs
    more. Cases that were made from fewer `rows` must flip in so many of these: one in each is enough, and fewer rows
    show nothing.
    """
    flips = flips_to_show(alpha)
    return flips / cases if flips <= (cases if rows is None else rows) else math.inf


def detectable_text(cases: int, *, clusters: Collection[Hashable] = ()) -> str:
    """One sentence for the plan, before anything is bought: what this many cases can show.

    `clusters` says what each case is evidence with (`Case.cluster`), one label a case; left out, every case stands
    alone.
    """
    rows = len(set(clusters)) or cases
    gain = minimum_detectable_effect(cases, rows=rows)
    if math.isinf(gain):
        independent = " independent ones" if rows < cases else ""
        return f"with {_counted(cases, rows)} no gain can be shown; write at least 6{independent}"
    return f"with {_counted(cases, rows)} no gain under {_points(gain)} points can be shown"


def _counted(cases: int, rows: int) -> str:
    return f"{cases} cases" if rows == cases else f"{cases} cases ({rows} independent)"


def guard_text(cases: int, margin: float, *, clusters: Collection[Hashable] = ()) -> str:
    """The same for cases that must not get worse: the loss that they leave open even when not one of them is lost."""
    open_loss = -paired_difference_interval(effective_cases(clusters) or cases, 0, 0, 1 - 2 * ALPHA)[0]
    counted = _counted(cases, len(set(clusters)) or cases)
    text = f"{counted} leave a loss of up to {open_loss * 100:.1f} points open when none is lost"
    return text if open_loss >= margin else f"{text}, inside the margin of {_points(margin)}"


def _points(share: float) -> int:
    return math.ceil(share * 100 - 1e-9)  # 5 points as a float may lie a hair above 5: no 6 for that


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values over several metrics, in the order given (Holm 1979, Scandinavian Journal of Statistics 6)."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def _z_two_sided(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)  # half of what is left out lies on each side


def _tango_statistic(cases: float, gained: float, lost: float, difference: float) -> float:
    """(observed - difference) over its standard error with the nuisance rate at its maximum under H0."""
    numerator = gained - lost - cases * difference
    linear = -gained - lost + (2 * cases - gained + lost) * difference
    constant = -lost * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8 * cases * constant))
    nuisance = (root - linear) / (4 * cases)
    variance = cases * (2 * nuisance + difference * (1 - difference))
    if variance <= 1e-12:  # no spread at all but for rounding: a quotient of two zeros says nothing
        return 0.0 if abs(numerator) < 1e-12 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """The root of an increasing `function` on [low, high]; an end of it where there is none.

    Not scipy.optimize: every plan of a baseline wants it, and a second to import is what the user would wait for.
    """
    for _ in range(200):  # more halvings than a float has bits: it ends where middle meets an end
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return (low + high) / 2


def _cluster_totals(differences: Sequence[float], clusters: Sequence[Hashable] | None) -> tuple[list[float], list[int]]:
    if clusters is None:
        return list(differences), [1] * len(differences)
    if len(clusters) != len(differences):
        raise ValueError(f"{len(clusters)} cluster labels for {len(differences)} differences; give one each")
    groups: dict[Hashable, list[float]] = {}
    for label, value in zip(clusters, differences, strict=True):
        groups.setdefault(label, []).append(value)
    return [math.fsum(group) for group in groups.values()], [len(group) for group in groups.values()]


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Agreement of two yes-or-no raters beyond chance; 0 where both say the same of everything, or there is nothing."""
    count = len(first)
    if not count:
        return 0.0
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / count
    yes_first, yes_second = sum(first) / count, sum(second) / count
    by_chance = yes_first * yes_second + (1 - yes_first) * (1 - yes_second)
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0
