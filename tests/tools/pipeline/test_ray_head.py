"""A real Ray head on loopback: one short step goes there and comes back, from where our home cannot be seen."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fixtures.steps import say_yes
from tests.fixtures.terminal import COMMAND
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import wait_for
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.files import verify
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.ray_launcher import RayLauncher, connect
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
HANG_S = 300.0


@dataclass
class Head:
    """A head at work, and the home that sends to it."""

    process: subprocess.Popen[bytes]
    home: Path
    settings: RaySettings

    def end(self) -> None:
        """Its own process group, and no other Ray of this machine."""
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sig)
                self.process.wait(timeout=10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def tunesmith(self, *args: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "TUNESMITH_HOME": str(self.home)}
        return subprocess.run([*COMMAND, *args], env=env, capture_output=True, text=True, timeout=HANG_S, check=False)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


def without_our_home(folder: Path) -> list[str]:
    """What a command is started with so that it sees nothing below `folder`; empty where that is not permitted."""
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)]
    tried = subprocess.run([*hide, "true"], capture_output=True, check=False) if shutil.which("unshare") else None
    return hide if tried and not tried.returncode else []


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("ray")
    scratch = Path(tempfile.mkdtemp(prefix="ts-ray-", dir="/tmp"))  # the paths of its sockets must be short
    (folder / "ours").mkdir()
    (folder / "theirs").mkdir()
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    dashboard, agent, client = free_ports(3)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNESMITH_"))}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "HOME": str(folder / "theirs")}
    env |= {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600"}
    started = subprocess.Popen(
        [*without_our_home(folder / "ours"), str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
         "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--port=0",
         f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}", "--include-dashboard=true",
         "--min-worker-port=0", "--max-worker-port=0", "--num-cpus=64", "--num-gpus=1", "--memory=40000000000",
         "--object-store-memory=80000000", f"--temp-dir={scratch}", "--disable-usage-stats"],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    settings = RaySettings(
        address=f"127.0.0.1:{dashboard}", token_file=str(token), storage=str(folder / "storage"), python=sys.executable
    )
    found = Head(started, folder / "ours" / "home", settings)
    try:
        wait_for(lambda: answers(found), timeout_s=HANG_S)
        yield found
    finally:
        found.end()
        shutil.rmtree(scratch, ignore_errors=True)


def answers(head: Head) -> bool:
    if head.process.poll() is not None:
        pytest.skip("Ray gave the start of its head up: it has limits of its own in seconds, and this machine is busy")
    try:
        return bool(RayLauncher(connect(head.settings, head.home), "head").node().ip)
    except TunesmithError:
        return False


def test_a_step_goes_there_and_comes_back_and_a_dead_head_is_told(head: Head, tmp_path: Path) -> None:
    ws = Workspace(Store(head.home), None, lambda event, **data: None)
    run = ws.store.new_run("test")
    run_step(ws, StepRequest("base", {"model": str(make_tiny_model(tmp_path / "model"))}, run), say_yes).done()
    rows = [{"prompt": f"question {n} of the day", "completion": f"answer {n}"} for n in range(6)]
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    run_step(ws, StepRequest("import", {"source": str(tmp_path / "own.jsonl")}, run), say_yes).done()
    lines = [f"{name} = {json.dumps(value)}" for name, value in head.settings.model_dump().items() if value]
    (head.home / "settings.toml").write_text("[ray]\n" + "\n".join(lines))

    refused = head.tunesmith("critique", "--on", "ray", "--run", run)
    assert refused.returncode == 3, refused.stderr
    assert head.settings.address in refused.stderr, "the price says where"
    done = head.tunesmith("critique", "--on", "ray", "--run", run, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(head.tunesmith("runs", "show", run, "--json").stdout)
    step = shown["steps"][-1]
    assert step["stage"] == "critique" and step["status"] == "done" and step["on"].startswith(head.settings.address)
    [dataset] = step["artifacts"]
    verify(Path(dataset["path"]), dataset["sha256"])
    assert head.settings.address in head.tunesmith("runs", "show", run).stdout

    wrong = head.home / "wrong"
    wrong.write_text("f" * 64)
    text = (head.home / "settings.toml").read_text()
    (head.home / "settings.toml").write_text(text.replace(head.settings.token_file, str(wrong)))
    told = head.tunesmith("critique", "--on", "ray", "--run", run)
    assert told.returncode == 2 and "does not take the token" in told.stderr, told.stderr
    (head.home / "settings.toml").write_text(text)
    (head.home / "ray-machine.json").unlink(missing_ok=True)
    head.end()
    told = head.tunesmith("critique", "--on", "ray", "--run", run)
    assert told.returncode == 2 and f"{head.settings.address} does not answer" in told.stderr, told.stderr
    assert len(json.loads(head.tunesmith("runs", "show", run, "--json").stdout)["steps"]) == 3
