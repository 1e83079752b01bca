"""`kill -9` of a training worker: the command names the death, and resuming goes on from the last checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.fixtures.lab_model import write_rows, write_tiny_model
from tests.fixtures.terminal import COMMAND, Tunesmith
from tunesmith.memory.files import seal, verify
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store

pytestmark = pytest.mark.lab
STEPS, SAVE_STEPS = 12, 4
TRAIN = [
    "--max_steps", str(STEPS), "--save_steps", str(SAVE_STEPS), "--patience", "0", "--batch_size", "4",
    "--lora_rank", "4",
]  # fmt: skip


def ready_to_train(store: Store, model: Path) -> str:
    """A run that has its base and its rows, as `base` and `critique` leave them."""
    run = store.new_run("test")
    rows = store.home / "rows"
    rows.mkdir()
    write_rows(rows / "train.jsonl", 24)
    write_rows(rows / "valid.jsonl", 4)
    config = json.loads((model / "config.json").read_text())
    base = {"name": "tiny", "parameters": 100_000, "config": config}
    for kind, path, meta in (("base", model, base), ("dataset", rows, {"train_rows": 24, "tokens_per_row": 40})):
        step = store.propose(run, "base" if kind == "base" else "critique", plan_hash=kind)
        sealed = seal(path, kind=kind, step=step)
        store.add_artifact(Artifact("", run, step, kind, path, sealed["sha256"], sealed["bytes"], (), meta))
        store.finish(step, {})
    return run


def killed_after_a_checkpoint(store: Store, starter: subprocess.Popen[str]) -> str:
    """Kill the worker once a checkpoint is whole; the step's id."""
    while not list(store.home.glob("runs/*/*/checkpoints/checkpoint-*")):
        assert starter.poll() is None, "no checkpoint was written"
        time.sleep(0.01)
    [step] = store.steps(status="running")
    assert step.pid is not None
    ranks = psutil.Process(step.pid).children(recursive=True)
    os.kill(step.pid, signal.SIGKILL)
    assert psutil.wait_procs(ranks, timeout=60)[1] == [], "nothing that it started is left running"
    return step.id


def test_a_killed_training_goes_on_by_command(tmp_path: Path) -> None:
    """In two processes, as for two cards; one that trains in its worker is killed twelve times in `tests/trust`."""
    tunesmith = Tunesmith(tmp_path / "home")
    store = Store(tunesmith.home)
    run = ready_to_train(store, write_tiny_model(tmp_path / "model"))
    train = [*COMMAND, "train", *TRAIN, "--cards", "2", "--yes"]
    starter = subprocess.Popen(train, env=tunesmith.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    step = killed_after_a_checkpoint(store, starter)
    told = starter.communicate()[1]
    assert starter.returncode == 1 and "died without recording an end" in told and "--resume" in told, told
    done = len(store.metrics(step, "loss"))
    assert store.step(step).status == "failed" and done < STEPS and store.artifacts(run, "adapter") == []

    resumed = tunesmith("run", "--resume", run, "--yes")
    assert resumed.returncode == 0, resumed.stderr
    ended = store.step(step)
    assert ended.status == "done" and ended.result is not None and ended.result["steps"] == STEPS
    log = (tunesmith.home / "runs" / run / step / "worker.log").read_text()
    assert "going on from checkpoint-" in log
    assert "2 processes on the same cores" in json.dumps(ended.plan)
    points = [x for x, _ in store.metrics(step, "loss")]
    assert points == [float(x) for x in range(1, STEPS + 1)], "no step is missing, none was invented"
    validated = dict(store.metrics(step, "validation_loss"))
    assert list(validated) == [float(x) for x in range(0, STEPS + 1, SAVE_STEPS)]
    assert ended.result["validation_loss"] == validated[ended.result["best_step"]]
    assert f"kept step {ended.result['best_step']} of {STEPS}" in ended.result["choice"]
    [adapter] = store.artifacts(run, "adapter")
    assert verify(adapter.path, adapter.sha256)
    asked = store.read("SELECT decision, used_at FROM approvals WHERE step = ?", step)
    assert [row["decision"] for row in asked] == ["yes", "yes"] and all(row["used_at"] for row in asked)
