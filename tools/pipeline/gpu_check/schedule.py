"""One task after the other until the time is over; whatever one comes to, each of its items is told.

Pure but for what it is given: a clock, and what carries a task out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from tunesmith.tools.pipeline.gpu_check.findings import OUT_OF_TIME, Finding, failed, skipped
from tunesmith.tools.pipeline.gpu_check.tasks import MOST_TIMES, Task

LEAST_S = 5.0
"""Less time than this is not begun with."""


class Ended(NamedTuple):
    """How a task's process ended."""

    found: Sequence[Finding]
    """What it told before."""
    why: str = ""
    """Why it told no more; empty where it came to its end."""
    killed: bool = False
    """Whether its time was over."""


class Carry(Protocol):
    """Carries a task out, for so many seconds at most."""

    def __call__(self, task: Task, most_s: float, /) -> Ended: ...


def carry_out(
    tasks: Sequence[Task],
    carry: Carry,
    *,
    deadline: float,
    clock: Callable[[], float],
    on_task: Callable[[int, Task], None] = lambda number, task: None,
) -> Iterator[Finding]:
    """The findings of all tasks, in their order and each under its name, never later than `deadline` on `clock`.

    A task that fails, dies, or takes `MOST_TIMES` its usual time fails the items that it has not told, and the next one
    begins. Once the time is over, what is left is skipped as out of time. Raises only what `carry` raises that is no
    Exception: a stop.
    """
    for number, task in enumerate(tasks):
        left = deadline - clock()
        if left < LEAST_S:
            yield from (skipped(name, OUT_OF_TIME) for name in task.gives)
            continue
        on_task(number, task)
        most = min(left, MOST_TIMES * task.seconds)
        try:
            ended = carry(task, most)
        except Exception as error:
            ended = Ended((), f"{type(error).__name__}: {error}")
        yield from _each(task, ended, out_of_time=ended.killed and most == left, most_s=most)


def _each(task: Task, ended: Ended, *, out_of_time: bool, most_s: float) -> Iterator[Finding]:
    """One finding for each name of a task."""
    told = {finding.name: finding for finding in ended.found}
    why = ended.why or "it was not told"
    if ended.killed:
        why = f"not done after {most_s:.0f} s, {MOST_TIMES:g} times what it usually takes"
    for name in task.gives:
        yield told.get(name) or (skipped(name, OUT_OF_TIME) if out_of_time else failed(name, why))
