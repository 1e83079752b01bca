"""The check of a card ends in time, whatever its items come to, and tells each of them."""

from __future__ import annotations

import pytest

from tunesmith.tools.pipeline.gpu_check.findings import OUT_OF_TIME, Finding, at_most, compared, stated
from tunesmith.tools.pipeline.gpu_check.schedule import LEAST_S, Ended, carry_out
from tunesmith.tools.pipeline.gpu_check.tasks import MOST_TIMES, TASKS, Task, chosen


class Clock:
    """Moves only when something is carried out."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def tasks(*seconds: float) -> list[Task]:
    return [Task(f"task {n}", "m:f", (f"{n} a", f"{n} b"), each) for n, each in enumerate(seconds)]


def found(task: Task) -> list[Finding]:
    return [stated(name, expected="x", measured="x", holds=True) for name in task.gives]


def test_the_deadline_is_kept_and_what_is_left_is_out_of_time() -> None:
    clock, given = Clock(), list[float]()

    def carry(task: Task, most_s: float) -> Ended:
        given.append(most_s)
        needed = 40.0
        clock.now += min(needed, most_s)
        return Ended(found(task)) if needed <= most_s else Ended(found(task)[:1], killed=True)

    told = list(carry_out(tasks(30, 30, 30, 30), carry, deadline=clock.now + 100, clock=clock))
    assert clock.now == 200.0 and given == [90.0, 60.0, 20.0]
    states = [(item.name, item.state, item.why) for item in told]
    assert states[:5] == [(name, "ok", "") for name in ("0 a", "0 b", "1 a", "1 b", "2 a")]
    assert states[5:] == [(name, "skipped", OUT_OF_TIME) for name in ("2 b", "3 a", "3 b")]


def test_too_little_time_is_not_begun_with() -> None:
    clock = Clock()
    told = list(carry_out(tasks(10), _never, deadline=clock.now + LEAST_S - 0.1, clock=clock))
    assert [item.why for item in told] == [OUT_OF_TIME] * 2


def _never(task: Task, most_s: float) -> Ended:
    raise AssertionError("nothing is begun")


def test_a_task_that_takes_much_too_long_fails_and_the_next_one_begins() -> None:
    clock = Clock()

    def carry(task: Task, most_s: float) -> Ended:
        return Ended(found(task)[:1], killed=True) if task.doing == "task 0" else Ended(found(task))

    told = list(carry_out(tasks(10, 10), carry, deadline=clock.now + 600, clock=clock))
    assert [item.state for item in told] == ["ok", "failed", "ok", "ok"]
    assert told[1].why == f"not done after 30 s, {MOST_TIMES:g} times what it usually takes"


def test_an_error_of_one_task_is_its_own() -> None:
    def carry(task: Task, most_s: float) -> Ended:
        if task.doing == "task 0":
            raise OSError("no space left on device")
        return Ended(found(task)[:1], "signal 9") if task.doing == "task 1" else Ended(found(task))

    seen: list[int] = []
    told = list(
        carry_out(tasks(9, 9, 9), carry, deadline=999, clock=Clock(), on_task=lambda number, task: seen.append(number))
    )
    assert [(item.state, item.why) for item in told] == [
        ("failed", "OSError: no space left on device"), ("failed", "OSError: no space left on device"),
        ("ok", ""), ("failed", "signal 9"), ("ok", ""), ("ok", ""),
    ]  # fmt: skip
    assert seen == [0, 1, 2]


def test_a_stop_is_no_failed_item() -> None:
    class Stopped(BaseException):
        pass

    def carry(task: Task, most_s: float) -> Ended:
        raise Stopped

    with pytest.raises(Stopped):
        list(carry_out(tasks(9), carry, deadline=999, clock=Clock()))


def test_a_finding_says_how_far_off_it_is_and_what_was_allowed() -> None:
    good = compared("n", expected=200.0, measured=210.0, within=(0.85, 1.15), unit="bytes", why="more")
    assert good.state == "ok" and good.ratio == 1.05 and good.why == "more"
    bad = compared("n", expected=200.0, measured=240.0, within=(0.85, 1.15), unit="bytes")
    assert bad.state == "failed" and bad.why == "measured ÷ expected is 1.20, and 0.85 to 1.15 was predicted"
    assert compared("n", expected=200.0, measured=100.0, within=(0.85, 1.15), unit="bytes").state == "failed"
    assert at_most("n", most=1.0, measured=0.0, unit="s").state == "ok"
    assert at_most("n", most=1.0, measured=1.01, unit="s").state == "failed"
    assert compared("n", expected=0.0, measured=float("nan"), within=(0.0, 9.0), unit="s").state == "failed"


SCHEMA = {"name", "state", "expected", "measured", "ratio", "seconds", "why", "unit", "within"}


def test_the_shape_of_an_item_is_the_documented_one() -> None:
    item = compared("n", expected=2.0, measured=2.0, within=(0.5, 2.0), unit="seconds")
    assert set(item.model_dump(mode="json")) == SCHEMA
    assert Finding.model_validate_json(item.model_dump_json()) == item


def test_items_have_one_name_each_and_the_usual_tasks_fit_into_their_minutes() -> None:
    names = [name for task in TASKS for name in task.gives]
    assert len(names) == len(set(names)) >= 40
    for minutes in (10, 30):
        usual = sum(task.seconds for task in chosen(minutes))
        assert usual <= 60 * minutes, f"{usual} s are planned for {minutes} minutes"
    assert {task.doing for task in chosen(10)} < {task.doing for task in chosen(30)}
