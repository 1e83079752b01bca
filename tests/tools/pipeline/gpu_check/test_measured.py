"""The check of a card ends in time, whatever its items come to, and names each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import psutil
import pytest

from tests.fixtures import planted_checks
from tests.fixtures.tables import table
from tests.fixtures.waiting import wait_for
from tests.gpu import runner
from tests.gpu.runner import LEAST_S, MOST_TIMES, ONE_CARD, OUT_OF_TIME, Ended
from tests.gpu.table import TASKS, Check, Sizes, Task
from tests.gpu.trainings import without_room_at_16
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.models.fitting import Training
from tunesmith.tools.pipeline.gpu_check.findings import Finding, compared, stated

Carry = Callable[[Task, float], Ended]
Carried = Callable[[Sequence[Task], float, Carry], list[Finding]]


class Clock:
    """Moves only when something is carried out."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def carried(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Carried:
    """The findings of tasks within so many seconds, carried out by what is given."""

    def findings(tasks: Sequence[Task], seconds: float, carry: Carry) -> list[Finding]:
        monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=clock))
        monkeypatch.setattr(runner, "in_a_process", lambda folder, task, most_s: carry(task, most_s))
        check = Check(home=tmp_path, dir=tmp_path, step="s1")
        return list(runner.measured(check, tasks, deadline=clock.now + seconds))

    return findings


def tasks(*seconds: float) -> list[Task]:
    return [Task(f"task {n}", "m:f", (f"{n} a", f"{n} b"), each) for n, each in enumerate(seconds)]


def found(task: Task) -> list[Finding]:
    return [stated(name, expected="x", measured="x", holds=True) for name in task.gives]


def test_the_deadline_is_kept_and_what_is_left_is_out_of_time(clock: Clock, carried: Carried) -> None:
    given: list[float] = []

    def carry(task: Task, most_s: float) -> Ended:
        given.append(most_s)
        needed = 40.0
        clock.now += min(needed, most_s)
        return Ended(found(task)) if needed <= most_s else Ended(found(task)[:1], killed=True)

    states = [(item.name, item.state, item.why) for item in carried(tasks(30, 30, 30, 30), 100, carry)]
    assert clock.now == 200.0 and given == [90.0, 60.0, 20.0]
    assert states[:5] == [(name, "ok", "") for name in ("0 a", "0 b", "1 a", "1 b", "2 a")]
    assert states[5:] == [(name, "skipped", OUT_OF_TIME) for name in ("2 b", "3 a", "3 b")]


def test_too_little_time_is_not_begun_with(carried: Carried) -> None:
    def never(task: Task, most_s: float) -> Ended:
        raise AssertionError("nothing is begun")

    assert [item.why for item in carried(tasks(10), LEAST_S - 0.1, never)] == [OUT_OF_TIME] * 2


def test_a_task_that_takes_much_too_long_fails_and_the_next_one_begins(carried: Carried) -> None:
    def carry(task: Task, most_s: float) -> Ended:
        return Ended(found(task)[:1], killed=True) if task.doing == "task 0" else Ended(found(task))

    items = carried(tasks(10, 10), 600, carry)
    assert [item.state for item in items] == ["ok", "failed", "ok", "ok"]
    assert items[1].why == f"not done after 30 s, {MOST_TIMES:g} times what it usually takes"


def test_what_takes_two_cards_is_left_out_where_one_is_here(carried: Carried) -> None:
    def never(task: Task, most_s: float) -> Ended:
        raise AssertionError("nothing is begun")

    [task] = tasks(10)
    items = carried([task._replace(several=True)], 100, never)
    assert [(item.state, item.why) for item in items] == [("skipped", ONE_CARD)] * 2


def test_an_error_of_one_task_is_its_own(carried: Carried) -> None:
    def carry(task: Task, most_s: float) -> Ended:
        if task.doing == "task 0":
            raise OSError("no space left on device")
        return Ended(found(task)[:1], "signal 9") if task.doing == "task 1" else Ended(found(task))

    assert [(item.state, item.why) for item in carried(tasks(9, 9, 9), 900, carry)] == [
        ("failed", "OSError: no space left on device"), ("failed", "OSError: no space left on device"),
        ("ok", ""), ("failed", "signal 9"), ("ok", ""), ("ok", ""),
    ]  # fmt: skip


