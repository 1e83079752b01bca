"""A process that kills its children, or fails their calls, at one file call after another, and looks at what is left.

`python -m tests.trust.points`, with faults.c preloaded, takes a line of JSON for each request, SCENARIO FOLDER ACTION
ERRNO KINDS STRIDE, and answers with one. Each is carried out in a fork of its own, whose children are forks as well:
all imports are done once. What a child was told to be done, it notes in memory that it shares.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import mmap
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing, redirect_stderr
from functools import cache, partial
from pathlib import Path

from tests.fixtures.old_homes import contents, make_old_home, next_program
from tests.fixtures.steps import say_yes
from tests.fixtures.tiny_model import make_tiny_model
from tests.trust.test_lost_store import a_life
from tunesmith.memory import files, migrations
from tunesmith.memory.records import DONE, FAILED, PLANNED, RUNNING
from tunesmith.memory.step_records import damage, left_steps, take_back
from tunesmith.memory.store import Store
from tunesmith.tools.core import job
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.pipeline import catalog, launcher, run_step, worker
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

KILL, TEAR, ONCE, ALWAYS, SLOW = 1, 2, 3, 4, 5
ALL = 511
HANG_S = 30.0
job.PATIENCE_S, job._STORE_PAUSE_S = 0.15, 0.03  # so long a full disk is waited for
Note = Callable[[str], None]


def yes(store: Store, step: str) -> None:
    """As a person's yes is recorded."""
    plan = Plan.model_validate(store.step(step).plan)
    run_step.decide(Workspace(store, None, lambda event, **data: None), step, plan, say_yes)


def work(store: Store, step: str, note: Note) -> None:
    """As the worker's process does it."""
    with worker.claimed(store, step, needs_approval=catalog.BY_NAME[store.step(step).stage].expensive):
        note("claimed")
        if worker._work(store, step, None, RaySettings()) == 0:
            note("done")


class Stage:
    """A step of a stage, planned beforehand: agreed to, claimed, worked on and recorded as its own process does it."""

    def __init__(self, stage: str, folder: Path) -> None:
        self.home, self.template = folder / "home", folder / "template"
        fields: dict[str, object] = {}
        if stage == "base":
            fields["model"] = str(make_tiny_model(folder / "model", weight_bytes=200_000))
        if stage == "import":
            (folder / "rows.jsonl").write_text('{"prompt": "2+2?", "completion": "4"}\n' * 20)
            fields["source"] = str(folder / "rows.jsonl")
        with closing(Store(self.home)) as store:  # paths in a plan are those of this home
            ws = Workspace(store, None, lambda event, **data: None)
            run_step.propose(ws, run_step.price(ws, StepRequest(stage, fields, store.new_run("test"))))
        self.home.rename(self.template)
        self.expensive = catalog.BY_NAME[stage].expensive

    def prepare(self) -> None:
        shutil.copytree(self.template, self.home)

    def act(self, note: Note) -> None:
        store = Store(self.home)
        if self.expensive:
            note("deciding")
            yes(store, "s1")
            note("decided")
        work(store, "s1", note)

    def wrong(self, notes: set[str]) -> str:
        """What is wrong with what a child left, and with going on from there."""
        with closing(Store(self.home)) as store:
            if (verdict := store.read("PRAGMA integrity_check")[0][0]) != "ok":
                return str(verdict)
            step, approvals = store.step("s1"), store.read("SELECT * FROM approvals")
            used = [row for row in approvals if row["used_at"] is not None]
            if "decided" in notes and len(approvals) != 1:
                return "a yes was lost"
            if approvals and "deciding" not in notes:
                return "a yes that nobody gave"
            if self.expensive and (step.status not in (PLANNED, "approved")) != bool(used):
                return f"{step.status} with {len(used)} approvals used"
            if "claimed" in notes and step.status in (PLANNED, "approved"):
                return "a claim was lost"
            if "done" in notes and step.status != DONE:
                return f"what was done is {step.status}"
            launcher.reconcile(store)
            step = store.step("s1")
            if step.status == RUNNING:
                return "a dead worker's step runs"
            return self._half(store) or self._again(store, step.status) or self._half(store)

    def _half(self, store: Store) -> str:
        for artifact in store.artifacts("r1"):
            if artifact.path.is_dir():
                files.verify(artifact.path, artifact.sha256)
            elif files.sha256_file(artifact.path) != artifact.sha256:
                return f"{artifact.path.name} is not what was recorded"
        for folder in self.home.glob("models/[!.]*"):
            files.verify(folder)
        return ""

    def _again(self, store: Store, status: str) -> str:
        if status != DONE:
            if status == FAILED or (status == "approved" and self.expensive):
                store.reopen("s1")
            if self.expensive:
                yes(store, "s1")
            code = _child(lambda note: work(Store(self.home), "s1", note), lambda: None)[0]
            if code or store.step("s1").status != DONE:
                return f"going on from {status} ended as {store.step('s1').status}: {store.step('s1').error}"
        return "" if store.step("s1").result else "done without a result"


