"""Imports one after another and at once: every row keeps an id of its own, in the file, in the table and on screen."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import warm
from tests.fixtures.steps import say_yes
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.waiting import HANG_S
from tunesmith.agent.commands.rows_view import review_of
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import seal
from tunesmith.memory.locks import adding_to
from tunesmith.memory.records import Artifact, Step, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.data.rows import read_rows, write_rows
from tunesmith.tools.imports.import_rows_job import RowIds
from tunesmith.tools.pipeline.run_step import price, propose, resume_step, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    made = Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)
    made.store.new_run("test")
    return made


def records(path: Path, names: Sequence[str | None], text: str) -> Path:
    lines: list[Mapping[str, Any]] = [
        {"prompt": f"{text} question {n}", "completion": f"{text} {n}", **({} if name is None else {"id": name})}
        for n, name in enumerate(names)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def take(ws: Workspace, path: Path, **fields: object) -> Step:
    return run_step(ws, StepRequest("import", {"source": str(path), **fields}, "r1"), say_yes).done()


def held(store: Store) -> list[TrainingRow]:
    """The run's rows, after its file, its table and what a person is shown were found to agree on them."""
    newest = store.artifacts("r1", "rows")[-1]
    file, table = read_rows(newest.path / "rows.jsonl"), store.rows(newest.step)
    assert [(r.row_id, r.prompt, r.completion) for r in file] == [(r.row_id, r.prompt, r.completion) for r in table]
    ids = [row.row_id for row in file]
    assert len(set(ids)) == len(ids) == newest.meta["rows"]
    assert sorted(suspect.row.row_id for suspect in review_of(store).suspects) == sorted(ids)
    return file


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_imported_after_each_other_every_row_has_an_id_of_its_own(
    seed: int, ws: Workspace, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    names = [None, None, "000001", "000002", "7", "7~2", "i-000001", "x", "000031", "y" * 70, "y" * 80, "", "a b"]
    said: dict[str, str] = {}
    for turn in range(4):
        path = records(tmp_path / f"{turn}.jsonl", rng.choices(names, k=25), f"file {rng.randrange(3)}")
        step = take(ws, path)
        assert step.report["rows"] == 25 and step.report["rows_before"] == 25 * turn
        rows = {row.row_id: str(row.completion) for row in held(ws.store)}
        assert len(rows) == 25 * (turn + 1)
        assert said.items() <= rows.items(), "a row of before has another text under its id"
        said = rows


@pytest.mark.heavy
def test_one_file_twice_and_then_another_are_all_there(ws: Workspace, tmp_path: Path) -> None:
    first, second = (records(tmp_path / f"{name}.jsonl", [None] * 30, name) for name in "ab")
    for path in (first, first, second):
        take(ws, path)
    assert [row.row_id for row in held(ws.store)] == [f"i-{n:06d}" for n in range(1, 91)]


@pytest.mark.heavy
def test_many_records_of_one_id_are_as_many_rows(ws: Workspace, tmp_path: Path) -> None:
    take(ws, records(tmp_path / "a.jsonl", ["x"] * 5_000, "a"))
    assert len(held(ws.store)) == 5_000


def test_ids_are_not_given_again_after_rows_were_replaced(ws: Workspace, tmp_path: Path) -> None:
    take(ws, records(tmp_path / "a.jsonl", [None] * 3, "a"))
    take(ws, records(tmp_path / "b.jsonl", [None] * 2, "b"), beside=False)
    assert [row.row_id for row in held(ws.store)] == ["i-000004", "i-000005"]


def test_rows_that_an_older_version_gave_one_id_get_two(ws: Workspace, tmp_path: Path) -> None:
    take(ws, records(tmp_path / "a.jsonl", [None] * 2, "a"))
    folder = ws.store.artifacts("r1", "rows")[-1].path
    old = read_rows(folder / "rows.jsonl")
    write_rows(
        tmp_path / "old" / "rows.jsonl",
        [*old, *(TrainingRow(r.row_id, r.origin, r.prompt, old[0].prompt) for r in old)],
    )

    sealed = seal(tmp_path / "old")
    step = propose(ws, price(ws, StepRequest("import", {"source": str(tmp_path / "a.jsonl")}, "r1")))
    meta = {"rows": 4, "behaviour": "", "behaviour_sha256": ""}
    ws.store.add_artifact(Artifact("", "r1", step, "rows", tmp_path / "old", sealed["sha256"], 1, meta=meta))
    take(ws, records(tmp_path / "b.jsonl", [None], "b"))
    assert len(held(ws.store)) == 5


def test_new_ids_go_on_and_differ() -> None:
    ids = RowIds(["i-000009", "w00001", "i-x", "i-x~2", "i-junk7"])
    assert [ids.new(name) for name in ("", "x", "x", "000011", "", "", "000011")] == [
        "i-000010", "i-x~3", "i-x~4", "i-000011", "i-000012", "i-000013", "i-000011~2",
    ]  # fmt: skip


def test_another_text_under_a_recorded_id_is_refused_and_the_same_is_left_alone(ws: Workspace) -> None:
    step = ws.store.propose("r1", "import", plan_hash="h")
    said = [{"role": "user", "content": "a"}]
    row = TrainingRow("i-1", "imported", said, said)
    ws.store.add_rows("r1", step, [row])
    ws.store.add_rows("r1", step, [row, TrainingRow("i-2", "imported", said, said)])
    for prompt, completion in ((said, []), ([], said)):
        with pytest.raises(BadInput, match="'i-1' already, with another text"):
            ws.store.add_rows(
                "r1", step, [TrainingRow("i-3", "", said, said), TrainingRow("i-1", "", prompt, completion)]
            )
    assert [r.row_id for r in ws.store.rows(step)] == ["i-1", "i-2"], "all or none"


@pytest.mark.heavy
def test_two_processes_that_import_at_once_keep_the_rows_of_both(tmp_path: Path) -> None:
    tunesmith, count = Tunesmith(tmp_path / "home"), 3
    store = Store(tunesmith.home)
    store.new_run("test", plan={"steps": [{"stage": "import"}]})
    files = [records(tmp_path / f"{n}.jsonl", [None, "x"] * 200, f"file {n}") for n in range(count)]
    with adding_to(store.home, "r1"), tempfile.TemporaryFile() as said, Path(os.devnull).open("rb") as nothing:
        streams = [nothing.fileno(), said.fileno(), said.fileno()]
        started = [warm.start(["rows", "import", str(path)], tunesmith.env, streams) for path in files]
        for process in started:  # none gets its price, let alone a row, before this lets go
            with pytest.raises(Exception, match="timed out"):
                process.wait(0.7)
        assert store.steps("r1") == []
    assert [process.wait(HANG_S) for process in started] == [0] * count
    assert len(held(store)) == 400 * count
    assert sorted(step.report["rows_before"] for step in store.steps("r1")) == [0, 400, 800]


def test_a_step_planned_beside_other_rows_than_the_run_has_now_adds_nothing(ws: Workspace, tmp_path: Path) -> None:
    first, second = (records(tmp_path / f"{name}.jsonl", [None] * 2, name) for name in "ab")
    waiting = propose(ws, price(ws, StepRequest("import", {"source": str(first)}, "r1")))
    ws.store.fail(waiting, "killed")
    take(ws, second)
    with pytest.raises(StepFailed, match=r"s2 made rows \(a1\) since this was planned; import again"):
        resume_step(ws, waiting, say_yes)
    assert len(held(ws.store)) == 2 and ws.store.rows(waiting) == []
