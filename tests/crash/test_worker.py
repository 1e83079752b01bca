"""Workers and real signals: a killed one is found, a finished one is told, and nothing half-made is taken for whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from tests.fixtures.steps import say_yes
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import wait_for
from tunesmith.memory.errors import ApprovalPending, BadInput, StepFailed
from tunesmith.memory.files import verify
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.run_step import decide, price, propose, resume_step, run_step
from tunesmith.tools.pipeline.start_step import start
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("cold_workers")]

MODEL_BYTES = 256 << 20


@pytest.fixture(scope="module")
def big_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that is slow to copy: one sparse tensor of 256 MiB."""
    return make_tiny_model(tmp_path_factory.mktemp("big") / "model", weight_bytes=MODEL_BYTES)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(Store(tmp_path), None, lambda event, **data: None)


def approved(ws: Workspace, model: Path) -> str:
    run = ws.store.new_run("test")
    plan = price(ws, StepRequest("base", {"model": str(model)}, run))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    return step


def copying(home: Path) -> bool:
    """Whether a worker is in the middle of copying the weights."""
    return any(f.stat().st_size > 1 << 20 for f in home.glob("models/.*/model.safetensors"))


def wait_end(store: Store, step: str) -> Step:
    *_, last = launcher.follow(store, step)
    return last


def test_kill_9_of_the_worker_is_found_named_and_can_be_resumed(ws: Workspace, big_model: Path) -> None:
    step = approved(ws, big_model)
    pid = launcher.launch(ws.store, step, vllm=None).pid
    assert pid
    wait_for(lambda: copying(ws.store.home))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not launcher.is_alive(ws.store, ws.store.step(step)))

    assert [s.id for s in launcher.reconcile(ws.store)] == [step]
    dead = ws.store.step(step)
    assert dead.status == "failed" and f"pid {pid}" in (dead.error or "") and "--resume" in (dead.error or "")
    assert ws.store.artifacts(dead.run) == []
    assert launcher.reconcile(ws.store) == [], "a death is told once"

    ended = resume_step(ws, step, say_yes).done()
    assert ended.status == "done"
    base = ws.store.artifacts(dead.run, "base")[0]
    assert verify(base.path, base.sha256)
    assert [p for p in base.path.parent.iterdir() if p.name.startswith(".")] == [], "the killed attempt was cleared"


