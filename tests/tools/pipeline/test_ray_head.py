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
from tests.fixtures.terminal import COMMAND, Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import wait_for
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import verify
from tunesmith.memory.records import DONE
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.pipeline.run_step import price, run_step
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
    run, tunesmith = begun(head, tmp_path, 6), Tunesmith(head.home)
    done = tunesmith("critique", "--on", "ray", "--run", run, "--yes")
    assert done.returncode == 0, done.stderr
    assert head.settings.address in done.stderr, "the price says where"
    store = Store(head.home)
    step = store.steps(run)[-1]
    assert (step.stage, step.status) == ("critique", DONE) and step.on.startswith(head.settings.address)
    [dataset] = store.artifacts(run, "dataset")
    verify(dataset.path, dataset.sha256)
    assert head.settings.address in tunesmith("runs", "show", run).stdout

    def refused(settings: RaySettings) -> str:
        (head.home / "ray-machine.json").unlink(missing_ok=True)
        ws = Workspace(store, None, lambda event, **data: None, ray=settings)
        with pytest.raises(BadInput) as told:
            price(ws, StepRequest("critique", {"on": "ray"}, run))
        return str(told.value)

    (head.home / "wrong").write_text("f" * 64)
    (head.home / "wrong").chmod(0o600)
    assert "does not take the token" in refused(head.settings.model_copy(update={"token_file": "wrong"}))
    head.end()
    assert f"{head.settings.address} does not answer" in refused(head.settings)
    assert len(store.steps(run)) == 3


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
