"""A store that was lost: nothing of it becomes another run's, and what its steps left can be taken back."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stored_runs import Builder, digest, server_record
from tests.fixtures.tables import table
from tunesmith.memory import step_records
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import read_manifest, seal
from tunesmith.memory.records import DONE, EvalResult
from tunesmith.memory.step_records import RECORD, damage, keep_record, left_steps, take_back
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Estimate, Plan, Request


def job_of(store: Store, step: str) -> Job[Request]:
    record = store.step(step)
    folder = store.home / "runs" / record.run / step
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: store.artifact(one) for name, one in record.inputs.items()}
    plan = Plan(
        stage=record.stage, run=record.run, summary="", steps=(), request={}, estimate=Estimate(seconds=1, basis="test")
    )
    return Job(store, record, plan, Request(), inputs, folder)


def done_step(store: Store, run: str, stage: str, kind: str, text: str, inputs: dict[str, str] | None = None) -> str:
    """A step that sealed a folder with a text; the artifact's id."""
    step = Builder(store, run).step(stage, inputs=inputs)
    with store.write() as conn:
        conn.execute("UPDATE steps SET inputs = ? WHERE step = ?", (json.dumps(inputs or {}), step))
    job = job_of(store, step)
    (job.dir / kind).mkdir()
    (job.dir / kind / "bytes").write_text(text)
    artifact = job.publish(kind, job.dir / kind, meta={"name": f"{kind} of {text}"})
    store.add_results(run, step, [EvalResult("base", "target", "case", "key", text, True, 1.0)])
    store.finish(step, {"artifact": artifact.id})
    keep_record(store, step, job.dir)
    return artifact.id


def a_life(home: Path, text: str) -> tuple[str, str]:
    """A run of two steps in the store of a home, which is then lost; the run and the store's name."""
    with closing(Store(home)) as store:
        run = store.new_run(f"life {text}")
        base = done_step(store, run, "base", "base", text)
        done_step(store, run, "train", "adapter", text, {"base": base})
        identity = store.identity
    for path in home.glob("tunesmith.db*"):
        path.unlink()
    return run, identity


def test_no_number_is_given_twice_after_three_stores_were_lost_in_a_row(tmp_path: Path) -> None:
    runs, names = zip(*(a_life(tmp_path, text) for text in "abc"), strict=True)
    assert runs == ("r1", "r2", "r3") and len(set(names)) == 3
    with closing(Store(tmp_path)) as store:
        left = left_steps(store)
        assert [(one.run, one.step, one.store) for one in left] == [
            (run, f"s{number}", name)
            for at, (run, name) in enumerate(zip(runs, names, strict=True))
            for number in (2 * at + 1, 2 * at + 2)
        ]
        assert not any(damage(store, one) for one in left)
        assert take_back(store, left) == [f"s{number}" for number in range(1, 7)]
        assert left_steps(store) == [] == take_back(store, left)
        for run, text in zip(runs, "abc", strict=True):
            assert store.run(run).name == f"life {text} (recovered)"
            base, adapter = store.artifacts(run)
            assert adapter.parents == (base.id,) and adapter.meta["name"] == f"adapter of {text}"
            train = store.steps(run)[1]
            assert (train.status, train.inputs, train.report["artifact"]) == (DONE, {"base": base.id}, adapter.id)
            assert [one.output for one in store.results(train.id)] == [text]
        assert store.new_run("next") == "r4"
        assert store.propose("r4", "train", plan={}, plan_hash="h") == "s7"


