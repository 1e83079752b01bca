"""Work in a confined child: its items arrive, its refusals are the caller's, and no limit of it is passed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures.tables import table
from tunesmith.memory.confined import Limits, OverLimits, confined, confined_answer
from tunesmith.memory.errors import BadInput

pytestmark = pytest.mark.usefixtures("cold_children")

ROOT = Path(__file__).resolve().parents[2]
LITTLE = Limits(cpu_s=0.5, memory_bytes=256 << 20)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds this module."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def counting(number: int) -> Iterator[object]:
    print("noise that is no answer")
    yield from range(number)


def refusing(word: str) -> Iterator[object]:
    yield "one"
    raise BadInput(f"no {word} here")


def failing(_: object) -> Iterator[object]:
    yield 1 // 0


def looping(_: object) -> Iterator[object]:
    yield "begun"
    while True:
        pass


def hoarding(_: object) -> Iterator[object]:
    yield "begun"
    kept = bytearray(1 << 30)
    yield len(kept)


def dying(_: object) -> Iterator[object]:
    yield "begun"
    os._exit(0)


def writing(path: str) -> Iterator[object]:
    try:
        Path(path).write_text("left behind")
    except OSError:
        yield "refused"


def endless(_: object) -> Iterator[object]:
    while True:
        yield os.getpid()


def test_the_items_come_in_order_and_nothing_else() -> None:
    assert list(confined(counting, 1000, "it")) == list(range(1000))
    assert confined_answer(counting, 1, "it") == 0


def test_a_refusal_is_told_in_its_own_words() -> None:
    items = confined(refusing, "crumbs", "it")
    assert next(items) == "one"
    with pytest.raises(BadInput, match="no crumbs here"):
        next(items)


def test_what_a_library_raises_is_one_sentence() -> None:
    with pytest.raises(BadInput, match=r"the odd file cannot be read \(ZeroDivisionError"):
        confined_answer(failing, None, "the odd file")


@pytest.mark.heavy
@table("work", [looping, hoarding, dying])
def test_what_passes_its_limits_or_dies_is_an_error_never_a_short_answer(work: object) -> None:
    with pytest.raises(OverLimits, match="the odd file"):
        list(confined(work, None, "the odd file", LITTLE))  # type: ignore[arg-type]


def test_it_writes_no_file(tmp_path: Path) -> None:
    assert confined_answer(writing, str(tmp_path / "f"), "it") == "refused"
    assert not (tmp_path / "f").exists() or not (tmp_path / "f").read_text()


def test_a_caller_that_stops_listening_ends_the_child() -> None:
    items = confined(endless, None, "it", Limits(cpu_s=60))
    child = next(items)
    items.close()  # type: ignore[attr-defined]
    while psutil.pid_exists(child):
        time.sleep(0.01)
