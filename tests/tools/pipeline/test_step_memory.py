"""The memory that a step is charged with: its own process and its own servers, and nobody else's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.planted_gpus import GIB, gpu
from tests.fixtures.steps import say_yes
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Gpu
from tunesmith.tools.machine.processes import own_tree, resident_bytes
from tunesmith.tools.pipeline import worker
from tunesmith.tools.pipeline.run_step import price, propose, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.spec import ServerSpec

STUB = str(FIXTURES / "stub_vllm.py")
HELD_BYTES = 300_000_000


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    yield Workspace(Store(tmp_path), None, lambda event, **data: None)
    servers.stop_all(tmp_path)


def serve(ws: Workspace, tmp_path: Path, *, owner: str, role: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    spec = ServerSpec(model_dir=str(model), served_name="large")
    servers.start(ws.store.home, spec, vllm=STUB, log_path=tmp_path / "log", owner=owner, role=role)


@pytest.mark.heavy
def test_a_step_in_this_process_is_not_charged_with_the_drivers_server(ws: Workspace, tmp_path: Path) -> None:
    serve(ws, tmp_path, owner="driver", role=servers.DRIVER)
    step = run_step(ws, StepRequest("inspect", {}, ws.store.new_run("test")), say_yes).done()
    assert step.peak_rss_bytes
    assert step.peak_rss_bytes < resident_bytes(own_tree(os.getpid()).values()) + HELD_BYTES / 3


@pytest.mark.heavy
def test_a_server_that_the_step_started_is_charged_to_it_before_it_answers(ws: Workspace, tmp_path: Path) -> None:
    run = ws.store.new_run("test")
    step = propose(ws, price(ws, StepRequest("inspect", {}, run)))
    job = worker.open_job(ws.store, step, None)
    before = worker.own_bytes(job)
    serve(ws, tmp_path, owner=step, role=servers.BENCH)
    assert worker.own_bytes(job) - before > HELD_BYTES


def test_a_short_peak_of_vram_is_kept_though_the_workers_own_memory_stays_as_it_is(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([20, 18, 6, 15, 19])
    left = [20.0]

    def measured() -> tuple[Gpu, ...]:
        left[0] = next(free, left[0])
        return (gpu(0, free=left[0]),)

    run = ws.store.new_run("test")
    step = propose(ws, price(ws, StepRequest("inspect", {}, run)))
    job, done, samples = worker.open_job(ws.store, step, None), Event(), count(1)
    monkeypatch.setattr(worker, "measure_gpus", measured)
    monkeypatch.setattr(worker, "own_bytes", lambda job: 1_000_000 + next(samples))  # less than 2 % more
    monkeypatch.setattr(worker, "_SAMPLE_EVERY_S", 0.01)
    watch = Thread(target=worker._watch_memory, args=(job, done))
    watch.start()
    while left[0] != 19 and watch.is_alive():
        time.sleep(0.01)
    seen = ws.store.step(step)
    assert seen.peak_vram_bytes == 14 * GIB, "before the end"
    done.set()
    watch.join(5)
    ended = ws.store.step(step)
    assert ended.peak_vram_bytes == 14 * GIB and (ended.peak_rss_bytes or 0) > (seen.peak_rss_bytes or 0)
