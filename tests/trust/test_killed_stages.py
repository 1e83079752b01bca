"""`kill -9` at times spread over the stages that load torch: nothing half is an artifact, and resuming ends it whole.

What is done call by call is in `test_kill_points`; a stage with torch has too many calls, so here it is the time that
is cut into parts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.crash.test_train_kill import TRAIN, ready_to_train
from tests.fixtures.lab_model import write_tiny_model
from tests.fixtures.terminal import COMMAND, Tunesmith
from tunesmith.memory.files import verify
from tunesmith.memory.store import Store

pytestmark = [pytest.mark.alone, pytest.mark.slow]
MADE = {"train": "adapter", "merge": "merged", "quantize": "quantized"}
OPTIONS = {"train": TRAIN, "merge": [], "quantize": ["--calibration_samples", "4"]}
KILLS = 12


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tunesmith, Store, str, dict[str, float]]:
    """A run in which every stage was done once, and the seconds that each took."""
    folder = tmp_path_factory.mktemp("killed")
    tunesmith = Tunesmith(folder / "home")
    store = Store(tunesmith.home)
    run = ready_to_train(store, write_tiny_model(folder / "model"))
    took = {}
    for stage, options in OPTIONS.items():
        begun = time.monotonic()
        done = tunesmith(stage, *options, "--yes")
        took[stage] = time.monotonic() - begun
        assert done.returncode == 0, done.stderr
    return tunesmith, store, run, took


@pytest.mark.parametrize("stage", list(MADE))
@pytest.mark.parametrize("part", range(KILLS))
def test_a_stage_that_is_killed_leaves_nothing_half_and_is_ended_by_resuming(
    lab: tuple[Tunesmith, Store, str, dict[str, float]], stage: str, part: int
) -> None:
    tunesmith, store, run, took = lab
    before = {artifact.id for artifact in store.artifacts(run)}
    command = [*COMMAND, stage, *OPTIONS[stage], "--yes"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=tunesmith.env, stdin=subprocess.DEVNULL, stderr=pipe, text=True) as starter:
        step = ""
        while not step:
            assert starter.poll() is None
            step = next((s.id for s in store.steps(run, status="running") if s.stage == stage and s.pid), "")
            time.sleep(0.01)
        time.sleep(took[stage] * part / KILLS)
        killed = store.step(step)
        if killed.status == "running" and killed.pid:
            os.kill(killed.pid, signal.SIGKILL)
        told = starter.communicate()[1]
    made = [a for a in store.artifacts(run, MADE[stage]) if a.id not in before]
    status = store.step(step).status
    assert (status, len(made)) in (("failed", 0), ("done", 1)), told
    if status == "failed":
        resumed = tunesmith("run", "--resume", run, "--yes")
        assert resumed.returncode == 0, resumed.stderr
    [artifact] = [a for a in store.artifacts(run, MADE[stage]) if a.id not in before]
    assert store.step(step).status == "done" and verify(artifact.path, artifact.sha256)
    assert store.read("SELECT * FROM events WHERE step = ? AND event = 'step.done'", step)
    folders = [path for path in Path(tunesmith.home / "runs" / run / step).iterdir() if path.is_dir()]
    assert artifact.path in folders