class Ledger(Stage):
    """A step's whole life in an empty home, the store's file included."""

    def __init__(self, folder: Path) -> None:
        self.home, self.expensive = folder / "home", True

    def prepare(self) -> None:
        pass

    def act(self, note: Note) -> None:
        store = Store(self.home)
        note("run")
        run = store.new_run("test")
        note("run made")
        step = store.propose(run, "base", plan_hash="h")
        note("deciding")
        store.decide(step, "yes", by="test", reason="", price={})
        note("decided")
        me = ProcessId.of(os.getpid())
        store.claim(
            step, needs_approval=True, pid=me.pid, pid_started=me.started, boot_id=me.boot_id, pid_ticks=me.ticks
        )
        note("claimed")
        store.add_metrics(step, [("loss", 1, 0.5, 1.0)])
        store.progress(step, 1, 2, "half")
        store.event("something", run=run, step=step)
        store.finish(step, {"ok": True}, worker=store.step(step).worker)
        note("done")
        store.close()

    def wrong(self, notes: set[str]) -> str:
        with closing(Store(self.home)) as store:
            if "run made" in notes and not store.read("SELECT 1 FROM runs"):
                return "a run was lost"
            if not store.priced_steps():
                return "" if not notes & {"deciding"} else "a step was lost"
        return super().wrong(notes)

    def _again(self, store: Store, status: str) -> str:
        return ""


class Migration(Stage):
    """A home that is brought up to date by a made-up migration: its rows are there before, meanwhile and after."""

    def __init__(self, folder: Path) -> None:
        self.home, self.template = folder / "home", make_old_home(folder / "template")
        self.rows = self._rows(self.template / "tunesmith.db")

    @staticmethod
    def _rows(file: Path) -> dict[str, list[object]]:
        tables = contents(file)
        return {name: [row[key] for row in tables[name]] for name, key in (("runs", "name"), ("metrics", "value"))}

    def act(self, note: Note) -> None:
        with next_program():
            Store(self.home).close()
        note("brought up to date")

    def wrong(self, notes: set[str]) -> str:
        if (self.home / "tunesmith.db").stat().st_size == 0 or self._rows(self.home / "tunesmith.db") != self.rows:
            return "rows were lost"
        before = migrations.LATEST
        with next_program(), closing(Store(self.home)) as store:
            copies = [*(self.home / "backups").glob(f"tunesmith-schema{before}-*.db")]
            if not copies or any(self._rows(copy) != self.rows for copy in copies):
                return "there is no whole copy"
            if (
                store.read("PRAGMA user_version")[0][0] != migrations.LATEST
                or len(store.read("SELECT called FROM v_made_up")) != 2
                or self._rows(self.home / "tunesmith.db") != self.rows
            ):
                return "it was not brought up to date"
            return "" if store.step("s1").status == DONE else "a step changed"


class Recovery(Stage):
    """A home whose store was lost: its steps are taken back all at once or not at all, and once more in any case."""

    def __init__(self, folder: Path) -> None:
        self.home, self.template = folder / "home", folder / "template"
        self.template.mkdir()
        a_life(self.template, "a")

    def act(self, note: Note) -> None:
        with closing(Store(self.home)) as store:
            take_back(store, [left for left in left_steps(store) if not damage(store, left)])
        note("taken back")

    def wrong(self, notes: set[str]) -> str:
        with closing(Store(self.home)) as store:
            there = [step.id for step in store.steps()]
            if there not in ([], ["s1", "s2"]) or ("taken back" in notes and not there):
                return f"{there} were taken back"
            take_back(store, left_steps(store))
            base, adapter = store.artifacts("r1")
            return (
                ""
                if adapter.parents == (base.id,) and len(store.steps()) == 2
                else "what was taken back is another thing"
            )