def test_an_older_copy_of_the_store_gives_no_number_that_came_after_it(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        run = store.new_run("first")
        done_step(store, run, "base", "base", "a")
    for path in tmp_path.glob("tunesmith.db*"):
        (tmp_path / "locks").mkdir(exist_ok=True)
        (tmp_path / "locks" / path.name).write_bytes(path.read_bytes())
    with closing(Store(tmp_path)) as store:
        done_step(store, run, "train", "adapter", "a", {"base": "a1"})
    for path in tmp_path.glob("tunesmith.db*"):
        path.unlink()
    (tmp_path / "locks" / "tunesmith.db").rename(tmp_path / "tunesmith.db")
    with closing(Store(tmp_path)) as store:
        assert store.propose(run, "merge", plan={}, plan_hash="h") == "s3"
        assert take_back(store, left_steps(store)) == ["s2"]
        # The base that it was made from is in this store: it is the same store's.
        assert store.run(run).name == "first" and store.step("s2").status == DONE


@table("changed", ["store", "step", "plan", "all"])
def test_a_folder_that_another_has_sealed_is_not_published(tmp_path: Path, changed: str) -> None:
    with closing(Store(tmp_path)) as store:
        step = Builder(store, store.new_run("first")).step("train")
        job = job_of(store, step)
        folder = job.dir / "adapter"
        folder.mkdir()
        notes = {"store": store.identity, "step": step, "plan": store.step(step).plan_hash}
        seal(folder, kind="adapter", **{name: one for name, one in notes.items() if changed not in (name, "all")})
        with pytest.raises(StepFailed, match=rf"{folder} was sealed by .*; move that folder away, then"):
            job.sealed(folder)
        with pytest.raises(StepFailed, match="was sealed by"):
            job.publish("adapter", folder)
        assert store.artifacts("r1") == []
        seal(folder, kind="adapter", **notes)
        assert job.sealed(folder) == read_manifest(folder)
        assert job.publish("adapter", folder).id == "a1"


def test_a_folder_of_this_step_stays_its_own_when_its_plan_was_read_anew(tmp_path: Path) -> None:
    """The paths of a moved home are in the hash: what was sealed before the move was agreed to all the same."""
    with closing(Store(tmp_path)) as store:
        step = Builder(store, store.new_run("first")).step("train")
        job = job_of(store, step)
        (job.dir / "adapter").mkdir()
        job.publish("adapter", job.dir / "adapter")
        store.fail(step, "killed")
        store.reopen(step, plan_hash=digest("of the moved home"))
        assert job_of(store, step).sealed(job.dir / "adapter")


def test_a_record_or_an_artifact_that_is_not_whole_is_not_taken_back(tmp_path: Path) -> None:
    a_life(tmp_path, "a")
    base, train = (tmp_path / "runs" / "r1" / step for step in ("s1", "s2"))
    whole = (train / RECORD).read_bytes()
    (train / RECORD).write_bytes(whole[:-20])
    (base / "base" / "bytes").write_text("b")
    with closing(Store(tmp_path)) as store:
        first, second = left_steps(store)
        assert "changed since it was sealed" in damage(store, first)
        assert damage(store, second) == f"its {RECORD} is damaged"
        (train / RECORD).write_bytes(whole[:200] + bytes(20) + whole[220:])
        assert left_steps(store)[1].why_not == f"its {RECORD} is damaged"
        (train / RECORD).unlink()
        assert "the step did not end" in damage(store, left_steps(store)[1])
        assert left_steps(store)[1].kinds == ("adapter",) and left_steps(store)[1].plan


def test_a_file_that_changed_since_it_was_recorded_is_not_taken_back(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        step = Builder(store, store.new_run("first")).step("preflight")
        job = job_of(store, step)
        job.publish("preflight", job.write_json("checks.json", ["a"]))
        store.finish(step, {})
        keep_record(store, step, job.dir)
    for path in tmp_path.glob("tunesmith.db*"):
        path.unlink()
    with closing(Store(tmp_path)) as store:
        (left,) = left_steps(store)
        assert damage(store, left) == ""
        (left.folder / "checks.json").write_text('["b"]')
        assert damage(store, left) == f"{left.folder / 'checks.json'} changed since it was recorded"


def test_a_step_that_left_nothing_whole_is_not_spoken_of(tmp_path: Path) -> None:
    (tmp_path / "runs" / "r1" / "s1" / "half").mkdir(parents=True)
    (tmp_path / "runs" / "r1" / "s1" / "worker.log").touch()
    with closing(Store(tmp_path)) as store:
        assert left_steps(store) == [] and store.new_run("next") == "r2"


@table(
    "change",
    [
        lambda records: records["steps"].append(records["steps"][0]),
        lambda records: records["steps"][0].update(run="r9"),
        lambda records: records["steps"][0].update(status="running"),
        lambda records: records.pop("metrics"),
        lambda records: records.update(marks=[]),
        lambda records: records["steps"][0].update({"stage) VALUES (1); --": 1}),
    ],
)
def test_a_record_of_something_else_is_not_taken_back(tmp_path: Path, change: Any) -> None:
    a_life(tmp_path, "a")
    file = tmp_path / "runs" / "r1" / "s1" / RECORD
    document = json.loads(gzip.decompress(file.read_bytes()))
    change(document["records"])
    file.write_bytes(gzip.compress(json.dumps(document).encode()))
    with closing(Store(tmp_path)) as store:
        assert damage(store, left_steps(store)[0])


def test_a_record_is_read_no_further_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_life(tmp_path, "a")
    monkeypatch.setattr(step_records, "_RECORD_BYTES", 100)
    with closing(Store(tmp_path)) as store:
        assert {one.why_not for one in left_steps(store)} == {f"its {RECORD} is damaged"}


def test_what_a_server_serves_is_no_artifact_of_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "1.json").write_text(json.dumps(server_record("a15"), indent=1))
    with closing(Store(tmp_path)) as store:
        assert done_step(store, store.new_run("new"), "base", "base", "a") == "a16"


def test_a_log_without_its_store_is_not_deleted(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.new_run("kept")
        log = (tmp_path / "tunesmith.db-wal").read_bytes()
        assert log
        (tmp_path / "tunesmith.db").rename(tmp_path / "moved")
    (tmp_path / "tunesmith.db-wal").write_bytes(log)
    for emptied in (False, True):
        if emptied:
            (tmp_path / "tunesmith.db").touch()
        with pytest.raises(BadInput, match=r"-wal beside it holds .* bytes of its last changes; put the file back"):
            Store(tmp_path)
        assert (tmp_path / "tunesmith.db-wal").read_bytes() == log
    (tmp_path / "moved").replace(tmp_path / "tunesmith.db")
    with closing(Store(tmp_path)) as store:
        assert [row["name"] for row in store.read("SELECT name FROM runs")] == ["kept"]


def test_a_recovery_that_ends_half_way_took_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_life(tmp_path, "a")
    real = step_records.put_back
    for at in range(12):
        calls = 0

        def killed(conn: sqlite3.Connection, table: str, row: Any) -> None:
            nonlocal calls
            if calls == at:  # noqa: B023
                raise KeyboardInterrupt
            calls += 1
            real(conn, table, row)

        monkeypatch.setattr(step_records, "put_back", killed)
        with closing(Store(tmp_path)) as store:
            try:
                take_back(store, left_steps(store))
            except KeyboardInterrupt:
                assert store.read("SELECT * FROM runs UNION ALL SELECT * FROM runs") == []
                assert len(left_steps(store)) == 2 and store.read("SELECT * FROM artifacts") == []
                continue
            assert left_steps(store) == [] and at > 3
            return
    pytest.fail("it never ended")
