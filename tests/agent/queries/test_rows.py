"""Training rows: counted by origin and verdict; their texts are for the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.stored_runs import Builder
from tests.fixtures.tables import table
from tunesmith.memory.errors import NotFound
from tunesmith.memory.marks import Mark, add_mark
from tunesmith.memory.records import RowAttributes, TrainingRow
from tunesmith.memory.store import Store

ALL = stored_runs.training_rows("")


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    return stored_runs.new_builder(tmp_path / "home")


def written(build: Builder, rows: Sequence[TrainingRow], stage: str = "generate") -> str:
    step = build.step(stage)
    build.store.add_rows(build.run, step, list(rows))
    build.end(step, 1.0, 1, {})
    return step


def shown(store: Store, **given: Any) -> list[object]:
    found = asked(store, "rows", **given)
    return [text["row"] for text in found.texts[: found.most]]


@table(
    ("given", "fact"),
    [
        ({}, {"origin": "generated", "candidates": 130, "kept": 112, "train": 100, "validation": 12}),
        ({}, {"origin": "rehearsal", "kept": 26, "dropped": 4}),
        ({}, {"origin": "all", "kept": 138, "dropped": 22, "dropped_for": {"near-duplicate": 20, "leak": 2}}),
        ({"verdict": "keep", "origin": "rehearsal"}, {"origin": "rehearsal", "kept": 26, "dropped": 0}),
        ({"reason": "duplicate"}, {"origin": "all", "candidates": 20}),
        ({"split": "valid", "origin": "generated"}, {"candidates": 12, "train": 0, "most_words": 23}),
    ],
)
def test_rows_are_counted_by_origin(two_runs: Store, given: dict[str, Any], fact: dict[str, object]) -> None:
    assert any(fact.items() <= one.items() for one in asked(two_runs, "rows", run="r1", **given).facts)


def test_a_part_of_the_rows_is_named_with_what_it_is_of(two_runs: Store) -> None:
    of = asked(two_runs, "rows", run="r1", verdict="drop", reason="leak").of
    assert of["subset"] == "2 of 160 rows" and of["reason"] == "leak"
    assert "subset" not in asked(two_runs, "rows").of


def test_a_reason_or_an_origin_that_no_row_has_is_said_with_those_that_there_are(two_runs: Store) -> None:
    for given in ({"reason": "too long"}, {"origin": "imported"}):
        with pytest.raises(NotFound, match=r"of its 160 are: 130 generated, 30 rehearsal, 20 near-duplicate"):
            asked(two_runs, "rows", **given)


def test_as_many_texts_as_were_asked_for_are_for_the_screen_and_none_for_a_model(two_runs: Store) -> None:
    assert not asked(two_runs, "rows").texts
    for given, number in (({"examples": "sample"}, 4), ({"examples": "longest", "most": 5}, 5), ({"most": 2}, 2)):
        found = asked(two_runs, "rows", **given)
        assert found.most == number < len(found.texts)
        assert "parcel" in str(found.texts) and "parcel" not in found.for_model() + json.dumps(found.as_json())
    assert shown(two_runs, most=3, skip=2)[0] == shown(two_runs, most=3)[2]


def test_a_row_is_found_by_its_id_and_by_words_and_its_text_is_told_to_no_model(two_runs: Store) -> None:
    by_id, by_words = (asked(two_runs, "row", run="r1", row=row) for row in ("g003", "60003 phone"))
    assert by_id.facts == by_words.facts == (
        {"row": "g003", "origin": "generated", "became": "dropped: near-duplicate"},
    )  # fmt: skip
    assert "0049 170" in str(by_id.texts) and "0049" not in by_id.for_model() + json.dumps(by_id.as_json())
    with pytest.raises(NotFound, match="None of 160 rows of r1 is zebra or holds it"):
        asked(two_runs, "row", run="r1", row="zebra")
    assert asked(two_runs, "row", run="r1", row="paid", verdict="keep").left_out == {"rows": 98}


def test_rows_of_the_behaviour_come_before_ordinary_ones(build: Builder) -> None:
    written(build, [*ALL[150:156], *ALL[:2]])
    assert shown(build.store, most=3) == ["g000", "g001", "g150"]
    assert shown(build.store, most=9, origin="rehearsal") == [row.row_id for row in ALL[150:156]]


@table("split", ["train", "valid"])
def test_the_longest_row_is_of_the_part_that_was_asked_for(build: Builder, split: str) -> None:
    written(build, ALL)
    [longest] = shown(build.store, examples="longest", split=split, most=1)
    assert next(row for row in ALL if row.row_id == longest).split == split


def test_a_blind_case_that_was_a_row_is_counted_and_shown_to_nobody(build: Builder) -> None:
    blind = replace(ALL[4], attributes=RowAttributes(hidden=True))
    written(build, [*ALL[:3], blind])
    found = asked(build.store, "rows", most=9)
    assert found.facts[0]["candidates"] == 4 and len(found.texts) == 3 and found.left_out == {"blind cases": 1}
    assert not asked(build.store, "row", row="g004").texts
    with pytest.raises(NotFound):
        asked(build.store, "row", row="60004")


def test_rows_that_were_imported_are_rows_of_the_run_and_the_newest_count(build: Builder) -> None:
    written(build, ALL[:2])
    written(build, [replace(row, origin="imported") for row in ALL[:5]], "import")
    assert [(one["origin"], one["candidates"]) for one in asked(build.store, "rows").facts] == [("imported", 5)]


def test_what_critique_and_people_said_of_the_rows_is_told(build: Builder) -> None:
    step = written(build, ALL)
    assert asked(build.store, "rows").of["rows_marked_by_a_person"] == 0
    add_mark(build.store, Mark("tickets", build.run, step, "g000", "keep", "a message", "its answer", "its answer"))
    critique = build.step("critique")
    odd = "17 of your 225 rows look odd"
    build.end(critique, 1.0, 1, {"notes": [odd], "balance": {"category": {"billing": 138}}})
    found = asked(build.store, "rows")
    assert found.says == (odd,) and found.of["rows_marked_by_a_person"] == 1
    assert found.of["kept_by_value"] == {"category": {"billing": 138}}


def test_a_run_without_rows_says_what_makes_them(build: Builder) -> None:
    build.end(build.step("base"), 1.0, 1, {})
    with pytest.raises(NotFound, match="r1 has no training rows yet"):
        asked(build.store, "rows", run="r1")
    build.step("generate")
    with pytest.raises(NotFound, match="r1 is writing its rows"):
        asked(build.store, "rows", run="r1")
