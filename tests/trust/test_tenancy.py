"""Two homes on one GPU: the steps of one wait for those of the other; without a GPU there is no such lock."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.waiting import HANG_S, wait_for
from tunesmith.tools.core.machine import Gpu
from tunesmith.tools.pipeline import tenancy as module
from tunesmith.tools.pipeline.tenancy import tenancy

GPU = Gpu(
    name="RTX", uuid="GPU-1", index=0, compute_capability="8.9", total_bytes=24 << 30, free_bytes=24 << 30, driver="570"
)


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(module, "_folder_of_all_homes", lambda: folder)
    return folder


def held(home: Path, gpus: tuple[Gpu, ...], begun: threading.Event, leave: threading.Event, told: list[str]) -> None:
    home.mkdir(exist_ok=True)
    with tenancy(home, "s1", gpus, waiting=told.append, log=told.append):
        begun.set()
        leave.wait(HANG_S)


def two(
    tmp_path: Path, first: tuple[Gpu, ...], second: tuple[Gpu, ...], homes: tuple[str, str]
) -> tuple[bool, list[str]]:
    """Whether the second tenant is in while the first still is, and what it was told while it waited."""
    events = [threading.Event() for _ in range(4)]
    told: list[str] = []
    threads = [
        threading.Thread(target=held, args=(tmp_path / homes[0], first, events[0], events[1], [])),
        threading.Thread(target=held, args=(tmp_path / homes[1], second, events[2], events[3], told)),
    ]
    threads[0].start()
    assert events[0].wait(HANG_S)
    threads[1].start()
    wait_for(lambda: told or events[2].is_set())
    both = events[2].is_set()
    events[1].set()
    assert events[2].wait(HANG_S)
    events[3].set()
    for thread in threads:
        thread.join(HANG_S)
    return both, told


@pytest.mark.heavy
def test_two_homes_on_one_gpu_take_turns_and_the_one_that_waits_is_told_for_whom(tmp_path: Path) -> None:
    both, told = two(tmp_path, (GPU,), (GPU,), ("a", "b"))
    assert not both and told and told[0] == f"waiting for RTX to be left by s1 of {tmp_path / 'a'}"


def test_another_gpu_or_none_is_waited_for_by_nobody(tmp_path: Path) -> None:
    other = replace(GPU, uuid="GPU-2", index=1)
    assert two(tmp_path, (GPU,), (other,), ("a", "b"))[0]
    assert two(tmp_path, (), (), ("c", "d"))[0]


@pytest.mark.heavy
def test_steps_of_one_home_take_turns_without_a_gpu_too(tmp_path: Path) -> None:
    both, told = two(tmp_path, (), (), ("a", "a"))
    assert not both and told[0] == "waiting for another step to leave the machine"


def test_a_killed_tenant_leaves_the_gpu_to_the_next(tmp_path: Path, shared: Path) -> None:
    script = (
        "import time, sys\nfrom pathlib import Path\nfrom tunesmith.memory.locks import take\n"
        "fd = take(Path(sys.argv[1]), holder='s9 of /gone')\nprint('in', flush=True)\ntime.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(shared / "GPU-1.lock")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "in\n"
    child.kill()
    child.wait()
    waited: list[str] = []
    (tmp_path / "a").mkdir()
    with tenancy(tmp_path / "a", "s1", (GPU,), waiting=waited.append, log=waited.append):
        assert not waited


def test_the_folder_of_all_homes_is_ones_own_and_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    folder = module._folder_of_all_homes()
    assert folder is not None and folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o077
