"""A step on another machine makes what it makes here, once, whatever breaks on the way; a trouble is one sentence."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.disks import Mount, disk, fill
from tests.fixtures.steps import say_yes
from tests.fixtures.stub_head import StubHead, stub_head
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import wait_for
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.records import DONE, Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Request
from tunesmith.tools.pipeline import elsewhere, executor, there, worker
from tunesmith.tools.pipeline.ray_launcher import RayLauncher, Reservation
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.pipeline.run_step import decide, price, propose, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

pytestmark = pytest.mark.heavy
__all__ = ["disk"]  # a fixture

RUN = "r1"
SAID = ["Rake found behind the house.", "I oiled the old saw today", "new rope: 12 m", "Paint dries until noon!"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run that has a base and six rows, one of them twice."""
    folder = tmp_path_factory.mktemp("begun")
    ws = Workspace(Store(folder / "home"), None, lambda event, **data: None)
    run = ws.store.new_run("test")
    run_step(ws, StepRequest("base", {"model": str(make_tiny_model(folder / "model"))}, run), say_yes).done()
    rows = [{"prompt": text, "completion": "Noted. " + text.upper()} for text in [*SAID, SAID[0]]]
    (folder / "own.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    run_step(ws, StepRequest("import", {"source": str(folder / "own.jsonl")}, run), say_yes).done()
    ws.store.close()
    return folder / "home"


@pytest.fixture
def head(tmp_path: Path) -> Iterator[StubHead]:
    with stub_head(tmp_path / "there") as head:
        yield head


@pytest.fixture
def ws(begun: Path, tmp_path: Path, head: StubHead, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return workspace(begun, tmp_path / "home", head, monkeypatch)


def workspace(begun: Path, home: Path, head: StubHead, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    shutil.copytree(begun, home)
    (home / "token").write_text("secret\n")
    storage = home.parent / "storage"
    ray = RaySettings(
        address="127.0.0.1:8265", token_file="token", storage=str(storage), python=sys.executable, folder="~/guest"
    )
    for module in (there, elsewhere):
        monkeypatch.setattr(module, "connect", lambda settings, home: head)
    return Workspace(Store(home), None, lambda event, **data: None, ray=ray)


def opened(ws: Workspace) -> Job[Request]:
    """A critique that was agreed to and is claimed by this process, as its worker would."""
    plan = price(ws, StepRequest("critique", {"suites": [], "valid_share": 0.0, "on": "ray"}, RUN))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    return again(ws, step)


def again(ws: Workspace, step: str) -> Job[Request]:
    with worker.claimed(ws.store, step, needs_approval=True):
        return worker.open_job(ws.store, step, None)


def reopened(ws: Workspace, step: str, why: str) -> Job[Request]:
    """The same step after its worker failed and somebody said yes again."""
    ws.store.fail(step, why)
    ws.store.reopen(step)
    assert decide(ws, step, price(ws, StepRequest.of(ws.store.step(step))), say_yes).yes
    return again(ws, step)


def finished(ws: Workspace, job: Job[Request]) -> Step:
    worker.record(job, worker.work(job, ws.ray))
    return ws.store.step(job.step.id)


def made_by(ws: Workspace, step: str) -> list[Artifact]:
    return [made for made in ws.store.artifacts(RUN) if made.step == step]


def blobs(ws: Workspace) -> dict[str, Path]:
    return {path.name: path for path in (Path(ws.ray.storage) / "blobs").iterdir()}


def test_a_step_there_leaves_what_the_same_step_leaves_here(ws: Workspace, head: StubHead) -> None:
    job = opened(ws)
    assert job.plan.on.startswith("127.0.0.1:8265, ")
    away = finished(ws, job)
    here = run_step(ws, StepRequest("critique", {"suites": [], "valid_share": 0.0}, RUN), say_yes).done()
    told = [{k: v for k, v in step.report.items() if k not in ("artifact", "path")} for step in (away, here)]
    assert away.status == DONE and told[0] == told[1]
    [from_there], [from_here] = made_by(ws, away.id), made_by(ws, here.id)
    assert (from_there.sha256, from_there.kind) == (from_here.sha256, from_here.kind)
    assert from_there.parents == from_here.parents and away.report["artifact"] == from_there.id
    assert from_there.path.is_relative_to(ws.store.home / "runs" / RUN / away.id)
    events = ws.store.read("SELECT event, count(*) AS n FROM events WHERE step = ? GROUP BY event", away.id)
    counts = {row["event"]: row["n"] for row in events}
    assert counts["step.done"] == counts["step.returned"] == counts["artifact.made"] == 1
    assert not list((head.folder / "guest" / "homes").glob("*/*")), "its home there is gone once it is brought back"
    assert head.asked[-1]["entrypoint_resources"] == {"node:10.0.0.2": 0.001}


def test_what_is_there_already_is_not_sent_again(ws: Workspace) -> None:
    first = finished(ws, opened(ws))
    before = {name: path.stat().st_ino for name, path in blobs(ws).items()}
    second = finished(ws, opened(ws))
    assert {name: blobs(ws)[name].stat().st_ino for name in before} == before
    assert made_by(ws, first.id)[0].sha256 == made_by(ws, second.id)[0].sha256


def test_a_worker_that_was_killed_here_starts_nothing_twice(ws: Workspace, head: StubHead) -> None:
    """Its attempt goes on there: the next worker takes it up, at work or ended, and records it once."""
    job = opened(ws)
    launcher = RayLauncher(head, "127.0.0.1:8265", step=there.step_name(job.step))
    order = elsewhere._send(job, elsewhere.Storage(ws.ray.storage), there.seen(job.home, ws.ray), elsewhere.Traffic())
    launcher.start(there.attempt_name(job.home, job.step, 1), there.guest_command(ws.ray, "work", order))
    at_work = [name for name in head.submitted if "inspect" not in name]
    done = finished(ws, reopened(ws, job.step.id, "killed"))
    assert done.status == DONE and [name for name in head.submitted if "inspect" not in name] == at_work
    result = worker.work(worker.open_job(ws.store, done.id, None), ws.ray)
    assert result.model_dump(mode="json") == done.result and len(made_by(ws, done.id)) == 1


def test_a_worker_that_was_killed_there_is_told_and_the_next_attempt_is_another(ws: Workspace, head: StubHead) -> None:
    job, killed = opened(ws), list[str]()

    def kill_once() -> None:
        if not killed and (names := [name for name in head.submitted if "inspect" not in name]):
            killed.append(names[-1])
            head.kill(names[-1])

    head.failing = kill_once
    with pytest.raises(StepFailed, match=r"on 127.0.0.1:8265 the step's process ended without a result"):
        worker.work(job, ws.ray)
    assert not made_by(ws, job.step.id)
    assert finished(ws, reopened(ws, job.step.id, "killed there")).status == DONE
    names = [name for name in head.submitted if "inspect" not in name]
    assert [name.rpartition("-")[2] for name in names] == ["1", "2"]


@pytest.mark.parametrize("way", ["there", "back"])
def test_what_changed_on_its_way_is_refused_and_sent_again(
    ws: Workspace, head: StubHead, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, real = opened(ws), elsewhere._brought_back

    def spoil(path: Path) -> None:
        path.write_bytes(b"x" * path.stat().st_size)

    def spoiled(*args: Any) -> Any:
        spoil(blobs(ws)[args[2]["files"][0]["sha256"]])
        return real(*args)

    with monkeypatch.context() as patched:
        if way == "there":
            largest = lambda: max(blobs(ws).values(), key=lambda path: path.stat().st_size)  # noqa: E731
            patched.setattr(head, "before", lambda entrypoint: spoil(largest()) if " work " in entrypoint else None)
        else:
            patched.setattr(elsewhere, "_brought_back", spoiled)
        with pytest.raises(StepFailed, match=r"was changed on its way: its sha256 is .*, sent was"):
            worker.work(job, ws.ray)
    assert not made_by(ws, job.step.id), "nothing is recorded"
    assert finished(ws, reopened(ws, job.step.id, "changed")).status == DONE


def test_two_homes_on_one_cluster_do_not_meet(
    ws: Workspace, begun: Path, tmp_path: Path, head: StubHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").mkdir()
    other = workspace(begun, tmp_path / "b" / "home", head, monkeypatch)
    one, two = opened(ws), opened(other)
    assert one.step.id == two.step.id
    assert finished(ws, one).status == finished(other, two).status == DONE
    copied = tmp_path / "b" / "home" / "ray-home-id"
    copied.write_text((ws.store.home / "ray-home-id").read_text())
    three = worker.open_job(other.store, two.step.id, None)
    with pytest.raises(StepFailed, match=r"knows .*-s\d+-1 as another step: this home is a copy"):
        worker.work(three, other.ray)


@pytest.mark.parametrize("left", [0, 200 << 10])
def test_a_full_disk_there_is_told_and_the_step_goes_on_once_there_is_room(
    ws: Workspace, head: StubHead, disk: Mount, left: int
) -> None:
    """It fills up before anything is fetched, or once the home of the step is made."""
    place = disk(64 << 20)
    ws.ray.__dict__["folder"] = str(place / "guest")
    job = opened(ws)
    head.before = lambda entrypoint: fill(place, leave=left) and None
    with pytest.raises(StepFailed, match=r"on 127.0.0.1:8265: the disk of \S+ is full \(.*make room below") as told:
        worker.work(job, ws.ray)
    assert "or name a `folder` on another disk there" in str(told.value) and "TUNESMITH_HOME" not in str(told.value)
    assert not made_by(ws, job.step.id)
    head.before = lambda entrypoint: None
    (place / "filling").unlink()
    assert finished(ws, reopened(ws, job.step.id, "full there")).status == DONE
    assert [name[-2:] for name in head.submitted if "inspect" not in name] == ["-1", "-2"]


def test_a_full_storage_is_told_before_anything_is_started(ws: Workspace, head: StubHead, disk: Mount) -> None:
    job, place = opened(ws), disk(1 << 20)
    (place / "blobs").mkdir()
    ws.ray.__dict__["storage"] = str(place)
    there.seen(job.home, ws.ray)
    before = list(head.submitted)
    fill(place)
    with pytest.raises(StepFailed, match=r"^the storage \S+ is full; make room on it"):
        worker.work(job, ws.ray)
    assert head.submitted == before and not [path for path in blobs(ws) if path.startswith(".")]


@pytest.mark.parametrize("ahead_s", [3600, -3600])
def test_a_clock_an_hour_off_is_told_and_no_record_goes_by_it(ws: Workspace, tmp_path: Path, ahead_s: int) -> None:
    (tmp_path / "off").mkdir()
    shifted = f"import time\nreal = time.time\ntime.time = lambda: real() + {ahead_s}\n"
    (tmp_path / "off" / "sitecustomize.py").write_text(shifted)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "off"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    ws.ray.__dict__["python"] = str(python)
    began, job = time.time(), opened(ws)
    way = "ahead of" if ahead_s > 0 else "behind"
    assert f" {way} this one; what is recorded goes by this one" in " ".join(job.plan.notes)
    done = finished(ws, job)
    times = [row["at"] for row in ws.store.read("SELECT at FROM events WHERE step = ?", done.id)]
    assert done.status == DONE and began <= min(times) <= max(times) <= time.time()


@pytest.mark.parametrize("answers", [True, False])
def test_a_half_done_step_moves_when_that_is_asked_for_and_ends_there(
    ws: Workspace, head: StubHead, answers: bool
) -> None:
    job, said = opened(ws), list[str]()
    ws = replace(ws, emit=lambda event, **data: said.append(str(data.get("text", ""))))
    name = there.attempt_name(job.home, job.step, 1)
    RayLauncher(head, "h:1", step=there.step_name(job.step)).start(name, ["sleep", "600"])
    ws.store.fail(job.step.id, "killed")
    if not answers:
        head.failing = lambda: (_ for _ in ()).throw(ConnectionError("no route"))
    moved = executor.go_on(ws, RUN, say_yes, on="here").done()
    assert moved.id != job.step.id and (moved.status, moved.on) == (DONE, "")
    head.failing = lambda: None
    warned = any("may still be at work there, and what it makes is not taken" in text for text in said)
    assert (head.get_job_status(name).value == "STOPPED", warned) == (answers, not answers)
    assert len([name for name in head.submitted if "inspect" not in name]) == 1


def test_a_stop_here_is_a_stop_there(ws: Workspace, head: StubHead) -> None:
    job = opened(ws)
    names: list[str] = []

    def stopped() -> None:
        names[:] = [name for name in head.submitted if "inspect" not in name]
        if names and "progress" in head._log(names[0]).read_text():
            head.failing = lambda: None
            raise KeyboardInterrupt

    head.failing = stopped
    with pytest.raises(KeyboardInterrupt):
        worker.work(job, ws.ray)
    wait_for(lambda: head.get_job_status(names[0]).value == "STOPPED")


REFUSED: dict[str, tuple[Any, str]] = {
    "a dead head": (ConnectionError("Failed to connect to Ray at address"), "does not answer .ConnectionError"),
    "a wrong token": (type("AuthenticationError", (Exception,), {})("403"), "does not take the token"),
    "any other refusal": (RuntimeError("Request failed with status code 500: no"), "refused: .*500: no"),
}


@pytest.mark.parametrize("trouble", REFUSED)
def test_a_head_that_takes_nothing_is_told_before_any_price(ws: Workspace, head: StubHead, trouble: str) -> None:
    error, told = REFUSED[trouble]

    def fail() -> None:
        raise error

    head.failing = fail
    with pytest.raises(BadInput, match=told):
        price(ws, StepRequest("critique", {"on": "ray"}, RUN))
    assert head.submitted == [] and len(ws.store.steps(RUN)) == 2


def test_a_head_that_falls_silent_keeps_its_step_and_is_asked_again(ws: Workspace, head: StubHead) -> None:
    job = opened(ws)
    machine = there.seen(job.home, ws.ray)
    launcher = RayLauncher(head, machine.place, step=there.step_name(job.step))

    def silent() -> None:
        if any("inspect" not in name for name in head.submitted):
            raise ConnectionError("no route")

    head.failing = silent
    with pytest.raises(StepFailed, match=r"does not answer .*it has been silent .*may go on there.*--resume r1"):
        elsewhere.carried_out(job, ws.ray, launcher, machine, patience_s=0.0)
    head.failing = lambda: None
    assert finished(ws, reopened(ws, job.step.id, "silent")).status == DONE
    assert len([name for name in head.submitted if "inspect" not in name]) == 1


def test_another_version_is_refused_by_name(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(there, "versions", lambda: "tunesmith 9.9, schema 99")
    with pytest.raises(
        BadInput, match=r"tunesmith .*, schema \d+ is installed there, and tunesmith 9.9, schema 99 her"
    ):
        price(ws, StepRequest("critique", {"on": "ray"}, RUN))


def test_no_tunesmith_there_is_told_by_what_its_shell_said(ws: Workspace) -> None:
    ws.ray.__dict__["python"] = "/nowhere/python"
    with pytest.raises(BadInput, match=r"ended without a result: .*/nowhere/python"):
        price(ws, StepRequest("critique", {"on": "ray"}, RUN))


def test_a_card_that_vanished_is_told_and_nothing_is_lost(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    job, real = opened(ws), elsewhere.json.dumps
    monkeypatch.setattr(elsewhere.json, "dumps", lambda value, **more: real({**value, "cards": ["NVIDIA L4"]}, **more)
                        if isinstance(value, dict) and "cards" in value else real(value, **more))  # fmt: skip
    with pytest.raises(StepFailed, match=r"NVIDIA L4, which the step was priced for, is no longer there"):
        worker.work(job, ws.ray)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        (Reservation(cards=1), "it needs 1 GPU \\(0 GPU there\\)"),
        (Reservation(cpus=65), "it needs 65 CPU \\(64 CPU there\\)"),
        (Reservation(memory_bytes=int(2e12)), "it needs 1.8 TiB of memory \\(931 GiB of memory there\\)"),
    ],
)
def test_what_no_node_can_hold_is_refused_and_not_waited_for(head: StubHead, needs: Reservation, told: str) -> None:
    with pytest.raises(BadInput, match=f"can never hold this step: {told}"):
        RayLauncher(head, "h:1", needs).start("n", ["true"])
    assert head.submitted == []


def test_what_ray_itself_writes_into_a_log_is_no_word_of_the_step(head: StubHead) -> None:
    launcher = RayLauncher(head, "h:1")
    ray = "2026-11-29 12:29:05,587\tINFO job_manager.py:581 -- Runtime env is setting up."
    lines = [ray, "env: no such program", "Running entrypoint for job n: exec /usr/bin/env no-such-program"]
    launcher.start("n", ["printf", "%s\\n", *lines])
    head.wait("n")
    assert launcher.log("n") == "env: no such program\n"


def test_a_name_that_was_used_starts_nothing(head: StubHead) -> None:
    launcher = RayLauncher(head, "h:1")
    for _ in range(2):
        launcher.start("n", ["sh", "-c", 'echo "threads ${OMP_NUM_THREADS-free}"'])
        head.wait("n")
    assert head.submitted == ["n"] and launcher.log("n") == "threads free\n" and not launcher.alive("n")


def test_the_machine_is_asked_once_for_a_plan_and_its_clock_is_told(ws: Workspace, head: StubHead) -> None:
    there.seen(ws.store.home, ws.ray)
    there.seen(ws.store.home, ws.ray)
    assert len(head.submitted) == 1
    kept = json.loads((ws.store.home / "ray-machine.json").read_text())
    late = there.There.of("h:1", kept["answer"], ahead_s=-3600)
    assert late.notes == ("the clock of h:1 is 1 h 00 min behind this one; what is recorded goes by this one",)
    assert abs(kept["ahead_s"]) < 60 and time.time() - kept["at"] < 600
