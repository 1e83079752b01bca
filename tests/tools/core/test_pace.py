"""Prices that learn: what a first run's steps say of the ones after them, on machines that are slow in several ways."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.prices import IDLE, MACHINES, replay
from tests.fixtures.tables import table
from tunesmith.tools.core.pace import Pace, Past
from tunesmith.tools.core.rates import ANSWER, START, TRAIN

RUNS = 40


@pytest.mark.heavy
@table("machine", MACHINES)
def test_from_the_third_step_of_a_first_run_on_most_prices_hold(machine: str) -> None:
    found = replay(machine, RUNS)
    assert found.near >= 0.8, f"{found.near:.0%} of the steps within 35 % of their price"
    assert found.within >= 0.75, f"{found.within:.0%} of the steps within an interval that promises 80 %"
    assert machine == IDLE or found.near > found.arithmetic_near + 0.1


def step(stage: str, taken: float, run: str = "r1", **priced: float) -> Past:
    return Past(stage, "", run, tuple(priced.items()), taken)


def factor(past: list[Past], work: Past) -> float:
    return Pace(past).price(work).seconds / sum(seconds for _, seconds in work.priced)


def test_a_kind_of_work_that_is_slow_says_more_of_its_own_than_of_others() -> None:
    slow_training = [step("preflight", 60, **{TRAIN: 15.0}), step("baseline", 30, **{ANSWER: 30.0})]
    training, answering = (factor(slow_training, step("x", 0, **{kind: 50.0})) for kind in (TRAIN, ANSWER))
    assert training > 1.5 * answering


def test_what_was_measured_of_each_kind_says_more_than_the_whole() -> None:
    whole = Past("baseline", "", "r1", ((START, 20.0), (ANSWER, 20.0)), 100.0)
    apart = Past("baseline", "", "r1", whole.priced, 100.0, ((START, 20.0), (ANSWER, 80.0)))
    answers, starts = step("generate", 0, **{ANSWER: 40.0}), step("deploy", 0, **{START: 40.0})
    assert factor([apart], answers) > factor([whole], answers) and factor([apart], starts) < factor([whole], starts)


def test_what_a_server_reads_as_it_starts_is_part_of_its_start() -> None:
    priced = ((START, 10.0), ("read", 3.0), (ANSWER, 13.0))
    as_priced = Past("baseline", "", "r1", priced, 26.0, ((START, 13.0), (ANSWER, 13.0)))
    assert factor([as_priced], step("deploy", 0, **{START: 40.0})) == pytest.approx(1)


def test_what_was_measured_of_other_kinds_than_were_priced_counts_as_a_whole() -> None:
    work = ((START, 20.0),)
    elsewhere = Past("base", "", "r1", work, 100.0, ((START, 5.0), ("read", 95.0)))
    assert factor([elsewhere], elsewhere) == factor([Past("base", "", "r1", work, 100.0)], elsewhere) > 2


def test_where_steps_vary_more_than_they_should_an_interval_is_wider() -> None:
    def width(*taken: float) -> float:
        price = Pace([step("train", seconds, **{TRAIN: 100.0}) for seconds in taken]).price(
            step("train", 0, **{TRAIN: 50.0})
        )
        return price.most / price.least

    assert width(100, 700, 90, 650) > 1.5 * width(200, 210, 190, 205)


def test_the_same_steps_say_the_same_and_an_older_run_says_less() -> None:
    past = [step("baseline", 90, **{ANSWER: 30.0}), step("generate", 90, **{ANSWER: 30.0})]
    now, later = step("evaluate", 0, **{ANSWER: 30.0}), step("evaluate", 0, "r2", **{ANSWER: 30.0})
    assert factor(past, now) == factor(list(past), now) > factor(past, later) > 1
    assert factor([], now) == 1


def test_one_step_that_is_far_out_moves_a_price_no_further_than_a_believable_one() -> None:
    usual = [step("train", 100 + n, f"r{n}", **{TRAIN: 100.0}) for n in range(5)]
    next_one = step("train", 0, "r9", **{TRAIN: 100.0})

    def after(taken: float) -> float:
        return factor([*usual, step("train", taken, "r8", **{TRAIN: 100.0})], next_one)

    assert 1 < after(120) < after(1000) == pytest.approx(after(100_000), rel=0.01)
    assert after(1000) < 2.5


def test_what_was_priced_by_assumed_rates_says_little_of_a_price_by_measured_ones() -> None:
    measured = Past("baseline", "", "r1", ((ANSWER, 10.0),), 40.0)
    assumed = replace(measured, spread=4.0)
    later = step("generate", 0, **{ANSWER: 40.0})
    assert 1 < factor([assumed], later) < 0.6 * factor([measured], later)
    started = Past("deploy", "", "r1", ((START, 10.0),), 40.0)
    assert factor([replace(started, spread=4.0)], started) == factor([started], started)
