"""Which labels are taken for which, and which checks fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store


def test_each_label_has_how_often_it_was_right_and_what_it_was_taken_for(tickets: Store) -> None:
    result = asked(tickets, "confusion")
    labels = [one for one in result.facts if "asked" in one]
    assert [(one["label"], one["right"], one["wrong"]) for one in labels] == [("billing", 2, 2), ("returns", 2, 2)]
    mixed = {(one["label"], one["taken_for"]): one["times"] for one in result.facts if "taken_for" in one}
    assert mixed == {("billing", "returns"): 2, ("returns", "no label"): 2}
    assert result.of["answers_that_are_no_json"] == 1 and result.of["answers"] == 8


def test_a_value_that_is_no_label_is_on_the_screen_and_never_told(tickets: Store) -> None:
    result = asked(tickets, "confusion")
    assert [text["given"] for text in result.texts] == ["my secret"] and "my secret" not in result.for_model()


def test_where_no_label_can_be_mixed_up_the_checks_that_fail_are_counted(two_runs: Store) -> None:
    facts = asked(two_runs, "confusion", run="r1", arm="quantized").facts
    assert facts == ({"failed_check": "is-json", "answers": 3},)
    general = asked(two_runs, "confusion", run="r1", arm="quantized", block="general")
    assert general.facts == ({"failed_check": "is-json", "answers": 2},) and general.of["block"] == "general"


def test_what_the_reader_took_for_what_is_told_with_how_far_it_can_be_trusted(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    read = {"tone": {"calm": {"calm": 7, "cross": 2}, "cross": {"cross": 5}}}
    build.end(build.step("generate"), 1.0, 1, {"reader": {"labels": {"tone": 0.9}}, "read": read})
    result = asked(build.store, "confusion", about="reader")
    assert {"key": "tone", "label": "calm", "taken_for": "cross", "times": 2} in result.facts
    assert result.facts[-1]["read_right_of_your_examples_share"] == 0.9 and result.of["read"] == 14


def test_a_run_without_rows_had_nothing_read_back(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path / "home")
    build.end(build.step("base"), 1.0, 1, {})
    with pytest.raises(NotFound, match="r1 has no written rows, so nothing was read back"):
        asked(build.store, "confusion", about="reader")
