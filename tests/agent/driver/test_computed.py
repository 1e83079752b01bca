"""Figures that were computed from what was told pass, and made-up ones are withheld as before."""

from __future__ import annotations

import random

import pytest

from tests.fixtures.tables import table
from tunesmith.agent.driver.voice import checked, unsupported

TIMES = (
    "train took 2 min 32 s (s7 of r1, 2026-11-18 11:11), estimated 2 min 40 s.\nPeak memory 2.3 GiB, estimated 2.4.",
    "merge took 18.0 s (s9 of r1), estimated 16 s.",
    "quantize took 45 s",
)
PASSED = ("target: base 2 of 60, adapter 59 of 60, quantized 57 of 60\ngeneral: base 20 of 24, adapter 19 of 24",)


@table(
    ("heard", "text"),
    [
        (TIMES, "Training took 2 min 14 s longer than merging."),
        (TIMES, "Training took 134 seconds longer than merging."),
        (TIMES, "It took 8.4 times as long."),
        (TIMES, "Together they took 3 min 35 s."),
        (TIMES, "That is 5 % less than estimated."),
        (TIMES, "Merging took 12 % of the time."),
        (TIMES, "It took 8 s less than estimated."),
        (TIMES, "It was 2 min 32 s, or 152 seconds."),
        (PASSED, "57 more cases pass with the adapter."),
        (PASSED, "Quantizing lost 2 cases."),
        (PASSED, "That is 97% of what the adapter passes."),
    ],
)
def test_a_sum_a_difference_a_ratio_and_a_percentage_of_what_was_told_pass(heard: tuple[str, ...], text: str) -> None:
    assert unsupported(text, heard) == []


@table(
    ("heard", "text", "wrong"),
    [
        (TIMES, "It took 37 s longer.", ["37 s"]),
        (TIMES, "That is 71 % less.", ["71 %"]),
        (TIMES, "Together they took 4 min 10 s.", ["250 s"]),
        (PASSED, "33 more cases pass.", ["33"]),
        (PASSED, "It gained 41 cases.", ["41"]),
        (PASSED, "It passes 98 % of the target.", []),
        (("lora_rank was 16, epochs were 2",), "That makes 32 of them.", ["32"]),
        ((), "It took 12 s longer.", ["12 s"]),
    ],
)
def test_what_no_two_figures_come_to_is_withheld(heard: tuple[str, ...], text: str, wrong: list[str]) -> None:
    assert unsupported(text, heard) == wrong
    assert checked(text, heard)[0] == ("" if wrong else text)


def test_only_what_is_alike_is_set_against_each_other() -> None:
    assert unsupported("It is 27 larger.", ["quantize took 45 s", "merge took 18 MiB"]) == ["27"]
    assert unsupported("It took 27 s longer.", ["quantize took 45 s", "it is 18 MiB"]) == ["27 s"]
    assert unsupported("3 more.", ["5 of 60", "2 of 24"]) == ["3"]


@pytest.mark.heavy
def test_where_much_was_told_a_made_up_figure_seldom_passes_for_a_computed_one() -> None:
    chance = random.Random(0)
    lines = [f"step {n} took {chance.randint(5, 900)} s, estimated {chance.randint(5, 900)} s" for n in range(12)]
    made_up = [f"It took {chance.randint(10, 99)} % longer." for _ in range(300)]
    passed = sum(not unsupported(text, lines) for text in made_up)
    known = sum(not unsupported(text, [line.replace("s", "") for line in lines]) for text in made_up)
    assert passed - known < 0.2 * len(made_up), (passed, known)


@table("heard", ["disk: 37 GiB free", "merge took 37 s", "37 % of memory is used", "step s37"])
def test_a_size_a_time_and_a_share_are_no_count(heard: str) -> None:
    assert unsupported("You have 37 runs.", [heard]) == ["37"]
    assert unsupported("You have 37 runs.", [heard, "runs: 37"]) == []
