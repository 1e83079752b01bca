"""One figure of every run, ranked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store


@table(
    ("given", "fact"),
    [
        ({"figure": "rows"}, {"rows_to_train_on": 123, "rows_kept": 138}),
        ({"figure": "setting", "field": "learning_rate"}, {"learning_rate": 0.0005}),
        ({"figure": "memory", "stage": "train"}, {"stage": "train"}),
        ({"figure": "pass_rate", "arm": "adapter"}, {"arm": "adapter", "judged": 60}),
    ],
)
def test_every_run_has_its_figure(two_runs: Store, given: dict[str, Any], fact: dict[str, object]) -> None:
    facts = asked(two_runs, "across", **given).facts
    assert {one["run"] for one in facts} == {"r1", "r2"} and all(fact.items() <= one.items() for one in facts)


def test_numbers_are_ranked_either_way(two_runs: Store) -> None:
    most, least = (asked(two_runs, "across", figure="time", order=order).facts for order in ("most", "least"))
    assert [one["run"] for one in most] == [one["run"] for one in least][::-1]
    assert most[0]["seconds"] > most[1]["seconds"]  # type: ignore[operator]


def test_a_figure_that_no_run_recorded_is_not_made_up(two_runs: Store) -> None:
    with pytest.raises(NotFound, match="No run has recorded no such setting"):
        asked(two_runs, "across", figure="setting", field="no such setting")
