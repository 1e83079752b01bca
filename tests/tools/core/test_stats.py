"""Properties of the statistics, checked against published values, scipy and simulation."""

from __future__ import annotations

import itertools
import math
import operator
import random
import subprocess
import sys
from statistics import NormalDist

import pytest

from tests.bench._simulation import simulate, simulate_graded
from tunesmith.tools.core import stats


def test_mcnemar_is_twice_the_smaller_tail_of_a_fair_coin_counted_in_integers() -> None:
    for gained in range(0, 25):
        for lost in range(0, 25):
            flips = gained + lost
            tail = sum(math.comb(flips, k) for k in range(min(gained, lost) + 1))
            assert stats.mcnemar_exact(gained, lost) == pytest.approx(min(1.0, 2 * tail / 2**flips), abs=1e-12)


def test_the_mid_p_counts_what_was_observed_half() -> None:
    for gained, lost in ((0, 0), (5, 0), (6, 1), (4, 4), (0, 9)):
        likelier = sum(
            math.comb(gained + lost, n) * (0.5 if n == min(gained, lost) else 1) for n in range(min(gained, lost) + 1)
        )
        two_sided = 2 * likelier / 2 ** (gained + lost) if gained + lost else 1.0
        if gained == lost and gained:
            two_sided = 1 - math.comb(gained + lost, gained) / 2 ** (gained + lost + 1)
        assert stats.mcnemar_mid_p(gained, lost) == pytest.approx(two_sided)


def test_mcnemar_of_no_flip_is_one_and_of_thousands_does_not_overflow() -> None:
    assert stats.mcnemar_exact(0, 0) == 1.0
    assert 0 <= stats.mcnemar_exact(3000, 100) < 1e-300 or stats.mcnemar_exact(3000, 100) == 0.0
    assert stats.mcnemar_exact(2000, 2000) == 1.0


@pytest.mark.heavy
def test_intervals_match_scipy() -> None:
    import scipy.stats

    for passed, cases in [(0, 10), (1, 10), (5, 10), (10, 10), (37, 60), (59, 60), (250, 299), (700, 1000)]:
        test = scipy.stats.binomtest(passed, cases)
        for ours, method in [(stats.clopper_pearson, "exact"), (stats.wilson_interval, "wilson")]:
            expected = test.proportion_ci(method=method)
            assert ours(passed, cases) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_exact_interval_below_300_cases_and_wilson_from_there() -> None:
    assert stats.pass_rate_interval(290, 299) == stats.clopper_pearson(290, 299)
    assert stats.pass_rate_interval(290, 300) == stats.wilson_interval(290, 300)


def test_paired_interval_has_the_published_form_when_nothing_flips() -> None:
    z = 1.959963984540054
    low, high = stats.paired_difference_interval(50, 0, 0)
    assert low == pytest.approx(-z * z / (50 + z * z), abs=1e-9)
    assert high == pytest.approx(-low, abs=1e-12)


def test_paired_interval_is_antisymmetric_and_holds_the_observed_difference() -> None:
    for cases, gained, lost in [(40, 3, 1), (60, 55, 0), (20, 20, 0), (100, 7, 7), (10, 0, 10)]:
        low, high = stats.paired_difference_interval(cases, gained, lost)
        assert low <= (gained - lost) / cases <= high
        assert -1 <= low <= high <= 1
        assert stats.paired_difference_interval(cases, lost, gained) == pytest.approx((-high, -low), abs=1e-9)


def test_paired_interval_covers_between_93_and_97_percent() -> None:
    rng = random.Random(7)
    covered, trials = 0, 2000
    gain_rate, loss_rate, cases = 0.20, 0.08, 80
    for _ in range(trials):
        draws = [rng.random() for _ in range(cases)]
        gained = sum(draw < gain_rate for draw in draws)
        lost = sum(gain_rate <= draw < gain_rate + loss_rate for draw in draws)
        low, high = stats.paired_difference_interval(cases, gained, lost)
        covered += low <= gain_rate - loss_rate <= high
    assert 0.93 <= covered / trials <= 0.97


