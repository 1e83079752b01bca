"""A look into a file of rows tells what is in it, and takes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.asking import asked
from tests.fixtures.stored_runs import Builder, finished_run
from tunesmith.agent.queries.table import text_of
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store

ROWS = [
    ("where is my parcel", "[LOST]"),
    ("where is my parcel", "[LOST]"),
    ("where is my parcel", "[LATE]"),
    ("hi", "-"),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return finished_run(tmp_path / "home")[0]


def written(folder: Path, rows: list[dict[str, str]]) -> str:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows_in(folder: Path) -> str:
    return written(folder, [{"prompt": one, "completion": two} for one, two in ROWS])


def test_a_file_is_told_with_its_form_its_valid_records_and_its_doubles(store: Store, tmp_path: Path) -> None:
    before = store.steps("r1")
    found = asked(store, "file_of_rows", path=rows_in(tmp_path))
    counts = {"read": 4, "can_be_rows": 4, "unusable": 0, "repeat_a_row": 1, "repeat_a_message": 2}
    assert {"status": "READY", "about_records": 4, **counts}.items() <= found.facts[0].items()
    assert found.of["imported_by"] == "no run" and store.steps("r1") == before


def test_rows_go_to_the_screen_and_never_to_a_model(store: Store, tmp_path: Path) -> None:
    found = asked(store, "file_of_rows", path=rows_in(tmp_path))
    assert any("where is my parcel" in line for line in text_of(found))
    assert "parcel" not in found.for_model() + json.dumps(found.as_json())


def test_a_file_of_other_columns_is_told_by_its_columns_on_the_screen_alone(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path, [{"betreff": "a b c", "antwort": "d e f", "nr": "1"}] * 3)
    found = asked(store, "file_of_rows", path=path)
    [fact] = found.facts
    assert (
        fact["status"] != "READY"
        and (fact["columns"], fact["can_be_rows"]) == (3, 0)
        and "/import" in str(fact["next"])
    )
    assert any("betreff" in line for line in text_of(found))
    assert "betreff" not in found.for_model(), "of a file without a header it is its first row"


def test_why_a_record_is_no_row_goes_to_the_screen_and_never_to_a_model(store: Store, tmp_path: Path) -> None:
    path = rows_in(tmp_path)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("no JSON\n")
    found = asked(store, "file_of_rows", path=path)
    assert {"read": 5, "can_be_rows": 4, "unusable": 1}.items() <= found.facts[0].items()
    [problem] = [one for one in found.texts if "problem" in one]
    assert problem["record"] == 5 and str(problem["problem"]) not in found.for_model()


def test_a_file_that_was_imported_is_told_with_its_step(store: Store, tmp_path: Path) -> None:
    path = rows_in(tmp_path)
    build = Builder(store, "r1")
    step = build.step("import", request={"source": path})
    build.end(step, 1.0, 1, {"rows": 4, "incompatible": 0})
    imported = asked(store, "file_of_rows", path=path).of["imported_by"]
    assert imported == {"run": "r1", "step": step, "rows_taken": 4, "refused": 0}


def test_a_file_that_is_not_named_or_not_there_is_said_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No file is named"):
        asked(store, "file_of_rows")
    with pytest.raises(BadInput, match="is not there"):
        asked(store, "file_of_rows", path=str(tmp_path / "none.jsonl"))