class Files(Stage):
    """A file over another, a sealed folder, and a folder of the user's own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"

    def prepare(self) -> None:
        self.home.mkdir()
        (self.home / "file").write_bytes(b"old" * 4000)

    @staticmethod
    def fill(folder: Path) -> None:
        (folder / "sub").mkdir()
        for name in ("a", "sub/b"):
            (folder / name).write_bytes(b"x" * 5000)

    def act(self, note: Note) -> None:
        files.atomic_write(self.home / "file", b"new" * 5000)
        note("written")
        files.publish_folder(self.home / "sealed", self.fill)
        note("sealed")
        files.new_folder(self.home, "own", self.fill)
        note("own")

    def wrong(self, notes: set[str]) -> str:
        content = (self.home / "file").read_bytes()
        if content != b"new" * 5000 and (content != b"old" * 4000 or "written" in notes):
            return f"a file of {len(content)} bytes"
        for name in ("sealed", "own"):
            if name in notes and not (self.home / name).exists():
                return f"{name} was lost"
        if (self.home / "sealed").exists():
            files.verify(self.home / "sealed")
        if (self.home / "own").exists() and len([*(self.home / "own").rglob("*")]) != 3:
            return "half a folder"
        files.verify(self.home / "sealed", files.publish_folder(self.home / "sealed", self.fill)["sha256"])
        return "" if not [*self.home.glob(".sealed.*")] else "what a killed attempt left is still there"


def _child(act: Callable[[Note], None], arm: Callable[[], None]) -> tuple[int, set[str], int]:
    """Exit code (below zero the signal, -99 for one that did not end), notes and counted calls of a forked child."""
    shared = mmap.mmap(-1, 1 << 16)
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with Path(os.devnull).open("w") as nothing, redirect_stderr(nothing):
                shared.seek(8)
                arm()
                act(lambda text: _note(shared, text))
                code = 0
        except BaseException:
            code = 1
        finally:
            shared[:8] = _faults.faults_calls().to_bytes(8, "little")
            os._exit(code)
    deadline = time.monotonic() + HANG_S
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            done = (pid, 0)
            break
        time.sleep(0.001)
    code = -99 if time.monotonic() > deadline else os.waitstatus_to_exitcode(done[1])
    notes = set(shared[8:].rstrip(b"\0").decode().split("\n")) - {""}
    return code, notes, int.from_bytes(shared[:8], "little")


def _note(shared: mmap.mmap, text: str) -> None:
    shared.write(f"{text}\n".encode())


def scenario_of(name: str, folder: Path) -> Stage:
    """The scenario of a name, or the step of a stage of that name."""
    made: dict[str, Callable[[Path], Stage]] = {
        "ledger": Ledger,
        "files": Files,
        "migration": Migration,
        "recovery": Recovery,
    }
    return made[name](folder) if name in made else Stage(name, folder)


@cache
def _import_what_it_imports(name: str) -> None:
    """Here, so that what a child imports is there before it is forked."""
    with tempfile.TemporaryDirectory() as folder:
        scenario = scenario_of(name, Path(folder))
        scenario.prepare()
        scenario.act(lambda text: None)


def tried(name: str, folder: str, action: int, error: int, kinds: int, stride: int) -> dict[str, object]:
    """Try point after point until one is past the last call: how many they were, and what was wrong."""
    scenario = scenario_of(name, Path(folder))
    wrong: list[str] = []
    points = 0
    for at in itertools.count(1, stride):
        scenario.prepare()
        try:
            code, notes, calls = _child(scenario.act, partial(_faults.faults_arm, at, action, error, kinds))
            if (action in (KILL, TEAR) and code != -signal.SIGKILL) or 0 < calls < at:
                break
            points += 1
            slow = action == SLOW and code and f"a slow disk ended it with {code}"
            why = "did not end" if code == -99 else slow or scenario.wrong(notes)
        except Exception as failed:
            why = f"{type(failed).__name__}: {failed}"
        if why:
            wrong.append(f"{name} at {at} ({sorted(notes)}, code {code}): {why}"[:500])
        shutil.rmtree(scenario.home)
    return {"points": points, "wrong": wrong}


def main() -> None:
    """Answer every request."""
    for line in sys.stdin:
        name, *rest = json.loads(line)
        _import_what_it_imports(name)
        pid = os.fork()
        if pid == 0:
            try:
                print(json.dumps(tried(name, *rest)), flush=True)
            except BaseException:
                print(json.dumps({"points": 0, "wrong": [traceback.format_exc()[-3000:]]}), flush=True)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
    _faults.faults_arm.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    _faults.faults_calls.restype = ctypes.c_long
    main()