def test_mcnemar_raises_a_false_alarm_in_at_most_five_percent() -> None:
    rng = random.Random(11)
    alarms = 0
    for _ in range(2000):
        flips = [rng.random() < 0.5 for _ in range(60) if rng.random() < 0.3]
        alarms += stats.mcnemar_exact(sum(flips), len(flips) - sum(flips)) < 0.05
    assert alarms / 2000 <= 0.05


def test_a_bound_agrees_with_the_one_sided_test_and_needs_enough_cases() -> None:
    for cases, gained, lost, is_proven in [
        (40, 0, 0, False), (60, 0, 0, True), (50, 0, 1, False), (200, 4, 3, True), (300, 0, 10, False),
        (80, 12, 0, True),
    ]:  # fmt: skip
        p_value = 1 - NormalDist().cdf(stats._tango_statistic(cases, gained, lost, -0.05))
        low, _ = stats.paired_difference_interval(cases, gained, lost, 1 - 2 * 0.05)
        assert (low > -0.05) == (p_value < 0.05) == is_proven


def test_bootstrap_repeats_with_its_seed_and_brackets_the_mean() -> None:
    rng = random.Random(3)
    differences = [rng.gauss(0.3, 1) for _ in range(120)]
    first, second = stats.paired_bootstrap(differences), stats.paired_bootstrap(differences)
    assert first == second
    assert first.low < first.mean < first.high
    assert first.high - first.low == pytest.approx(2 * 1.96 / math.sqrt(120), rel=0.25)
    assert stats.paired_bootstrap(differences, seed=1) != first


def test_clustered_bootstrap_is_wider_when_rows_repeat() -> None:
    values = [0.0, 1.0] * 15
    repeated = [value for value in values for _ in range(10)]
    labels = [index for index in range(30) for _ in range(10)]
    naive = stats.paired_bootstrap(repeated)
    honest = stats.paired_bootstrap(repeated, clusters=labels)
    assert honest.high - honest.low > 2 * (naive.high - naive.low)
    with pytest.raises(ValueError, match="one each"):
        stats.paired_bootstrap(values, clusters=[1])


def test_twenty_cases_show_no_gain_under_thirty_points_and_sixty_show_ten() -> None:
    assert stats.minimum_detectable_effect(20) == pytest.approx(0.30)
    assert stats.minimum_detectable_effect(60) == pytest.approx(0.10)
    assert stats.minimum_detectable_effect(5) == math.inf
    assert stats.detectable_text(20) == "with 20 cases no gain under 30 points can be shown"
    assert "at least 6" in stats.detectable_text(3)


def test_the_flips_to_show_are_the_fewest_that_the_exact_test_calls_significant() -> None:
    for alpha in (0.2, 0.1, 0.0625, 0.05, 0.01, 0.001):
        flips = stats.flips_to_show(alpha)
        assert stats.mcnemar_exact(flips, 0) < alpha <= stats.mcnemar_exact(flips - 1, 0)


