"""What a run was to teach, in a line for a model and with its texts for the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver.exam_home import make_exam_home
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store


def test_a_behaviour_is_told_by_its_goal_its_labels_and_how_much_of_each_part_it_has(two_runs: Store) -> None:
    result = asked(two_runs, "described", run="r1")
    assert str(result.of["goal"]).startswith("answer a support ticket with one line of strict JSON")
    assert {"examples": 5, "rules": 2, "near_misses": 38, "behaviour": "ticket-triage"}.items() <= result.of.items()
    assert result.facts[0] == {
        "field": "category", "kind": "label", "values": ["billing", "delivery", "returns", "account", "technical"]
    }  # fmt: skip


@table(("part", "names", "number"), [("words", {"when", "what", "never"}, 1), ("examples", {"message", "answer"}, 5),
                                     ("rules", {"rule"}, 2), ("near_misses", {"near_miss"}, 38)])  # fmt: skip
def test_the_texts_of_a_part_are_for_the_screen(two_runs: Store, part: str, names: set[str], number: int) -> None:
    result = asked(two_runs, "described", run="r1", part=part)
    assert len(result.texts) == number and {*result.texts[0]} == names
    assert not any(str(value) in result.for_model() for text in result.texts for value in text.values())


def test_a_behaviour_whose_file_is_gone_cannot_be_told(tmp_path: Path) -> None:
    store = Store(make_exam_home(tmp_path / "home"))
    with store.write() as conn:
        conn.execute("UPDATE steps SET request = json_set(request, '$.behaviour', '/gone.yaml')")
    with pytest.raises(NotFound, match="The behaviour of r1 cannot be read any more"):
        asked(store, "described", run="r1")
