"""What all tests share: an environment without torch for the light ones, a run that has its base, a finished arc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.demo_run import Demo, tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.store import Store
from tunesmith.tools.cpu.settings import ASLEEP
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What need not be alone shares the cores; what is heavy waits most of the time.

    A few named files run in this process, where a debugger reaches them.
    """
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    cores = os.cpu_count() or 1
    if whole and "not alone" in config.option.markexpr:
        os.environ.update(ASLEEP)  # several tests compute at once, on the same cores
    if whole and "not heavy" in config.option.markexpr:
        return cores  # nothing waits there
    return 2 * cores if whole and "not alone" in config.option.markexpr else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What has the machine alone is heavy too, so that whoever asks for the light tests gets none of it."""
    for item in items:
        if item.get_closest_marker("alone"):
            item.add_marker("heavy")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """What is started finds no torch, but in tests that have the machine alone; around the fixtures of a test too."""
    before = os.environ.get("PYTHONPATH")
    if not item.get_closest_marker("alone"):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(FIXTURES / "without_torch"), before)))
    try:
        return (yield)
    finally:
        os.environ.pop("PYTHONPATH", None)
        if before is not None:
            os.environ["PYTHONPATH"] = before


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
    """A finished fast demo in a home of its own; whatever it serves is stopped at the end."""
    home = tmp_path_factory.mktemp("home")
    try:
        yield Demo(home)
    finally:
        tunesmith(home, "serve", "stop")
