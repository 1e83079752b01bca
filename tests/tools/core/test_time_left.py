"""The share of a step that is done counts all its passes and never falls; its time is told anew only in words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tunesmith.tools.core.rates import ANSWER, COMPUTE, START, TRAIN
from tunesmith.tools.core.time_left import WAIT, TimeLeft

Report = tuple[float, str, float, float]
"""When, of which kind of work, units done, units in all."""


def work(slower: float = 1.0) -> Iterator[Report]:
    """A `generate`: a server starts for 20 s, then 400 answers in five rounds of other sizes; 40 s of them priced."""
    now = 0.0
    for _ in range(20):
        now += slower
        yield now, START, 0, 0
    for total in (24, 180, 120, 36, 40):
        for done in range(1, total + 1):
            now += 0.1 * slower
            yield now, ANSWER, done, total


def training(slower: float = 1.0) -> Iterator[Report]:
    """A `train`: imports, markers without units, 60 steps of 1.5 s, one more marker."""
    now = 8.0 * slower
    yield now, START, 0, 0
    for done, total in ((0, 1), (0, 1), *((step, 60) for step in range(61)), (1, 1)):
        now += 1.5 * slower
        yield now, TRAIN, done, total


def of_generate() -> TimeLeft:
    return TimeLeft({START: 20.0, ANSWER: 40.0}, answers=380)


def of_train() -> TimeLeft:
    return TimeLeft({START: 8.0, TRAIN: 95.0})


@pytest.mark.parametrize("slower", [0.6, 1.0, 1.4, 4.0])
@pytest.mark.parametrize(("of", "reports"), [(of_generate, work), (of_train, training)])
def test_a_share_never_falls_and_a_time_grows_only_with_a_word(of: object, reports: object, slower: float) -> None:
    left, shares, told = of(), [], 0.0  # type: ignore[operator]
    for now, kind, done, total in reports(slower):  # type: ignore[operator]
        left.report(kind, done, total, now)
        worth, whole = left.progress(now)
        shares.append(round(worth / whole, 9))
        assert whole <= told or not told or left.word, f"{whole:.0f} s in all after {told:.0f}, and no word of it"
        told = whole
    assert shares == sorted(shares) and 0.9 < shares[-1] < 1
    assert ("priced" in left.word) == (slower > 1.2), "it names a price that did not hold, and no other"


@pytest.mark.parametrize("slower", [0.6, 1.0, 1.4, 4.0])
@pytest.mark.parametrize(("of", "reports"), [(of_generate, work), (of_train, training)])
def test_half_way_the_time_left_is_told_by_what_was_measured(of: object, reports: object, slower: float) -> None:
    left, end = of(), max(now for now, *_ in reports(slower))  # type: ignore[operator]
    for now, kind, done, total in reports(slower):  # type: ignore[operator]
        left.report(kind, done, total, now)
        _, whole = left.progress(now)
        if now > end / 2:
            assert 0.7 < whole / end < 1.35
            return


def test_a_start_that_was_slow_says_that_the_rest_will_be() -> None:
    left = of_generate()
    left.report(START, 0, 0, 79.0)
    left.report(ANSWER, 0, 24, 80.0)
    assert left.progress(80.0)[1] > 80 + 1.5 * left.price_by_kind[ANSWER]


def test_waiting_for_another_step_is_no_work() -> None:
    left = of_train()
    for now in range(100):
        left.report(WAIT, 0, 0, float(now))
    left.report(START, 0, 0, 100.0)
    left.report(TRAIN, 0, 1, 110.0)
    assert left.progress(110.0)[1] == pytest.approx(110 + 95, rel=0.1) and not left.word
    assert left.end(200.0) == {START: pytest.approx(10), TRAIN: pytest.approx(90)}


def test_what_an_earlier_attempt_did_counts_as_done_and_not_as_quick() -> None:
    left = TimeLeft({START: 1.0, ANSWER: 100.0}, answers=100)
    left.report(START, 0, 0, 1.0)
    left.report(ANSWER, 60, 100, 1.0)
    left.report(ANSWER, 70, 100, 11.0)
    assert left.progress(11.0)[1] == pytest.approx(11 + 30, rel=0.2)


def test_work_that_reports_nothing_goes_on_and_is_never_done_before_its_end() -> None:
    left = TimeLeft({COMPUTE: 10.0})
    told = [left.progress(float(now)) for now in range(0, 60, 2)]
    shares = [round(worth / whole, 9) for worth, whole in told]
    assert shares == sorted(shares) and shares[-1] < 1 and told[-1][1] > 58


def test_more_answers_than_were_asked_for_are_all_of_them() -> None:
    left = TimeLeft({START: 1.0, ANSWER: 5.0}, answers=3)
    for now, done, total in ((1.0, 4, 3), (2.0, 10, 5), (3.0, 500, 600)):
        left.report(ANSWER, done, total, now)
        worth, whole = left.progress(now)
        assert 0 <= worth < whole
