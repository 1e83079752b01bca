"""Idle measuring servers: their memory counts as free, and they leave before work that needs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.planted_gpus import GIB, gpu, plant
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.pipeline.run_step import quote, run_step
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace
from tunesmith.tools.serving import eviction, servers
from tunesmith.tools.serving.eviction import machine_for_a_step, make_room, without
from tunesmith.tools.serving.servers import BENCH, DRIVER, Server
from tunesmith.tools.serving.spec import ServerSpec

STUB = str(FIXTURES / "stub_vllm.py")
MACHINE = Machine("cpu", 2, 8 * GIB, 2 * GIB, 0, 50 * GIB)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    servers.stop_all(tmp_path / "home")


def start(home: Path, *, device: str = "cpu", role: str = BENCH, gpu_bytes: int = 0) -> Server:
    fields = {"model_dir": "/nowhere", "served_name": role, "device": device, "gpu_bytes": gpu_bytes}
    spec = ServerSpec.model_validate(fields)
    return servers.start(home, spec, vllm=STUB, log_path=home / "logs" / "log", owner="s1", role=role)


def roles(home: Path) -> list[str]:
    return [server.role for server in servers.list_servers(home)]


@pytest.mark.heavy
def test_what_a_server_holds_counts_as_free_for_the_step_that_adopts_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "measure_machine", lambda folder: MACHINE)
    assert machine_for_a_step(home) == MACHINE
    start(home)
    start(home, role=DRIVER)
    held = machine_for_a_step(home).ram_free_bytes - MACHINE.ram_free_bytes
    assert 5 << 20 < held < 500 << 20, "two Python processes and their parent, and not the driver's"
    monkeypatch.setattr(eviction, "tree_own_bytes", lambda pids: 7 * GIB)
    assert machine_for_a_step(home).ram_free_bytes == 8 * GIB, "never more than there is"


@pytest.mark.heavy
def test_a_price_is_held_against_that_memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = Workspace(Store(home), None, lambda event, **data: None)
    monkeypatch.setattr(eviction, "measure_machine", lambda folder: MACHINE)
    monkeypatch.setattr(eviction, "tree_own_bytes", lambda pids: 3 * GIB)
    assert quote(ws, StepRequest("inspect", {})).free_ram_bytes == 2 * GIB
    start(home)
    assert quote(ws, StepRequest("inspect", {})).free_ram_bytes == 5 * GIB


@pytest.mark.heavy
def test_on_a_gpu_it_is_what_the_driver_counts_else_the_share_that_was_claimed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant(monkeypatch, gpu(0, free=20), gpu(1, free=2))
    server = start(home, device="cuda", gpu_bytes=6 * GIB)
    before = replace(MACHINE, gpus=(gpu(0, free=12), gpu(1, free=2)))
    assert [card.free_bytes for card in without(before, [server]).gpus] == [
        pytest.approx(19 * GIB, rel=0.001),
        2 * GIB,
    ], "6 and the margin, in a share of three digits"
    planted.holds = {server.pid: 5 * GIB, 1: 7 * GIB}
    assert [card.free_bytes for card in without(before, [server]).gpus] == [17 * GIB, 2 * GIB]
    of_another_boot = replace(server, process=replace(server.process, boot_id="earlier"))
    assert without(before, [of_another_boot]) == before, "its share is nobody's, and its pid is another program's"


@pytest.mark.heavy
def test_a_server_on_the_cpu_leaves_only_where_the_work_does_not_easily_fit_beside_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "measure_machine", lambda folder: MACHINE)
    start(home)
    start(home, role=DRIVER)
    told: list[str] = []
    make_room(home, ram_bytes=int(1.5 * GIB), log=told.append)
    assert roles(home) == [BENCH, DRIVER] and not told
    make_room(home, ram_bytes=int(1.8 * GIB), log=told.append)
    assert roles(home) == [DRIVER] and "2.0 GiB free" in told[0]


@pytest.mark.heavy
def test_a_step_that_does_not_serve_finds_the_gpu_empty(home: Path, tmp_path: Path) -> None:
    start(home, device="cuda")
    ws = Workspace(Store(home), None, lambda event, **data: None)
    run = ws.store.new_run("test")
    fields = {"model": str(make_tiny_model(tmp_path / "model"))}
    run_step(ws, StepRequest("base", fields, run), lambda plan, step: Decision(True, "test")).done()
    assert roles(home) == []
