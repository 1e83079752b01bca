"""The driver's server gives way to a step that needs the room, whoever starts it, and is counted as free before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.steps import say_yes
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Gpu, Machine
from tunesmith.tools.core.stage import GIB, Plan
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.pipeline import driver_eviction, executor, launcher, planning_facts
from tunesmith.tools.pipeline.driver_eviction import blocked_by
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.run_step import Outcome, decide, price, propose, quote, resume_step, run_step
from tunesmith.tools.pipeline.start_step import follow_step, start
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import eviction, servers
from tunesmith.tools.serving.eviction import without
from tunesmith.tools.serving.servers import Server
from tunesmith.tools.serving.spec import ServerSpec

pytestmark = pytest.mark.heavy

STUB = str(FIXTURES / "stub_vllm.py")
HELD_BYTES = 300_000_000
PLAIN = Machine("cpu", 2, 24 * GIB, 20 * GIB, 0, 50 * GIB)


@pytest.fixture
def events() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def ws(tmp_path: Path, events: list[tuple[str, dict[str, Any]]]) -> Iterator[Workspace]:
    yield Workspace(Store(tmp_path / "home"), None, lambda event, **data: events.append((event, data)))
    servers.stop_all(tmp_path / "home")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "tiny")


@pytest.fixture
def driver(ws: Workspace, model: Path) -> Server:
    return serve(ws, model)


def serve(ws: Workspace, model: Path, **changes: Any) -> Server:
    spec = ServerSpec(model_dir=str(model), served_name="large", **changes)
    log = ws.store.home / "log"
    return servers.start(ws.store.home, spec, vllm=STUB, log_path=log, owner="driver", role=servers.DRIVER)


def priced(ws: Workspace, model: Path, **estimate: Any) -> Plan:
    plan = price(ws, StepRequest("base", {"model": str(model)}, ws.store.new_run("test")))
    return plan.model_copy(update={"estimate": plan.estimate.model_copy(update=estimate)})


def small_machine(monkeypatch: pytest.MonkeyPatch, ram_free_bytes: int) -> None:
    """As if the other programs of this machine had left so much."""
    real = measure_machine(Path("/"))
    small = replace(real, ram_free_bytes=ram_free_bytes, swap_free_bytes=0, gpus=())
    for module in (planning_facts, eviction):
        monkeypatch.setattr(module, "measure_machine", lambda folder: small)


def test_the_driver_leaves_before_a_step_that_does_not_fit_beside_it(
    ws: Workspace,
    model: Path,
    driver: Server,
    events: list[tuple[str, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_machine(monkeypatch, GIB // 4)
    plan = priced(ws, model, peak_ram_bytes=GIB // 4 + HELD_BYTES // 3)
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    start(ws, step)
    assert not driver.process.alive() and servers.list_servers(ws.store.home) == []
    assert [event for event, _ in events][-2:] == ["driver.gave_way", "step.started"]
    Outcome(follow_step(ws, step)).done()


def test_the_driver_stays_beside_a_step_that_fits(ws: Workspace, model: Path, driver: Server) -> None:
    run_step(ws, StepRequest("base", {"model": str(model)}, ws.store.new_run("test")), say_yes).done()
    assert driver.process.alive()


@pytest.mark.parametrize("way", ["at once", "proposed before", "resumed", "by a written plan"])
def test_the_driver_gives_way_however_a_step_is_started(
    way: str, ws: Workspace, model: Path, driver: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_machine(monkeypatch, GIB // 4 - 1)  # a byte less than a copy is priced at
    beside: list[bool] = []

    def watch(event: str, **data: Any) -> None:
        if event == "step.started":
            beside.append(driver.process.alive())

    watched = replace(ws, emit=watch)
    fields = {"model": str(model)}
    if way == "at once":
        run_step(watched, StepRequest("base", fields, ws.store.new_run("test")), say_yes).done()
    elif way == "by a written plan":
        executor.run_pipeline(watched, PipelinePlan(name="p", steps=(StepSpec(stage="base", fields=fields),)), say_yes)
    else:
        plan = price(ws, StepRequest("base", fields, ws.store.new_run("test")))
        step = propose(ws, plan)
        assert decide(ws, step, plan, say_yes).yes
        assert driver.process.alive(), "what is only agreed to needs no room yet"
        if way == "proposed before":
            start(watched, step)
            Outcome(follow_step(watched, step)).done()
        else:
            ws.store.claim(step, needs_approval=True, pid=1, pid_started=1.0, boot_id="another")
            ws.store.fail(step, "the worker was killed")
            resume_step(watched, step, say_yes).done()
    assert beside == [False], "one worker was started, with the driver gone by then"


def test_what_the_driver_holds_counts_as_free(ws: Workspace, model: Path, driver: Server) -> None:
    machine = replace(PLAIN, ram_free_bytes=2 * GIB)
    freed = without(machine, servers.list_servers(ws.store.home)).ram_free_bytes - machine.ram_free_bytes
    assert HELD_BYTES < freed < HELD_BYTES * 1.5
    servers.stop(driver)
    assert without(machine, servers.list_servers(ws.store.home)) == machine


def test_what_the_driver_holds_of_a_gpu_counts_as_free(ws: Workspace, model: Path) -> None:
    serve(ws, model, device="cuda", gpu_bytes=20 * GIB)
    card = Gpu(0, "card", 80 * GIB, 50 * GIB, "9.0", "1")
    freed = without(replace(PLAIN, gpus=(card,)), servers.list_servers(ws.store.home))
    assert freed.vram_free_bytes == 70 * GIB


def test_a_step_that_fits_only_without_the_driver_is_priced_with_a_note(
    ws: Workspace, model: Path, driver: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_machine(monkeypatch, GIB // 4 - 1)
    plan = price(ws, StepRequest("base", {"model": str(model)}))
    assert plan.notes.count(driver_eviction.EVICTED) == 1 and plan.free_ram_bytes > GIB // 4
    assert plan.hash == plan.model_copy(update={"notes": ()}).hash, "an approval outlives the driver's lease"
    servers.stop(driver)
    held = quote(ws, StepRequest("base", {"model": str(model)}))
    assert any("other programs hold" in note for note in held.notes) and driver_eviction.EVICTED not in held.notes


def test_the_driver_is_kept_out_only_by_a_running_step_that_needs_the_room(ws: Workspace, model: Path) -> None:
    plan = priced(ws, model, peak_ram_bytes=15 * GIB, peak_vram_bytes=0)
    step = propose(ws, plan)
    assert blocked_by(PLAIN, ws.store, ram_bytes=7 * GIB, vram_bytes=0) is None, "it has not begun"
    me = ProcessId.of(os.getpid())
    ws.store.claim(step, needs_approval=False, pid=me.pid, pid_started=me.started, boot_id=me.boot_id)
    found = blocked_by(PLAIN, ws.store, ram_bytes=7 * GIB, vram_bytes=0)
    assert found and found.id == step
    assert blocked_by(PLAIN, ws.store, ram_bytes=4 * GIB, vram_bytes=0) is None, "both fit"
    ws.store.peak(step, 14 * GIB, None)  # by now it has what it needs, and it is not among what is free
    assert blocked_by(PLAIN, ws.store, ram_bytes=7 * GIB, vram_bytes=0) is None
    assert launcher.is_alive(ws.store, ws.store.step(step))
