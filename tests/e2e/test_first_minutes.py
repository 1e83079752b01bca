"""A newcomer's first minutes in a real terminal, at the size of a usual window and at the smallest: what is typed
first is understood, nothing breaks in mid-word, and nothing is started unasked."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tunesmith.memory.store import Store

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="NO TERMINAL WAS TRIED: tmux is not installed"),
]
ROOT = Path(__file__).parents[2]
SIZES = ((120, 40), (80, 24))
_HANG_S = 120.0


class Terminal:
    """tunesmith in tmux: what a person types, and what the screen and its history show."""

    def __init__(self, home: Path, columns: int, lines: int) -> None:
        self.columns = columns
        self._tmux = ("tmux", "-L", f"first-{os.getpid()}-{columns}")
        env = {name: value for name, value in os.environ.items() if name not in ("TMUX", "NO_COLOR")}
        env |= {"TUNESMITH_HOME": str(home), "TERM": "screen-256color"}
        program = str(ROOT / ".venv" / "bin" / "tunesmith")
        size = ("-x", str(columns), "-y", str(lines))
        home.parent.mkdir(parents=True, exist_ok=True)
        self._run("-f", "/dev/null", "new-session", "-d", *size, program, env=env, cwd=home.parent)

    def _run(self, *words: str, **more: object) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True, **more)  # type: ignore[call-overload]
        return str(done.stdout)

    @property
    def text(self) -> str:
        """All that was shown, lines as they were broken on the screen."""
        return self._run("capture-pane", "-p", "-S", "-2000")

    def type(self, line: str, expected: str) -> str:
        """Type a line and wait for words in what follows it; that."""
        before = len(self.text.rstrip().splitlines())
        self._run("send-keys", "-l", line)
        self._run("send-keys", "Enter")
        begun = time.monotonic()
        while time.monotonic() - begun < _HANG_S:
            after = "\n".join(self.text.splitlines()[before:])
            if expected in after:
                return after
            time.sleep(0.1)
        raise AssertionError(f"{expected!r} did not follow {line!r}: {self.text[-3000:]}")

    def wait(self, expected: str) -> None:
        begun = time.monotonic()
        while expected not in self.text:
            assert time.monotonic() - begun < _HANG_S, self.text
            time.sleep(0.1)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def fresh(size: tuple[int, int], tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "home", *size)
    terminal.wait("❯")
    yield terminal
    terminal.close()


@pytest.fixture
def finished(size: tuple[int, int], tmp_path: Path) -> Iterator[Terminal]:
    home = tmp_path / "home"
    stored_runs.finished_run(home)
    terminal = Terminal(home, *size)
    terminal.wait("❯")
    yield terminal
    terminal.close()


def test_a_fresh_home_says_what_to_type_and_every_first_word_is_understood(fresh: Terminal, tmp_path: Path) -> None:
    fresh.wait("no run yet")
    assert "tunesmith 0." in fresh.text and "/demo" in fresh.text
    fresh.type("help", "/compare")
    fresh.type("jobs", "no step")
    price = fresh.type("/base model=bundled", "Start? [yes / no / always")
    for line in ("time ", "memory ", "disk "):
        assert line in price
    fresh.type("hm", "neither a yes nor a no")
    fresh.type("why", "plan")
    fresh.type("no thanks", "declined")
    assert not list((tmp_path / "home" / "models").glob("*")), "nothing was fetched"


def test_a_finished_run_is_looked_at_talked_about_and_left_as_it_was(finished: Terminal, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    before = [(step.id, step.status) for step in store.steps("r1")]
    finished.wait("r1 ")
    verdict = finished.type("compare", "base → adapter")
    assert verdict.index("r1 ") < verdict.index("base → adapter"), "the verdict comes first"
    finished.type("where is my model", "r1")
    finished.type("runs", "done")
    finished.type("explain", "overfitting")
    assert [(step.id, step.status) for step in store.steps("r1")] == before
