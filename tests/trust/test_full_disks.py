"""A disk that is full or mounted read-only: it is named with its number, and what lies on it can still be read."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures.disks import Mount, disk, fill, mounted
from tests.fixtures.old_homes import make_old_home, next_program
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.disk import concerns_disk, trouble
from tunesmith.tools.core.estimate import room
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, Estimate, Facts
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.run_step import price, propose, run_step
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace

__all__ = ["disk"]  # a fixture

READING = [
    ("runs", "list"),
    ("runs", "show", "r1"),
    ("runs", "sql", "SELECT count(*) AS n FROM v_steps"),
    ("compare", "r1", "--arms", "base,quantized"),
    ("explain", "r1"),
    ("jobs", "list"),
]


def read_only(place: Path) -> None:
    assert mounted(place, "-o", "remount,ro"), "somebody writes on it"


def read_all(home: Path, out: Path) -> dict[str, str]:
    """What reading commands say of a home, and the report, written elsewhere."""
    tunesmith, said = Tunesmith(home), {}
    for argv in READING:
        done = tunesmith(*argv, "--json")
        assert done.returncode == 0, (argv, done.stderr)
        said[" ".join(argv)] = done.stdout
    done = tunesmith("report", "r1", "-o", str(out))
    assert done.returncode == 0, done.stderr
    return {**said, "report": out.read_text()}


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_everything_is_read_from_a_disk_that_takes_nothing(disk: Mount, tmp_path: Path, how: str) -> None:
    place = disk(8 << 20)
    home = place / "home"
    finished_run(tmp_path / "made")[0].close()
    shutil.copytree(tmp_path / "made", home)  # a fixture's process holds on to what it agreed to
    before, bytes_ = read_all(home, tmp_path / "a.html"), (home / "tunesmith.db").read_bytes()
    assert not (home / "tunesmith.db-shm").exists(), "the last one to leave takes SQLite's own files along"
    fill(place) if how == "full" else read_only(place)
    assert read_all(home, tmp_path / "b.html") == before
    done = Tunesmith(home)("runs", "list")
    [line] = done.stderr.splitlines()
    named = (
        f"the disk of {home} is full (0 B free); make room below {place}" if how == "full" else f"read-only at {place}"
    )
    assert "nothing is recorded now" in line and named in line and "set TUNESMITH_HOME to its new place" in line
    done = Tunesmith(home)("inspect")
    assert done.returncode == 0 and named in done.stderr and "cores" in done.stdout, (
        "a look writes nothing that matters"
    )
    done = Tunesmith(home)("evaluate", "--arm", "adapter", TUNESMITH_VLLM="/bin/true")
    assert done.returncode == 2 and "unexpected" not in done.stderr
    assert ("0 B free" if how == "full" else named) in done.stderr.splitlines()[-1]
    if how == "full":
        (place / "filling").unlink()
        assert read_all(home, tmp_path / "c.html") == before
        assert (home / "tunesmith.db").read_bytes() == bytes_
    assert not list(Path("/dev/shm").glob("tunesmith-*")), "no copy stays behind"


@pytest.mark.parametrize("shared_memory", [True, False])
def test_what_was_committed_just_before_is_read_too(disk: Mount, shared_memory: bool) -> None:
    """A process that was killed leaves its last transactions in the log beside the file."""
    home = disk(8 << 20) / "home"
    Store(home).close()
    code = "import os, sys; from pathlib import Path; from tunesmith.memory.store import Store\n"
    code += "store = Store(Path(sys.argv[1])); store.new_run('last words', plan={'steps': [{}]}); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(home)], check=True)
    assert (home / "tunesmith.db-wal").stat().st_size
    if not shared_memory:
        (home / "tunesmith.db-shm").unlink()
    read_only(home.parent)
    with closing(Store(home, unwritable="it is read-only")) as store:
        assert [run.name for run in store.runs()] == ["last words"]
        with pytest.raises(BadInput, match="it is read-only"):
            store.new_run("more")


def test_an_older_home_is_read_from_a_copy_that_is_brought_up_to_date(disk: Mount) -> None:
    home = make_old_home(disk(8 << 20) / "home")
    read_only(home.parent)
    with next_program(), closing(Store(home, unwritable="it is read-only")) as store:
        copy = store.path
        assert len(store.read("SELECT called FROM v_made_up")) == 2
        assert store.artifact("a1").path == home / "runs/r1/s1/adapter" and copy.parent != home
    assert not copy.parent.exists()


def test_where_there_is_no_room_for_a_copy_that_is_told(
    disk: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.memory import unwritable

    home = make_old_home(disk(8 << 20) / "home")
    read_only(home.parent)
    monkeypatch.setattr(unwritable.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 0))
    told = pytest.raises(BadInput, match=r"only from a copy of [0-9,]+ bytes.*set TMPDIR to a folder that has some")
    with next_program(), told:
        Store(home, unwritable="it is read-only")


def test_the_disk_is_named_that_has_no_room_and_not_the_homes(disk: Mount, tmp_path: Path) -> None:
    place = disk(1 << 20)
    fill(place)
    (tmp_path / "source").write_bytes(bytes(1 << 20))
    with pytest.raises(OSError) as full:
        shutil.copyfile(tmp_path / "source", place / "copy")
    told = trouble(
        tmp_path, OSError(full.value.errno, "No space left on device", str(place / "copy")), needed_bytes=3 << 20
    )
    assert told.startswith(
        f"the disk of {place} is full (0 B free, about 3.0 MiB needed in all); make room below {place}"
    )
    library = RuntimeError("I/O error: No space left on device (os error 28)")
    assert concerns_disk(library) and trouble(place, library).startswith(f"the disk of {place} is full (0 B free);")


def test_files_that_a_disk_cannot_number_any_more_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    none_left = os.statvfs_result((*real[:6], 0, 0, *real[8:]))
    monkeypatch.setattr(os, "statvfs", lambda path: none_left)
    assert "0 inodes free" in trouble(tmp_path, OSError(errno.ENOSPC, "No space left on device"))


def test_a_file_over_the_shells_limit_is_told(tmp_path: Path) -> None:
    assert "ulimit -f" in trouble(tmp_path, OSError(errno.EFBIG, "File too large"))


def test_an_error_that_has_nothing_to_do_with_the_disk_blames_none(tmp_path: Path) -> None:
    assert not concerns_disk(ValueError("no")) and not trouble(tmp_path, ValueError("no"))
    assert not concerns_disk(FileNotFoundError(errno.ENOENT, "no")) and not trouble(
        tmp_path, sqlite3.OperationalError()
    )


def test_small_sizes_have_a_unit_of_their_own() -> None:
    machine = Machine("cpu", 1, GIB, GIB, 0, 4096)
    facts = Facts(Path("/"), machine, "r1")
    (refusal,) = room(Estimate(seconds=1, basis="", disk_bytes=123_000), facts, remedy="less")
    assert refusal.startswith("needs 120 KiB of disk, 4.0 KiB free; ")


@pytest.mark.heavy
def test_a_worker_whose_disk_fills_says_so_and_its_step_goes_on_once_there_is_room(disk: Mount, tmp_path: Path) -> None:
    place = disk(96 << 20)
    model = make_tiny_model(tmp_path / "model", weight_bytes=32 << 20)
    with closing(Store(place / "home")) as store:
        ws = Workspace(store, None, lambda event, **facts: None)
        step = propose(ws, price(ws, StepRequest("base", {"model": str(model)}, store.new_run("r"))))
        store.decide(step, "yes", by="test", reason="", price={})
        filling = fill(place, leave=8 << 20)
        list(launcher.follow(store, launcher.launch(store, step, vllm=None).id))
        failed = store.step(step)
        assert failed.status == "failed"
        assert "is full (" in failed.error and "needed in all" in failed.error and "--resume r1" in failed.error
        assert "Errno" not in failed.error
        filling.unlink()
        store.reopen(step)
        store.decide(step, "yes", by="test", reason="", price={})
        list(launcher.follow(store, launcher.launch(store, step, vllm=None).id))
        assert store.step(step).status == "done", store.step(step).error


@pytest.mark.heavy
@pytest.mark.parametrize("words", [3, 60, 400])
def test_an_import_ends_on_a_disk_with_just_the_room_of_its_price(disk: Mount, tmp_path: Path, words: int) -> None:
    """The rows as a file, and in the pages and the log of the store; those of before once more, under their step."""
    rows = [{"prompt": f"Größe {n}? " + "é " * words, "completion": "так " * words} for n in range(60_000 // words)]
    for name, part in (("first", rows[::3]), ("second", rows[1::3])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    place = disk(256 << 20)
    with closing(Store(place / "home")) as store:
        ws, run = Workspace(store, None, lambda event, **facts: None), store.new_run("r")
        for name in ("first", "second"):
            request = StepRequest("import", {"source": str(tmp_path / f"{name}.jsonl")}, run)
            priced = price(ws, request).estimate.disk_bytes
            filling = fill(place, leave=priced + (128 << 10))  # what is recorded until the step begins
            ended = run_step(ws, request, lambda plan, step: Decision(True, "test")).done()
            assert ended.status == "done", ended.error
            filling.unlink()
        assert ended.result and ended.result["rows_before"] == len(rows[::3])
