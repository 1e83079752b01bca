"""A real Ray head on loopback: one short step goes there and comes back, from where our home cannot be seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fixtures.ray_head import HANG_S, Head, ray_head
from tests.fixtures.steps import say_yes
from tests.fixtures.terminal import COMMAND
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import wait_for
from tunesmith.memory.files import verify
from tunesmith.memory.records import DONE
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with ray_head(tmp_path_factory.mktemp("ray")) as head:
        yield head


def begun(head: Head, folder: Path, rows: int) -> str:
    """A run in the head's home, with a base and rows."""
    ws = Workspace(Store(head.home), None, lambda event, **data: None)
    run = ws.store.new_run("test")
    run_step(ws, StepRequest("base", {"model": str(make_tiny_model(folder / "model"))}, run), say_yes).done()
    own = [{"prompt": f"question {n} of the day", "completion": f"answer {n}"} for n in range(rows)]
    (folder / "own.jsonl").write_text("\n".join(json.dumps(row) for row in own))
    run_step(ws, StepRequest("import", {"source": str(folder / "own.jsonl")}, run), say_yes).done()
    head.write_settings()
    return run


def test_a_step_goes_there_and_comes_back_and_a_dead_head_is_told(head: Head, tmp_path: Path) -> None:
    run = begun(head, tmp_path, 6)
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


@pytest.mark.slow
def test_a_head_that_is_killed_loses_nothing_and_nothing_is_done_twice(head: Head, tmp_path: Path) -> None:
    head.start()  # again: the test before ended it
    run = begun(head, tmp_path, 3000)
    with (tmp_path / "said").open("wb") as said:
        env = {**os.environ, "TUNESMITH_HOME": str(head.home)}
        argv = [*COMMAND, "critique", "--on", "ray", "--run", run, "--yes"]
        working = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    wait_for(lambda: head.at_work() or working.poll() is not None, timeout_s=HANG_S)
    head.end(signal.SIGKILL)
    assert working.poll() is None, (tmp_path / "said").read_text()
    wait_for(lambda: not head.at_work(), told="what a dead head had started works on")
    head.start()
    assert working.wait(HANG_S) == 1
    store = Store(head.home)
    [failed] = [step for step in store.steps(run) if step.stage == "critique"]
    assert "its head was restarted since; going on submits it anew" in failed.error, failed.error
    again = head.tunesmith("resume", run, "--yes")
    assert again.returncode == 0, again.stderr
    [done] = [step for step in store.steps(run) if step.stage == "critique"]
    assert (done.id, done.status) == (failed.id, DONE), "it goes on, and is not planned anew"
    [dataset] = store.artifacts(run, "dataset")
    verify(dataset.path, dataset.sha256)
