"""A home that was moved or copied is whole: every command says the same of it, and none looks at the old place."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.stored_runs import Builder, add_deployment, finished_run
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import wait_for
from tunesmith.memory.conversations import Conversations
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import seal
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job, sealed_pin
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.export.deploy import DeployRequest
from tunesmith.tools.export.deploy import inspect_inputs as inspect_deployment
from tunesmith.tools.models.folder import fingerprint, folder_pins, sealed_as
from tunesmith.tools.pipeline import launcher, planning_facts
from tunesmith.tools.pipeline.run_step import current_plan, price, propose, run_pending
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.spec import ServerSpec

OLD, NEW = "home", "elsewhere/my home"


def by_mv(old: Path, new: Path) -> None:
    new.parent.mkdir()
    subprocess.run(["mv", old, new], check=True)


def by_copy(old: Path, new: Path) -> None:
    """The old place is still there, and whatever is read from it shows."""
    new.parent.mkdir()
    subprocess.run(["cp", "-a", old, new], check=True)
    for file in old.rglob("*"):
        if file.is_file() and not file.name.startswith("tunesmith.db"):
            file.write_text("{stale")


MOVES = pytest.mark.parametrize("move", [by_mv, by_copy])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A finished run, all of whose artifacts lie in the home, with two deployments."""
    home = tmp_path / OLD
    store, run = finished_run(home)
    build = Builder(store, run)
    add_deployment(build, "merged", next(made.id for made in store.artifacts(run, "merged")))
    with store.write() as conn:
        for made in store.artifacts(run):
            path = home / ("models" if made.kind == "base" else f"runs/{run}/{made.step}") / made.kind
            if made.kind == "suite":
                continue
            path.mkdir(parents=True)
            (path / "content").write_text(made.id)
            conn.execute("UPDATE artifacts SET path = ? WHERE artifact = ?", (store.places.stored(str(path)), made.id))
    store.close()
    return home


def shown(home: Path) -> dict[str, Any]:
    """What commands say of a home, its own name left out."""
    tunesmith = Tunesmith(home)
    report = home.parent / "report.html"
    done = tunesmith("report", "r1", "-o", str(report))
    assert done.returncode == 0, done.stderr
    said = {
        "list": tunesmith.json("runs", "list"),
        "show": tunesmith.json("runs", "show", "r1"),
        "compare": tunesmith.json("compare", "r1", "--arms", "base,quantized"),
        "report": report.read_text(),
        "sql": tunesmith.json("runs", "sql", "SELECT path, request, result FROM v_lineage JOIN v_steps USING (run)"),
    }
    return json.loads(json.dumps(said).replace(str(home), "HOME"))


@pytest.mark.heavy
@MOVES
def test_every_command_says_the_same_after_a_move(
    home: Path, tmp_path: Path, move: Callable[[Path, Path], None]
) -> None:
    before, new = shown(home), tmp_path / NEW
    move(home, new)
    after = shown(new)
    assert after == before
    paths = [made["path"] for step in after["show"]["steps"] for made in step["artifacts"]]
    assert len(paths) == 13 and all(path.startswith("HOME/") for path in paths)
    for path in paths:
        assert Path(path.replace("HOME", str(new))).exists()
    assert str(home) not in json.dumps(after)


@MOVES
def test_a_rollback_goes_to_the_model_in_the_new_place(
    home: Path, tmp_path: Path, move: Callable[[Path, Path], None]
) -> None:
    move(home, tmp_path / NEW)
    with closing(Store(tmp_path / NEW)) as store:
        context = inspect_deployment(DeployRequest(rollback=True), planning_facts.inputs_of(store, "r1"))
        assert context.earlier and context.model and context.base
        for made in (context.earlier, context.model, context.base):
            assert made.path.is_relative_to(store.home) and (made.path / "content").read_text() == made.id


@pytest.fixture
def model_at_home(tmp_path: Path) -> Path:
    """A home in which the model lies that a base is taken from, with a plan for it that waits for a yes."""
    home = tmp_path / OLD
    model = make_tiny_model(home / "own" / "model")
    home.chmod(0o700)
    with closing(Store(home)) as store:
        ws = Workspace(store, None, lambda event, **facts: None)
        propose(ws, price(ws, StepRequest("base", {"model": str(model)}, store.new_run("r"))))
    return home


