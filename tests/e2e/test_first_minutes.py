"""A newcomer's first minutes in a real terminal, at the size of a usual window and at the smallest: what is typed
first is understood, nothing breaks in mid-word, and nothing is started unasked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.tmux import Tmux
from tunesmith.memory.store import Store

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="NO TERMINAL WAS TRIED: tmux is not installed"),
]
SIZES = ((120, 40), (80, 24))


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def fresh(size: tuple[int, int], tmp_path: Path) -> Iterator[Tmux]:
    terminal = Tmux(tmp_path / "home", *size)
    terminal.wait("❯")
    yield terminal
    terminal.close()


@pytest.fixture
def finished(size: tuple[int, int], tmp_path: Path) -> Iterator[Tmux]:
    home = tmp_path / "home"
    stored_runs.finished_run(home)
    terminal = Tmux(home, *size)
    terminal.wait("❯")
    yield terminal
    terminal.close()


def test_a_fresh_home_says_what_to_type_and_every_first_word_is_understood(fresh: Tmux, tmp_path: Path) -> None:
    fresh.wait("no run yet")
    assert "tunesmith 0." in fresh.text and "/demo" in fresh.text
    fresh.type("help", "/compare")
    fresh.type("jobs", "no step")
    price = fresh.type("/base model=bundled", "Start? [yes / no / always")
    for line in ("time ", "memory ", "disk "):
        assert line in price
    again = "Start? [yes"  # what is typed before the question stands there answers nothing
    assert "neither a yes nor a no" in fresh.type("hm", again) and "plan" in fresh.type("why", again)
    fresh.type("no thanks", "declined")
    assert not list((tmp_path / "home" / "models").glob("*")), "nothing was fetched"


def test_a_finished_run_is_looked_at_talked_about_and_left_as_it_was(finished: Tmux, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    before = [(step.id, step.status) for step in store.steps("r1")]
    finished.wait("r1 ")
    verdict = finished.type("compare", "base → adapter")
    assert verdict.index("r1 ") < verdict.index("base → adapter"), "the verdict comes first"
    finished.type("where is my model", "r1")
    finished.type("runs", "done")
    finished.type("explain", "over-trained")
    assert [(step.id, step.status) for step in store.steps("r1")] == before