def test_a_stop_is_no_failed_item(carried: Carried) -> None:
    class Stopped(BaseException):
        pass

    def carry(task: Task, most_s: float) -> Ended:
        raise Stopped

    with pytest.raises(Stopped):
        carried(tasks(9), 900, carry)


def test_a_finding_says_how_far_off_it_is_and_what_was_allowed() -> None:
    good = compared("n", expected=200.0, measured=210.0, within=(0.85, 1.15), unit="bytes", why="more")
    assert good.state == "ok" and good.ratio == 1.05 and good.why == "more"
    bad = compared("n", expected=200.0, measured=240.0, within=(0.85, 1.15), unit="bytes")
    assert bad.state == "failed" and bad.why == "measured ÷ expected is 1.20, and 0.85 to 1.15 was predicted"
    assert compared("n", expected=200.0, measured=100.0, within=(0.85, 1.15), unit="bytes").state == "failed"
    assert compared("n", expected=0.0, measured=float("nan"), within=(0.0, 9.0), unit="s").state == "failed"
    assert Finding.model_validate_json(bad.model_dump_json()) == bad


def test_items_have_one_name_each_and_the_usual_tasks_fit_into_their_minutes() -> None:
    names = [name for task in TASKS for name in task.gives]
    assert len(names) == len(set(names)) >= 40
    assert sum(task.seconds for task in TASKS) <= 30 * 60


def test_the_usual_sizes_are_for_a_card_of_8_gb() -> None:
    sizes = Sizes()
    ways = [
        (sizes.dense, Training(sizes.rows, sizes.tokens, 16)),
        (sizes.mixture, Training(sizes.rows, sizes.tokens, 16)),
        (sizes.large, Training(sizes.large_rows, sizes.large_tokens, 16)),
    ]
    for config, way in ways:
        assert 0.5 * GIB < way.peak_bytes(config) < 7 * GIB, "worth measuring, and small enough"


@table(("device",), [("cuda",), ("cpu",)])
def test_where_16_bits_lack_a_kilobyte_a_plan_chooses_4(tmp_path: Path, device: Literal["cuda", "cpu"]) -> None:
    check = Check(home=tmp_path, dir=tmp_path, step="s1", device=device)
    decided = without_room_at_16(check)
    [bits] = [one for one in decided.decisions if one.setting == "load_in_4bit"]
    assert decided.way.load_in_4bit and bits.needed_bytes <= bits.free_bytes and "; at 4 bits" in bits.why
    assert decided.way.on_cpu == (device == "cpu") and not decided.refusals and not decided.fitting


@pytest.mark.heavy
def test_a_task_that_raises_dies_hangs_or_sees_no_card_ends_alone(tmp_path: Path) -> None:
    check = Check(home=tmp_path / "home", dir=tmp_path, step="s1", several="GPU-0f00,GPU-1f00")
    items = runner.measured(check, planted_checks.TASKS, deadline=time.monotonic() + 600)
    found = {item.name: (item.state, item.why) for item in items}
    assert list(found) == [name for task in planted_checks.TASKS for name in task.gives]
    assert found["bytes"] == ("ok", "") and found["before"][0] == "ok" and found["card"][0] == "ok"
    assert found["cards"] == ("ok", "")
    assert found["after"] == ("failed", "RuntimeError: CUDA error: an illegal memory access was encountered")
    assert found["never"] == ("failed", "its process ended with signal 9 (Killed)")
    assert found["served"][0] == "skipped" and "no vLLM was found" in found["served"][1]
    assert found["late"][0] == "failed" and "not done after 4 s" in found["late"][1]
    started = int((tmp_path / "started.pid").read_text())
    wait_for(lambda: not psutil.pid_exists(started), told="what a killed task had started holds the card")
