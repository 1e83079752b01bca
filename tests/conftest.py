"""What all tests share: an environment without torch for the light ones, a run that has its base, a finished arc."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures import FIXTURES, warm
from tests.fixtures.demo_run import Demo, short_chain, tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory import confined
from tunesmith.memory.store import Store
from tunesmith.tools.cpu.settings import ASLEEP
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace

# Where bytecode is switched off, each process would rewrite the asserts of all 400 files anew, 15 s of a core.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
gc.disable()  # until all tests are collected

MOST_LABS = 4
"""Processes that hold torch at once: one takes two GiB."""
CHAINS = "(alone or e2e)"
"""How `make test` chooses what is done with the real model."""
PARTS = {"heavy and not lab": {"heavy"}, "lab": {"lab"}, CHAINS: {"alone", "e2e"}}
"""How the later parts of `make test` begin to choose, and the marks of which a file of theirs has one."""
CHAIN_BYTES = 6 << 30
"""Of RAM for one: a step that trains, or a server and who asks it."""


def pytest_configure(config: pytest.Config) -> None:
    """Programs that stand in for others are started by this Python, not by whatever `python3` is elsewhere.

    The workers of xdist fork what they start off the same two processes.
    """
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    warm.SHARED.update(getattr(config, "workerinput", {}).get("warm", {}))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_flushed() -> Iterator[None]:
    """A tenth of the light tests' time: a kill loses no page of the kernel's, and who tests what a power cut loses sets
    a flush of its own (`trust/test_power_cut.py`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """The two processes belong to who starts the workers, and so outlive them all."""
    gc.enable()  # nothing is collected here
    if not warm.SHARED:
        warm.SHARED.update({shielded: warm.start_parent(shielded) for shielded in (True, False)})
    node.workerinput["warm"] = warm.SHARED


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What need not be alone shares the cores; what is heavy and no lab waits most of the time.

    Of the real model two chains go beside each other, where both have room: a start, an import and a save leave a core
    idle. A few named files run in this process, where a debugger reaches them.
    """
    chosen = config.option.markexpr
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    cores = os.cpu_count() or 1
    if chosen.startswith("lab"):
        workers = min(cores, MOST_LABS)
        os.environ.update(ASLEEP, OMP_NUM_THREADS=str(max(1, cores // workers)))
        return workers
    chains = chosen.startswith(CHAINS) and psutil.virtual_memory().available > 2 * CHAIN_BYTES
    if "not alone" not in chosen and "not heavy" not in chosen and not chains:
        return 0
    os.environ.update(ASLEEP)  # several tests compute at once, on the same cores
    if chains:
        return 2
    return cores if "not heavy" in chosen else 2 * cores


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The later parts of `make test` leave out files without a test of theirs: each worker would import them all, eight
    seconds of a core."""
    chosen = config.option.markexpr
    part = next((names for begins, names in PARTS.items() if chosen.startswith(begins)), None)
    return True if part and collection_path.name.startswith("test_") and not part & parts_of(collection_path) else None


@cache
def parts_of(file: Path) -> set[str]:
    """The parts of `make test`, beside the light one, of which a file names the mark."""
    text = file.read_text(encoding="utf-8")
    return {name for names in PARTS.values() for name in names if f"mark.{name}" in text}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What loads torch is heavy too, so that whoever asks for the light tests gets none of it.

    Tests of the lab stay together by file, and there by the model that they share. Raises UsageError for a mark that
    the file of its test does not name: the test would be left out of its part.
    """
    for item in items:
        if hidden := {*chain(*PARTS.values())} & {mark.name for mark in item.iter_markers()} - parts_of(item.path):
            raise pytest.UsageError(f"{item.nodeid}: {item.path.name} has to say `pytest.mark.{hidden.pop()}` itself")
        if loads_torch(item):
            item.add_marker("heavy")
        if item.get_closest_marker("lab"):
            call = getattr(item, "callspec", None)
            shared = call.params.get("lab", "") if call else ""
            item.add_marker(pytest.mark.xdist_group(f"{item.path.name} {shared}"))


def pytest_collection_finish() -> None:
    """Thousands of tests and the modules they import are no garbage: no collection looks through them again. What tests
    make is looked through less often than in a program that has to be small, a twentieth of their time."""
    gc.enable()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(trylast=True, specname="pytest_collection_modifyitems")
def pytest_put_groups_into_ids(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have tests of one `xdist_group` go to one worker: xdist 3.8 names the group in an attribute that pytest 9.2 does
    not read any more, so that each worker made a module's costly fixture again."""
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        groups = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group")})
        if groups and hasattr(item, "_id") and not item.nodeid.endswith("@" + "_".join(groups)):
            item._id = type(item._id).parse(f"{item.nodeid}@{'_'.join(groups)}")


def loads_torch(item: pytest.Item) -> bool:
    """Whether what a test starts may load torch."""
    return any(item.get_closest_marker(name) for name in ("lab", "alone"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """What is started finds no torch, but in tests that load it themselves; around the fixtures of a test too.

    A worker that finds no torch is forked off a process that has done its imports, as is a confined child.
    """
    before = os.environ.get("PYTHONPATH")
    launcher.subprocess = warm.Workers()  # type: ignore[assignment]
    confined.subprocess = warm.ConfinedChildren()  # type: ignore[assignment]
    if not loads_torch(item):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(FIXTURES / "without_torch"), before)))
    try:
        return (yield)
    finally:
        os.environ.pop("PYTHONPATH", None)
        if before is not None:
            os.environ["PYTHONPATH"] = before


@pytest.fixture
def cold_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started as the launcher starts them, with all their imports."""
    monkeypatch.setattr(launcher, "subprocess", subprocess)


@pytest.fixture
def cold_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confined children are started as `memory.confined` starts them."""
    monkeypatch.setattr(confined, "subprocess", subprocess)


@pytest.fixture(scope="session")
def based(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to take copies of: `home`, whose run r1 has a base, and `model`, which it was copied from."""
    folder = tmp_path_factory.mktemp("based")
    ws = Workspace(Store(folder / "home"), None, lambda event, **data: None)
    request = StepRequest("base", {"model": str(make_tiny_model(folder / "model"))}, ws.store.new_run("test"))
    run_step(ws, request, lambda plan, step: Decision(True, "test")).done()
    ws.store.close()
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The short demo's chain, finished, in a home of its own; whatever it serves is stopped at the end."""
    home = tmp_path_factory.mktemp("home")
    try:
        yield Demo(home, "run", str(short_chain(tmp_path_factory.mktemp("plan"))))
    finally:
        tunesmith(home, "serve", "stop")
