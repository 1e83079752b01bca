"""Work in a confined child: its items arrive, its refusals are the caller's, and no limit of it is passed."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures.tables import table
from tunesmith.memory import confined as child
from tunesmith.memory.confined import _INHERITED, Limits, OverLimits, confined, confined_answer
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


def environment(_: object) -> Iterator[object]:
    yield sorted(os.environ)


def limits(_: object) -> Iterator[object]:
    yield [resource.getrlimit(kind) for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)]


def large(length: int) -> Iterator[object]:
    yield "x" * length


def killed(number: int) -> Iterator[object]:
    yield "begun"
    os.kill(os.getpid(), number)


def sleeping(path: str) -> Iterator[object]:
    yield "begun" * 4000  # more than its file keeps back
    time.sleep(2)
    Path(path).touch()


def forking(path: str) -> Iterator[object]:
    told, telling = os.pipe()
    if (fork := os.fork()) == 0:
        os.write(telling, b"!")
        time.sleep(2)
        Path(path).touch()
        os._exit(0)
    os.read(told, 1)
    yield fork


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
@table(
    ("work", "argument", "told"),
    [
        (looping, None, r"took more than 0\.1 s of processor time, and was ended$"),
        (hoarding, None, r"took more than 256 MB of memory, and was ended$"),
        (killed, signal.SIGKILL, r"was killed from outside \(SIGKILL\)"),
        (killed, signal.SIGXCPU, "took more than .* of processor time, and was ended$"),
        (killed, signal.SIGSEGV, r"broke off \(SIGSEGV\)"),
        (dying, None, r"broke off \(exit code 0\)"),
    ],
)
def test_what_passes_its_limits_or_dies_is_an_error_never_a_short_answer(
    work: Any, argument: object, told: str
) -> None:
    with pytest.raises(OverLimits, match=f"the odd file {told}"):
        list(confined(work, argument, "the odd file", LITTLE._replace(cpu_s=0.1)))


def test_it_writes_no_file(tmp_path: Path) -> None:
    assert confined_answer(writing, str(tmp_path / "f"), "it") == "refused"
    assert not (tmp_path / "f").exists() or not (tmp_path / "f").read_text()


def test_no_key_of_the_environment_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_KEY", "LANG"):
        monkeypatch.setenv(name, "C")
    assert {"LANG", "PYTHONPATH"} <= {*confined_answer(environment, None, "it")} <= {*_INHERITED}


def test_no_dump_of_it_is_left() -> None:
    assert confined_answer(limits, None, "it") == [[0, 0], [0, 0]]


def test_an_item_that_is_too_large_for_the_parent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_LINE_BYTES", 1 << 20)
    with pytest.raises(OverLimits, match="the odd file comes to more than 1 MB at once"):
        confined_answer(large, 2 << 20, "the odd file")
    assert len(confined_answer(large, 1 << 19, "it")) == 1 << 19


def test_half_a_line_is_no_answer() -> None:
    for sent in (
        b'["item", 1]\n["item", 2]\n["item", 34]',
        b'["item", 1]\n["item", 2]\n',
        b'["item", 1]\n["item", 2]\n3',
    ):
        reading, writing = os.pipe()
        os.write(writing, sent)
        os.close(writing)
        with os.fdopen(reading, "rb") as answers:
            assert [*child._lines(answers, "it", 60.0)] == [b'["item", 1]', b'["item", 2]']


def test_a_wait_has_an_end_whatever_processor_time_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_WAIT_S", 0.0)
    with pytest.raises(OverLimits, match=r"the odd file took more than 0\.2 s in all"):
        list(confined(sleeping, str(tmp_path / "f"), "the odd file", LITTLE._replace(cpu_s=0.01)))
    assert not (tmp_path / "f").exists()


def test_a_child_is_killed_as_soon_as_nobody_listens(tmp_path: Path) -> None:
    items = confined(sleeping, str(tmp_path / "lived"), "it")
    assert next(items).startswith("begun")
    items.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "lived").exists()


def test_what_it_started_does_not_outlive_it(tmp_path: Path) -> None:
    fork = confined_answer(forking, str(tmp_path / "lived"), "it")
    while psutil.pid_exists(fork) and psutil.Process(fork).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not (tmp_path / "lived").exists()


def test_a_caller_that_stops_listening_ends_the_child() -> None:
    items = confined(endless, None, "it", Limits(cpu_s=60))
    child = next(items)
    items.close()  # type: ignore[attr-defined]
    while psutil.pid_exists(child):
        time.sleep(0.01)