def test_a_plan_that_waits_is_the_same_plan_after_a_move(
    model_at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_mv(model_at_home, new := tmp_path / NEW)
    with closing(Store(new)) as store:
        waiting, ws = store.step("s1"), Workspace(store, None, lambda event, **facts: None)
        assert waiting.request["model"] == str(new / "own" / "model")
        now = price(ws, StepRequest.of(waiting))
        assert now.hash == current_plan(waiting).hash != waiting.plan_hash
        asked: list[str] = []
        no = Decision(False, "test", "")
        run_pending(ws, waiting, lambda plan, step: asked.append(plan.hash) or no)
        assert asked == [now.hash] and store.step("s1").plan_hash == now.hash, "the hash that is shown finds it again"
        assert len(store.priced_steps()) == 1


@MOVES
def test_a_sealed_model_in_the_home_is_hashed_again_and_a_changed_one_is_refused(
    model_at_home: Path, tmp_path: Path, move: Callable[[Path, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_at_home / "own" / "model"
    (model / "big.safetensors").write_bytes(bytes(2 << 20))
    seal(model)
    pins = folder_pins("model folder", fingerprint(model), sealed_as(model))
    assert set(pins) == {"model folder", sealed_pin("model folder")}
    plan = Plan(
        stage="base", run="r1", summary="", steps=(), request={}, pins=pins, estimate=Estimate(seconds=1, basis="")
    )
    move(model_at_home, new := tmp_path / NEW)
    model = new / "own" / "model"
    with closing(Store(new)) as store:
        job = Job(store, store.step("s1"), plan, StepRequest("base", {}, "r1"), {}, new)  # type: ignore[type-var]
        job.agreed_folder("model folder", model, fingerprint(model))
        assert ("hashed again" in capsys.readouterr().err) == (move is by_copy)
        (model / "big.safetensors").write_bytes(b"x" + bytes((2 << 20) - 1))
        with pytest.raises(StepFailed, match="changed since it was sealed"):
            job.agreed_folder("model folder", model, fingerprint(model))


def test_a_result_that_waited_beside_its_step_is_delivered_after_a_move(home: Path, tmp_path: Path) -> None:
    with closing(Store(home)) as store:
        step = store.propose("r1", "merge", plan_hash="h")
        store.claim(step, needs_approval=False, pid=2**22 + 1, pid_started=1.0, boot_id="gone", pid_ticks=1)
        path = launcher.log_path(store, store.step(step)).with_name("result.json")
        path.parent.mkdir(parents=True)
        result = {"path": str(path.parent / "merged")}
        path.write_text(store.places.to_json({"worker": store.step(step).worker, "result": result}))
    by_mv(home, new := tmp_path / NEW)
    with closing(Store(new)) as store:
        assert [ended.id for ended in launcher.reconcile(store)] == [step]
        assert store.step(step).result == {"path": str(new / "runs" / "r1" / step / "merged")}


def test_a_draft_of_a_conversation_names_the_new_place(home: Path, tmp_path: Path) -> None:
    plan = {"steps": [{"stage": "generate", "fields": {"behaviour": str(home / "behaviours" / "b")}}]}
    with closing(Store(home)) as store:
        talk = Conversations(store)
        talk.draft("c1", talk.begin("c1", "hello"), plan)
    by_mv(home, new := tmp_path / NEW)
    with closing(Store(new)) as store:
        assert Conversations(store).load("c1").draft == json.loads(json.dumps(plan).replace(str(home), str(new)))


@pytest.mark.heavy
@MOVES
def test_a_server_that_runs_goes_along_with_a_move_and_stays_with_the_original_of_a_copy(
    home: Path, tmp_path: Path, move: Callable[[Path, Path], None]
) -> None:
    stub, spec = str(FIXTURES / "stub_vllm.py"), ServerSpec(model_dir=str(home / "models" / "base"), served_name="base")
    server = servers.start(
        home, spec, vllm=stub, log_path=home / "logs" / "vllm.log", owner="s1", role=servers.DEPLOYED
    )
    new = tmp_path / NEW
    try:
        if move is by_copy:
            shutil.copytree(home, new, copy_function=shutil.copy2)
            assert servers.list_servers(new) == [], "it is not ours to stop or to use"
            assert [one.pid for one in servers.list_servers(home)] == [server.pid]
            return
        move(home, new)
        time.sleep(2.5)  # its parent looks every second whether it is still on the books
        (found,) = servers.list_servers(new)
        assert (found.pid, found.log) == (server.pid, new / "logs" / "vllm.log") and servers.healthy(found)
        assert found.spec.model_dir == str(new / "models" / "base")
        servers.stop(found)
        wait_for(lambda: not found.process.alive())
    finally:
        for place in (home, new):
            servers.stop_all(place)