def test_kill_9_of_what_started_it_leaves_the_worker_to_finish(tmp_path: Path, big_model: Path) -> None:
    command = [sys.executable, "-m", "tunesmith.agent", "base", "--model", str(big_model), "--yes"]
    env = {**os.environ, "TUNESMITH_HOME": str(tmp_path)}
    starter = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    wait_for(lambda: copying(tmp_path))
    starter.kill()
    starter.wait()
    store = Store(tmp_path)
    step = store.steps()[-1].id
    assert wait_end(store, step).status == "done"
    told = subprocess.run(
        [sys.executable, "-m", "tunesmith.agent", "runs", "list"],
        env=env, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert step in told.stderr + told.stdout


@pytest.mark.parametrize("by", ["the user", "claude-code over MCP"])
def test_stop_ends_the_whole_group_and_records_who_did_it(ws: Workspace, big_model: Path, by: str) -> None:
    step = approved(ws, big_model)
    pid = launcher.launch(ws.store, step, vllm=None).pid
    wait_for(lambda: copying(ws.store.home))
    stopped = launcher.stop(ws.store, step, by=by)
    assert (stopped.status, stopped.error) == ("stopped", f"stopped by {by}"), "its worker said so"
    assert not Path(f"/proc/{pid}").exists() or not launcher.is_alive(ws.store, stopped)
    assert ws.store.artifacts(stopped.run) == []


def test_a_worker_without_a_yes_ends_before_it_does_anything(ws: Workspace, big_model: Path) -> None:
    run = ws.store.new_run("test")
    plan = price(ws, StepRequest("base", {"model": str(big_model)}, run))
    step = propose(ws, plan)
    with pytest.raises(StepFailed, match="no yes for its plan"):
        launcher.launch(ws.store, step, vllm=None)
    assert ws.store.step(step).status == "planned" and not (ws.store.home / "models").exists()


def test_a_yes_starts_one_worker_not_two(ws: Workspace, big_model: Path) -> None:
    step = approved(ws, big_model)
    launcher.launch(ws.store, step, vllm=None)
    with pytest.raises(ApprovalPending):
        ws.store.claim(step, needs_approval=True, pid=1, pid_started=1.0, boot_id="b")
    launcher.stop(ws.store, step)


def test_one_tenant_at_a_time(ws: Workspace, big_model: Path) -> None:
    first, second = approved(ws, big_model), approved(ws, big_model)
    launcher.launch(ws.store, first, vllm=None)
    wait_for(lambda: copying(ws.store.home))
    launcher.launch(ws.store, second, vllm=None)
    wait_for(lambda: "waiting for another step" in ws.store.step(second).note or ws.store.step(first).ended)
    assert wait_end(ws.store, first).status == wait_end(ws.store, second).status == "done"
    taken = ws.store.read("SELECT step FROM events WHERE event = 'lease.taken' ORDER BY id")
    assert [row["step"] for row in taken] == [first, second]
    assert (ws.store.step(second).finished_at or 0) >= (ws.store.step(first).finished_at or 0)


def test_a_reused_pid_is_not_taken_for_the_worker(ws: Workspace, big_model: Path) -> None:
    step = approved(ws, big_model)
    ws.store.claim(step, needs_approval=True, pid=os.getpid(), pid_started=1.0, boot_id="an earlier boot")
    assert [s.id for s in launcher.reconcile(ws.store)] == [step]


def set_clock(store: Store, step: str, by_s: float) -> None:
    """What a clock that is set by so much does to what was read off it before."""
    with store.write() as conn:
        conn.execute("UPDATE steps SET pid_started = pid_started - ? WHERE step = ?", (by_s, step))


def test_a_worker_lives_on_when_the_clock_is_set(ws: Workspace, big_model: Path) -> None:
    step = approved(ws, big_model)
    launcher.launch(ws.store, step, vllm=None)
    set_clock(ws.store, step, 3600)
    assert launcher.is_alive(ws.store, ws.store.step(step)) and launcher.reconcile(ws.store) == []
    assert launcher.stop(ws.store, step).status == "stopped", "and it can be stopped"


def test_a_worker_of_an_earlier_version_is_known_by_its_start_time(ws: Workspace, big_model: Path) -> None:
    step = approved(ws, big_model)
    launcher.launch(ws.store, step, vllm=None)
    with ws.store.write() as conn:
        conn.execute("UPDATE steps SET pid_ticks = NULL WHERE step = ?", (step,))
    assert launcher.is_alive(ws.store, ws.store.step(step))
    launcher.stop(ws.store, step)


def test_time_spent_dead_is_no_work(ws: Workspace, big_model: Path) -> None:
    """The machine lost its power after 300 s of work and came back 15 hours later."""
    step = approved(ws, big_model)
    began = time.time() - 15 * 3600
    ws.store.claim(step, needs_approval=True, pid=os.getpid(), pid_started=1.0, boot_id="an earlier boot")
    log = launcher.log_path(ws.store, ws.store.step(step))
    log.parent.mkdir(parents=True)
    log.write_text("at work\n")
    os.utime(log, (began + 300, began + 300))
    with ws.store.write() as conn:
        conn.execute("UPDATE steps SET started_at = ? WHERE step = ?", (began, step))
        conn.execute("UPDATE events SET at = ? WHERE step = ?", (began, step))
    [dead] = launcher.reconcile(ws.store)
    assert dead.seconds == pytest.approx(300, abs=1) and dead.finished_at == pytest.approx(began + 300, abs=1)


def test_progress_counts_as_work_up_to_the_death(ws: Workspace, big_model: Path) -> None:
    step = approved(ws, big_model)
    ws.store.claim(step, needs_approval=True, pid=os.getpid(), pid_started=1.0, boot_id="an earlier boot")
    with ws.store.write() as conn:
        conn.execute("UPDATE steps SET started_at = started_at - 500 WHERE step = ?", (step,))
    ws.store.progress(step, 1, 2, "half")
    [dead] = launcher.reconcile(ws.store)
    assert dead.seconds == pytest.approx(500, abs=5)


def test_nobody_waits_for_a_step_that_was_not_started(ws: Workspace, big_model: Path) -> None:
    run = ws.store.new_run("test")
    plan = price(ws, StepRequest("base", {"model": str(big_model)}, run))
    step = propose(ws, plan)
    with pytest.raises(BadInput, match=f"{step} does not run: it waits for a yes"):
        list(launcher.follow(ws.store, step))
    assert decide(ws, step, plan, say_yes).yes
    with pytest.raises(BadInput, match=f"{step} does not run: it has its yes, but no worker"):
        list(launcher.follow(ws.store, step))


def test_a_stop_that_comes_after_the_end_leaves_it_done(ws: Workspace) -> None:
    """SIGTERM right behind the record of the end, which is where `jobs stop` can fall."""
    run = ws.store.new_run("test")
    step = propose(ws, price(ws, StepRequest("inspect", {}, run)))
    script = """
import os, signal, sys
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.pipeline import worker
class Late(worker.Store):
    def finish(self, *args, **named):
        done = super().finish(*args, **named)
        os.kill(os.getpid(), signal.SIGTERM)
        return done
worker.Store = Late
sys.exit(worker.main())
"""
    command = [sys.executable, "-c", script, "--home", str(ws.store.home), step]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert ws.store.step(step).status == "done"
    assert ws.store.read("SELECT * FROM events WHERE event = 'step.done'")


def test_who_followed_a_step_to_its_end_finds_its_worker_gone(ws: Workspace) -> None:
    """The next step is priced by the memory that is free: a worker that is still leaving holds some."""
    run = ws.store.new_run("test")
    step = propose(ws, price(ws, StepRequest("inspect", {}, run)))
    script = """
import sys
from tunesmith.tools.pipeline import worker
code = worker.main()
sys.stdin.read()
sys.exit(code)
"""
    command = [sys.executable, "-c", script, "--home", str(ws.store.home), step]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        wait_for(lambda: ws.store.step(step).ended)
        assert child.poll() is None, "it has recorded its end and is still there"
        assert child.stdin
        leaves = Timer(1.0, child.stdin.close)
        leaves.start()
        assert wait_end(ws.store, step).status == "done"
        assert leaves.finished.is_set() and child.poll() == 0


def test_a_step_of_this_very_process_is_followed_without_waiting_for_it_to_leave(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A free step runs in the process that asked for it: 10 s were once waited for that one's own end."""
    looked: list[ProcessId] = []
    monkeypatch.setattr(ProcessId, "has_let_go", lambda process: bool(looked.append(process)) or True)
    done = run_step(ws, StepRequest("inspect", {}, ws.store.new_run("test")), say_yes)
    assert done.step.status == "done" and not looked


def test_a_late_answer_does_not_touch_a_step_that_was_started_elsewhere(ws: Workspace, big_model: Path) -> None:
    """Two terminals ask about one step; the second one gets its yes first."""
    run = ws.store.new_run("test")
    plan = price(ws, StepRequest("base", {"model": str(big_model)}, run))
    step = propose(ws, plan)

    def answer_late(plan: Plan, step: str) -> Decision:
        assert decide(ws, step, plan, say_yes).yes
        start(ws, step)
        return Decision(False, "terminal")

    with pytest.raises(BadInput, match=f"step {step} runs already"):
        decide(ws, step, plan, answer_late)
    assert ws.store.step(step).status == "running" and launcher.is_alive(ws.store, ws.store.step(step))
    launcher.stop(ws.store, step)