def test_one_flip_in_each_of_six_seed_rows_is_the_smallest_gain_that_can_be_shown() -> None:
    for cases, rows in [(60, 30), (20, 10), (12, 6), (40, 7)]:
        gain = stats.minimum_detectable_effect(cases, rows=rows)
        flips = round(gain * cases)
        nets = [1] * flips + [0] * (rows - flips)
        assert max(stats.mcnemar_exact(flips, 0), stats.mcnemar_clustered(nets)) < 0.05
        assert stats.mcnemar_clustered(nets[1:]) > 0.05, "a flip less shows nothing"
    labels = [n // 2 for n in range(60)]
    assert (
        stats.detectable_text(60, clusters=labels)
        == "with 60 cases (30 independent) no gain under 10 points can be shown"
    )
    assert stats.minimum_detectable_effect(60, rows=5) == math.inf, "however many cases they make"


def test_no_interval_of_differences_leaves_the_range_of_differences() -> None:
    rng, labels = random.Random(11), [n // 2 for n in range(16)]
    flips: list[list[float]] = [[1.0] * 12 + [0.0] * 4, [1.0] * 16, [-1.0] * 15 + [0.0], [-1.0] * 16]
    flips += [[rng.choice((-1.0, 0.0, 1.0, 1.0, 1.0)) for _ in range(16)] for _ in range(20)]
    for deltas in flips:
        found = stats.paired_bootstrap(deltas, clusters=labels, resamples=300)
        assert -1 <= found.low <= found.mean <= found.high <= 1
        for confidence in (0.9, 0.95):
            low, high = stats.clustered_difference_interval(deltas, labels, confidence, resamples=300)
            assert -1 <= low <= high <= 1
    beyond = stats.paired_bootstrap([2.0, 3.0, 4.0] * 5)
    assert beyond.low < beyond.mean < beyond.high, "scores that a judge gives outside 0 to 1 keep their interval"


def test_holm_matches_a_worked_example_and_keeps_order() -> None:
    adjusted = stats.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_the_clustered_test_is_mcnemars_for_clusters_of_one_and_stricter_for_larger_ones() -> None:
    for gained, lost in [(0, 0), (6, 0), (5, 9), (12, 12), (30, 11)]:
        assert stats.mcnemar_clustered([1] * gained + [-1] * lost + [0] * 7) == stats.mcnemar_exact(gained, lost)
    assert stats.mcnemar_clustered([5, 5]) == 0.5  # ten flips one way, but from two seed rows
    assert stats.mcnemar_clustered([2, 1, 1, -1]) == 0.5  # by hand: 8 of 16 sign patterns reach 3
    assert stats.mcnemar_clustered([3] * 400) < 1e-100


def test_what_a_plan_says_of_its_cases_loads_no_scipy() -> None:
    script = """
import sys
from tunesmith.tools.core import stats
print(stats.detectable_text(60), stats.guard_text(24, 0.05), stats.mcnemar_clustered([2, 1, -1]))
sys.exit("scipy" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def test_resampling_gives_the_figures_of_plain_loops() -> None:
    """Exact signs by counting every pattern, percentiles by drawing clusters one by one from the same seed."""
    import numpy as np

    rng = random.Random(9)
    for cases in (2, 7, 13):
        values = [rng.choice((-1.0, -0.25, 0.5, 1.0)) for _ in range(cases)]
        sums = [sum(map(operator.mul, values, signs)) for signs in itertools.product((1, -1), repeat=cases)]
        reached = sum(abs(total) >= abs(sum(values)) - 1e-9 for total in sums)
        assert stats.sign_flip_test(values) == reached / 2**cases
    # Skewed, so that the upper percentile lies beyond Student's floor.
    values, labels = [rng.random() ** 9 for _ in range(200)], [n // 2 for n in range(200)]
    found = stats.paired_bootstrap(values, clusters=labels, seed=4)
    totals = np.asarray(values).reshape(100, 2).sum(axis=1)
    draws = np.random.default_rng(4).integers(0, 100, size=(10_000, 100))
    means = totals[draws].sum(axis=1) / 200
    # Student's quantile for 100 clusters, at the tail of a normal that 10,000 draws of them lack.
    tail = NormalDist().cdf(-1.9842169515 * math.sqrt(100 / 99))
    assert found.high == pytest.approx(float(np.quantile(means, 1 - tail)), abs=1e-9)


def test_the_sign_flip_test_is_exact_when_small_seeded_when_large_and_never_zero() -> None:
    assert stats.sign_flip_test([0.5] * 6) == stats.mcnemar_exact(6, 0)
    assert stats.sign_flip_test([0.0] * 9) == 1.0
    assert stats.sign_flip_test([1.0] * 30) == stats.sign_flip_test([1.0] * 30) == 1 / 10_001
    assert stats.sign_flip_test([1.0] * 30, clusters=[n // 15 for n in range(30)]) == 0.5


@pytest.mark.heavy
def test_what_is_counted_here_is_what_scipy_counts() -> None:
    import numpy as np
    import scipy.stats

    rng = random.Random(9)
    for _ in range(300):
        gained, lost = rng.randrange(60), rng.randrange(1, 60)
        expected = scipy.stats.binomtest(gained, gained + lost).pvalue
        assert stats.mcnemar_exact(gained, lost) == pytest.approx(expected, rel=1e-12)
    for cases in (2, 3, 8, 13):
        scores = [rng.choice([-1.0, 0.5, 1.0, rng.random()]) for _ in range(cases)]
        signs = scipy.stats.permutation_test(
            (np.array(scores),), lambda drawn: abs(drawn.sum()), permutation_type="samples", alternative="greater"
        )
        assert stats.sign_flip_test(scores) == pytest.approx(signs.pvalue, abs=1e-12)
    scores = [rng.choice([0.0, 0.0, 1.0, rng.random()]) for _ in range(40)]
    drawn = scipy.stats.bootstrap(
        (np.array(scores),), np.mean, method="percentile", n_resamples=stats.RESAMPLES, confidence_level=0.9,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    ours = stats.paired_bootstrap(scores, confidence=0.9)
    assert ours.low == pytest.approx(drawn.low, abs=0.02) and ours.high == pytest.approx(drawn.high, abs=0.02)
    assert ours.low < drawn.low and drawn.high < ours.high, "tails that make up for few draws are a little wider"


def test_the_sign_flip_test_raises_a_false_alarm_in_about_five_percent() -> None:
    rng = random.Random(5)
    alarms = sum(stats.sign_flip_test([rng.gauss(0, 1) for _ in range(8)]) < 0.05 for _ in range(600))
    assert alarms / 600 <= 0.075


def test_the_plan_says_what_guarded_cases_leave_open() -> None:
    assert stats.guard_text(24, 0.05) == "24 cases leave a loss of up to 10.1 points open when none is lost"
    assert stats.guard_text(63, 0.05).endswith("4.1 points open when none is lost, inside the margin of 5")


@pytest.mark.heavy
def test_over_2000_simulated_pairs_ours_holds_its_level_and_two_bare_pass_rates_do_not() -> None:
    real, none = simulate(2000, 1, no_difference=False), simulate(2000, 2, no_difference=True)
    assert 0.93 <= real.share(real.covered) <= 0.97
    assert 0.93 <= none.share(none.covered) <= 0.97
    assert none.share(none.alarms) <= 0.05
    assert none.share(none.higher_wins) > 0.4, "that the higher rate wins is a coin's word"
    assert real.share(real.naive_covered) > 0.97 and real.width < 0.9 * real.naive_width, "unpaired is blunter"


@pytest.mark.heavy
def test_intervals_of_clustered_and_graded_cases_hold_their_level_down_to_sixteen_cases() -> None:
    for cases in ((40, 120), (16, 24)):
        rates = simulate(150, 3, no_difference=False, cases=cases, cluster=4)
        assert rates.share(rates.covered) >= 0.95, "more than it says: it allows for rows whose cases always agree"
        assert rates.share(rates.ignoring_covered) < 0.92, "with the clusters ignored it misses too often"
        for cluster in (1, 4):
            graded = simulate_graded(300, 5, cases=cases, cluster=cluster)
            assert graded.share(graded.covered) >= 0.92  # 95 % less two standard errors of 300 draws


def test_knowing_of_clusters_never_narrows_an_interval() -> None:
    rng = random.Random(7)
    for _ in range(60):
        cases = rng.randint(2, 70)
        deltas = [rng.choice((-1.0, 0.0, 0.0, 0.0, 1.0)) * (rng.random() < 0.6) for _ in range(cases)]
        labels = [rng.randrange(max(1, cases // 2)) for _ in range(cases)]
        alone = stats.paired_difference_interval(cases, deltas.count(1.0), deltas.count(-1.0))
        low, high = stats.clustered_difference_interval(deltas, labels, resamples=500)
        assert low <= alone[0] + 1e-9 and high >= alone[1] - 1e-9


def test_what_never_varies_is_not_certain() -> None:
    for labels in (range(10), [n // 2 for n in range(10)], [0] * 10):
        found = stats.paired_bootstrap([0.0] * 10, clusters=list(labels))
        assert found.low < -0.2 and found.high > 0.2
    assert stats.effective_cases("aabbcc") == 3
    assert stats.effective_cases(range(9)) == 9
    assert stats.effective_cases("aaaab") < 2
