"""Workers that are looked at from afar: a living one is never given up, and what it did is never dropped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.waiting import wait_for
from tunesmith.memory.errors import BadInput
from tunesmith.memory.locks import lock_file, locked
from tunesmith.memory.records import Worker
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Estimate, Plan, Request
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.pipeline import executor, launcher
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.workspace import Decision, Workspace

WORKER = """
import sys, time
from pathlib import Path
from tunesmith.memory.locks import locked, lock_file
from tunesmith.memory.store import Store
from tunesmith.tools.machine.processes import ProcessId
store, step, me = Store(Path(sys.argv[1])), sys.argv[2], ProcessId.of(__import__("os").getpid())
with locked(lock_file(store.home, step)):
    store.claim(step, needs_approval=False, pid=me.pid, pid_started=me.started, boot_id=me.boot_id,
                pid_ticks=me.ticks, host=me.host, pid_namespace=me.namespace)
    print("claimed", flush=True)
    sys.stdin.read()
"""
NAMESPACE = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def planned(store: Store) -> str:
    return store.propose(store.new_run("test"), "inspect", plan_hash="h", plan={"stage": "inspect"})


def claim(store: Store, step: str, **changes: Any) -> Worker:
    """Claim a step as this process, but for `changes`."""
    me = ProcessId.of(os.getpid())
    row = {
        "pid": me.pid, "pid_started": me.started, "boot_id": me.boot_id, "pid_ticks": me.ticks, "host": me.host,
        "pid_namespace": me.namespace, **changes,
    }  # fmt: skip
    store.claim(step, needs_approval=False, **row)
    worker = store.step(step).worker
    assert worker
    return worker


def job_of(store: Store, step: str) -> Job[Request]:
    plan = Plan(stage="inspect", run="r1", summary="", steps=(), request={}, estimate=Estimate(seconds=1, basis=""))
    folder = launcher.log_path(store, store.step(step)).parent
    folder.mkdir(parents=True, exist_ok=True)
    return Job(store=store, step=store.step(step), plan=plan, request=Request(), inputs={}, dir=folder)


@contextmanager
def at_work(store: Store, step: str, *, apart: bool) -> Iterator[subprocess.Popen[str]]:
    """A worker of the step in a process of its own; `apart`: in a PID namespace of its own, as in a container."""
    command = [*(NAMESPACE if apart else []), sys.executable, "-c", WORKER, str(store.home), step]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    try:
        assert child.stdout and child.stdout.readline() == "claimed\n"
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def may_unshare() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=pytest.mark.skipif(not may_unshare(), reason="-"))])
def test_a_worker_is_alive_for_as_long_as_it_lives_wherever_it_is_looked_at_from(store: Store, apart: bool) -> None:
    step = planned(store)
    with at_work(store, step, apart=apart) as child:
        assert launcher.is_alive(store, store.step(step)) and launcher.reconcile(store) == []
        if apart:
            with pytest.raises(BadInput, match="another container"):
                launcher.stop(store, step)
        os.killpg(child.pid, signal.SIGSTOP)
        assert launcher.reconcile(store) == [], "a paused one lives, too"
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        wait_for(lambda: not launcher.is_alive(store, store.step(step)))
    assert [dead.id for dead in launcher.reconcile(store)] == [step] and store.step(step).status == "failed"


def test_a_worker_of_another_machine_is_given_up_only_after_a_long_silence(store: Store) -> None:
    step = planned(store)
    claim(store, step, boot_id="another boot", host="another machine")
    assert launcher.reconcile(store) == []
    with store.write() as conn:
        conn.execute("UPDATE steps SET started_at = started_at - 700")
    with locked(lock_file(store.home, step)):
        assert launcher.reconcile(store) == [], "its lock is seen"
    assert [dead.id for dead in launcher.reconcile(store)] == [step]


def test_a_process_that_no_longer_holds_the_lock_of_its_step_is_no_worker_of_it(store: Store) -> None:
    step = planned(store)
    with locked(lock_file(store.home, step)):
        claim(store, step)
        assert launcher.is_alive(store, store.step(step)) and launcher.reconcile(store) == []
    assert not launcher.is_alive(store, store.step(step)), "this process lives on, and does something else"
    assert [dead.id for dead in launcher.reconcile(store)] == [step]


def test_a_worker_in_another_container_lives_as_long_as_its_lock_is_held(store: Store) -> None:
    step = planned(store)
    with locked(lock_file(store.home, step)):
        claim(store, step, pid=4_000_000, pid_namespace="another")
        assert launcher.is_alive(store, store.step(step)) and launcher.reconcile(store) == []
    assert [dead.id for dead in launcher.reconcile(store)] == [step]


def test_a_worker_of_before_the_machine_was_started_is_dead(store: Store) -> None:
    step = planned(store)
    claim(store, step, boot_id="an earlier boot")
    assert [dead.id for dead in launcher.reconcile(store)] == [step]


def test_who_was_paused_while_a_step_was_started_anew_does_not_fail_the_new_attempt(store: Store) -> None:
    step = planned(store)
    claim(store, step, pid=4_000_000)
    seen = store.step(step)  # by a REPL that now sleeps
    launcher.reconcile(store)
    store.reopen(step)
    claim(store, step)
    assert launcher._mark_dead(store, seen).status == "running"
    assert store.step(step).status == "running" and store.read("SELECT count(*) FROM events")[0][0] == 1


@pytest.mark.parametrize("reopened", [False, True])
def test_the_result_of_a_worker_that_was_taken_for_dead_is_recorded(store: Store, reopened: bool) -> None:
    began = time.time()
    step = planned(store)
    worker = claim(store, step)
    store.set_run_status(store.step(step).run, "failed")
    store.fail(step, "it seemed dead")
    if reopened:
        store.reopen(step)
    assert store.finish(step, {"loss": 1.5}, worker=worker)
    done = store.step(step)
    assert (done.status, done.result, done.error) == ("done", {"loss": 1.5}, None)
    assert done.seconds is not None and done.seconds <= time.time() - began, "its time is not counted twice"
    assert store.run(done.run).status == "waiting"
    assert [told.id for told in store.unannounced()] == [step]


def test_a_late_result_beside_another_attempt_is_kept_and_ends_nothing(store: Store) -> None:
    step = planned(store)
    first = claim(store, step, pid=4_000_000)
    launcher.reconcile(store)
    store.reopen(step)
    claim(store, step)
    assert not store.finish(step, {"loss": 1.5}, worker=first)
    assert store.step(step).status == "running"
    (row,) = store.read("SELECT data FROM events WHERE event = 'step.finished_beside'")
    assert json.loads(row["data"])["result"] == {"loss": 1.5}
    assert not store.fail(step, "the first one failed", worker=first) and store.step(step).status == "running"


def test_a_result_that_could_not_be_recorded_is_recorded_by_whoever_comes_next(store: Store) -> None:
    step = planned(store)
    worker = claim(store, step, pid=4_000_000)
    kept = job_of(store, step).result_file
    kept.write_text(json.dumps({"worker": worker, "result": {"rows": 3}}))
    assert [ended.status for ended in launcher.reconcile(store)] == ["done"]
    assert store.step(step).result == {"rows": 3} and not kept.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"worker": [1, 2], "result": {}}', '{"worker": 7}', "null"])
def test_what_is_no_kept_result_is_not_taken_for_one(store: Store, text: str) -> None:
    step = planned(store)
    claim(store, step, pid=4_000_000)
    job_of(store, step).result_file.write_text(text)
    assert [ended.status for ended in launcher.reconcile(store)] == ["failed"]


# --- a store that is busy or full


@pytest.mark.heavy
def test_a_busy_store_ends_no_work_and_loses_no_point(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.tools.core.job._STORE_PAUSE_S", 0.05)
    step = planned(store)
    claim(store, step)
    job, other = job_of(store, step), sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for x in range(20):
        job.progress(x, 20, "training")
        job.metric("loss", 1.0, x)
    other.execute("ROLLBACK")
    job.flush()
    assert [x for x, _ in store.metrics(step, "loss")] == [*range(20)]


def test_a_full_store_ends_no_work(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.tools.core.job._STORE_PAUSE_S", 0.05)
    step = planned(store)
    claim(store, step)
    job = job_of(store, step)
    pages = store.read("PRAGMA page_count")[0][0]
    store.read(f"PRAGMA max_page_count={pages}")
    for x in range(3000):
        job.metric("loss", 1.0, x)
    assert job._points, "the store was full"
    store.read("PRAGMA max_page_count=1073741823")
    time.sleep(0.1)
    job.flush()
    assert len(store.metrics(step, "loss")) == 3000


# --- two at once


@pytest.mark.parametrize("closed", [False, True])
def test_a_yes_that_is_being_started_elsewhere_is_not_withdrawn(store: Store, closed: bool) -> None:
    step = planned(store)
    agreed, other = Store(store.home), Store(store.home)
    agreed.decide(step, "yes", by="test", reason="", price={})
    with pytest.raises(BadInput, match="another terminal, which is starting it"):
        other.reopen(step)
    if closed:
        agreed.close()
    else:
        agreed.let_go(step)
    other.reopen(step)
    assert other.step(step).status == "planned"


def test_who_said_yes_may_take_it_back(store: Store) -> None:
    step = planned(store)
    store.decide(step, "yes", by="test", reason="", price={})
    store.reopen(step)
    assert store.decide(step, "yes", by="test", reason="", price={})


def test_one_run_is_carried_out_by_one_process(store: Store) -> None:
    run = store.new_run("test", plan={"steps": [{"stage": "inspect", "fields": {}}]})
    ws = Workspace(store, None, lambda event, **data: None)
    plan = PipelinePlan(name="test", steps=(StepSpec(stage="inspect"),))
    code = f"""
import sys
from pathlib import Path
from tunesmith.memory.locks import carrying_out
with carrying_out(Path({str(store.home)!r}), {run!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match=rf"carried out by another tunesmith \(pid {other.pid}\)"):
            executor.run_pipeline(ws, plan, lambda plan, step: Decision(True, "test"), resume_run=run)
        assert store.steps(run) == []
        other.kill()
    executor.run_pipeline(ws, plan, lambda plan, step: Decision(True, "test"), resume_run=run)
    assert [step.status for step in store.steps(run)] == ["done"]
