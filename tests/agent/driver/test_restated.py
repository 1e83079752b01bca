"""The last answer in another form says the same figures, and says where it has none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.fixtures.tables import table
from tunesmith.agent.driver.restated import restated
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.tools.core.format import duration, size


def said(text: str, form: str, page: Any = None) -> str:
    shown: list[Any] = []
    deps = SimpleNamespace(last_answer=text, page=page, show=shown.append)
    told = restated(cast(TurnDeps, deps), form)
    return "".join(map(str, shown)) + told


def test_every_share_of_an_answer_is_told_in_percent_and_nothing_else_is_a_share() -> None:
    told = said(
        "The adapter passes 57 of 60 target cases, the base 1,002 of 2,004; r1 of 2026 has 3 blocks.", "percent"
    )
    assert told == "57 of 60 is 95.0 %; 1,002 of 2,004 is 50.0 %."


@table(
    ("seconds", "told"),
    [
        (4.24, "4.2 s is 0.00 h, 0.1 min or 4 s"),
        (185, "3 min 05 s is 0.05 h, 3.1 min or 185 s"),
        (4320, "1 h 12 min is 1.20 h, 72.0 min or 4,320 s"),
    ],
)
def test_a_span_is_told_in_every_unit_as_the_program_writes_it(seconds: float, told: str) -> None:
    assert said(f"train took {duration(seconds)} in r1.", "units") == f"{told}."


@pytest.mark.parametrize("bytes_", [3 << 20, 5 << 30, 700 << 10])
def test_a_size_is_told_in_binary_and_decimal_units(bytes_: int) -> None:
    told = said(f"The adapter takes {size(bytes_)}.", "units")
    assert f"{bytes_ / 1e9:.2f} GB" in told and f"{bytes_ / 1e6:,.0f} MB" in told


def test_an_answer_without_such_a_figure_is_not_made_one() -> None:
    assert "no share of a whole" in said("Nothing is running.", "percent")
    assert "no span of time and no size" in said("rank is 16, of r2.", "units")
    assert "said nothing yet" in said("", "percent")


def test_the_first_sentence_is_the_short_form_and_a_decimal_point_ends_none() -> None:
    assert said("It passes 57.5 % of them; more than before. Deploy it?", "shorter") == "It passes 57.5 % of them."


def test_a_table_is_the_page_behind_the_answer() -> None:
    assert "a page" in said("57 of 60.", "table", lambda: "a page") and "has no table" in said("57 of 60.", "table")
