"""A look into a file of rows tells what is in it, and takes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.stored_runs import finished_run
from tunesmith.agent.queries.answer import Answer, Context
from tunesmith.agent.queries.files import Doubles, FileFacts, FileQuery, Validity
from tunesmith.agent.queries.registry import answer
from tunesmith.memory.errors import BadInput
from tunesmith.tools.pipeline.workspace import Workspace

ROWS = [
    ("where is my parcel", "[LOST]"),
    ("where is my parcel", "[LOST]"),
    ("where is my parcel", "[LATE]"),
    ("hi", "-"),
]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Workspace(finished_run(tmp_path / "home")[0], None, lambda event, **data: None))


def written(folder: Path, rows: list[dict[str, str]]) -> str:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def asked(context: Context, about: str, path: str) -> Answer:
    return answer(FileQuery.model_validate({"about": about, "path": path}), context)


def test_the_rows_of_a_file_and_their_form_are_told(context: Context, tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": one, "completion": two} for one, two in ROWS])
    found = asked(context, "rows", path)
    (facts,) = found.data
    assert isinstance(facts, FileFacts) and facts.status == "READY" and facts.records == len(ROWS)
    assert "4 records" in found.lines[0] and "Nothing was imported" in found.lines[0]
    assert context.store.steps("r1") == Context(context.ws).store.steps("r1")


def test_doubles_are_counted_by_whole_row_and_by_message(context: Context, tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": one, "completion": two} for one, two in ROWS])
    (doubles,) = asked(context, "doubles", path).data
    assert isinstance(doubles, Doubles)
    assert (doubles.rows, doubles.same_row, doubles.same_prompt, doubles.unusable) == (4, 1, 2, 0)


def test_the_first_rows_go_to_the_screen_and_never_to_a_model(context: Context, tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": one, "completion": two} for one, two in ROWS])
    found = asked(context, "first", path)
    assert "where is my parcel" in found.lines[0] and "parcel" not in found.for_model


def test_a_file_of_other_columns_is_told_by_its_columns_and_not_compared(context: Context, tmp_path: Path) -> None:
    path = written(tmp_path, [{"betreff": "a b c", "antwort": "d e f", "nr": "1"}] * 3)
    found = asked(context, "rows", path)
    assert "betreff" in found.lines[0] and "READY" not in found.lines[0]
    assert "betreff" not in found.for_model + str(found.as_json()), "of a file without a header it is its first row"
    assert "cannot be compared" in asked(context, "doubles", path).lines[0]


def test_a_file_that_is_not_named_or_not_there_is_said_so(context: Context, tmp_path: Path) -> None:
    assert "Name the file" in asked(context, "rows", "").lines[0]
    with pytest.raises(BadInput, match="there is no"):
        asked(context, "rows", str(tmp_path / "none.jsonl"))


def test_valid_records_are_counted_and_an_imported_file_is_said_to_be_one(context: Context, tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": one, "completion": two} for one, two in ROWS])
    found = asked(context, "valid", path)
    assert found.lines == (f"{path}: of 4 records, all can be taken as rows. Nothing was imported.",)
    assert found.data[1] == Validity(4, 4, 0)


def test_why_a_record_is_no_row_goes_to_the_screen_and_never_to_a_model(context: Context, tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": one, "completion": two} for one, two in ROWS])
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("no JSON\n")
    found = asked(context, "valid", path)
    assert "of 5 records, 4 can be taken as rows, 1 cannot" in found.lines[0] and "Record 5:" in found.lines[1]
    assert "Record 5" not in found.for_model and found.data[1] == Validity(5, 4, 1)
