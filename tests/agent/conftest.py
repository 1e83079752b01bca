"""A home of its own for every test, with tunesmith in it as a real process or on a real terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures import warm
from tests.fixtures.terminal import Grace, Terminal, Tunesmith
from tests.fixtures.tiny_model import make_tiny_model


@pytest.fixture
def tunesmith(tmp_path: Path) -> Tunesmith:
    """Commands in a fresh home."""
    return Tunesmith(tmp_path / "home")


@pytest.fixture
def terminal(tunesmith: Tunesmith) -> Iterator[Callable[..., Terminal]]:
    """Opens tunesmith on a terminal in the same home."""
    opened: list[Terminal] = []

    def open_(*args: str, cold: bool = False) -> Terminal:
        opened.append(Terminal(args, tunesmith.env, cold=cold))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that a base can be copied from: right in form, of a few bytes."""
    return make_tiny_model(tmp_path / "tiny-model")


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For as long as this file is there, a worker is at work: it waits behind the first word of it."""
    monkeypatch.setenv(warm.AT_WORK, str(file := tmp_path / "at-work"))
    file.touch()
    return file


@pytest.fixture
def grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grace:
    """The grace of questions, which lasts."""
    monkeypatch.setenv(warm.GRACE, str(file := tmp_path / "grace"))
    file.touch()
    return Grace(file)
