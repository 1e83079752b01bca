"""Every process that tunesmith starts: nothing that lies in the user's present folder is run by it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.spec import ServerSpec
from tunesmith.tools.suites.grading.embedding import LocalEmbedder

ROOT = Path(__file__).parents[2]
PLANTED = ("ctypes", "json", "signal", "argparse", "psutil", "torch", "tunesmith")


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, as it is after somebody unpacked a stranger's suite: it tells which of its modules ran."""
    folder = tmp_path / "suite"
    folder.mkdir()
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\nraise SystemExit(3)")
    monkeypatch.chdir(folder)
    return tmp_path / "ran"


@pytest.mark.heavy
def test_a_server_runs_nothing_from_the_present_folder(tmp_path: Path, downloaded: Path) -> None:
    model, home = tmp_path / "model", tmp_path / "home"
    model.mkdir()
    spec = ServerSpec(model_dir=str(model), served_name="base")
    vllm = str(FIXTURES / "stub_vllm.py")
    server = servers.start(home, spec, vllm=vllm, log_path=home / "runs" / "vllm.log", owner="s1")
    try:
        assert servers.healthy(server)
        folders = [Path(f"/proc/{pid}/cwd").resolve() for pid in (server.pid, *_children(server.pid))]
        assert len(folders) >= 2 and set(folders) == {home / "runs"}
    finally:
        servers.stop(server)
    assert not downloaded.exists()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.heavy
@pytest.mark.usefixtures("cold_workers")
def test_a_step_runs_nothing_from_the_present_folder(tmp_path: Path, downloaded: Path) -> None:
    store = Store(tmp_path / "home")
    ws = Workspace(store, None, lambda event, **data: None)
    fields = {"model": str(make_tiny_model(tmp_path / "model"))}
    done = run_step(
        ws, StepRequest("base", fields, store.new_run("test")), lambda plan, step: Decision(True, "test")
    ).done()
    assert done.status == "done" and not downloaded.exists()


def test_the_embedding_model_runs_nothing_from_the_present_folder(
    tmp_path: Path, downloaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    light = tmp_path / "light"  # stands in for what takes seconds to load, and ends the process
    light.mkdir()
    (light / "torch.py").write_text("raise SystemExit('the real one was asked for')")
    monkeypatch.setenv("PYTHONPATH", str(light))
    with LocalEmbedder(tmp_path) as embedder, pytest.raises(Exception, match="the real one"):
        embedder.embed(["text"])
    assert not downloaded.exists()


@pytest.mark.heavy
def test_every_child_is_given_its_folder_and_pythons_a_safe_path() -> None:
    """What the set-up runs comes before there is anything of ours, and isolated."""
    for path in [p for room in ("agent", "tools", "memory") for p in sorted((ROOT / room).rglob("*.py"))]:
        if path.name in ("bootstrap.py", "accelerators.py", "environments.py"):
            continue
        text = path.read_text()
        alone = path.name in ("processes.py", "confined.py")  # the store knows nothing of the machine
        safe = 'sys.executable, "-P", "-m"' in text if alone else "sys.executable" not in text
        assert safe, f"{path}: use python_module"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.Popen", "subprocess.run"):
                assert "cwd" in [word.arg for word in node.keywords], f"{path}:{node.lineno} names no folder"
