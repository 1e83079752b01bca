"""What a driver can really do, tried out: the tasks of `exam` at once, through the agent that the user talks with.

A task that ends by a lost connection, an eviction, a Ctrl-C or the clock says nothing of a driver: then there is no
verdict, and nothing is kept. Every request to another machine is in the contact log, as a turn's are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic_ai.exceptions import ModelHTTPError, UnexpectedModelBehavior, UsageLimitExceeded

from tunesmith.agent.driver.abilities import Record
from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.endpoint import model_of
from tunesmith.agent.driver.history import Window
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.voice import Reply
from tunesmith.agent.exam import EXAM, TASKS, Attempt, Task, exam_store, level_of
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.json_values import as_object
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline.workspace import Decision, Workspace
from tunesmith.tools.serving.endpoint import Endpoint

_DEADLINE_S = 300.0
"""For all tasks: a driver on a CPU reads its tools for a minute."""
_POLL_S = 0.2
"""Whoever leaves waits no longer, and a step that begins has the machine to itself."""
_LETS_GO_S = 2.0
"""A turn that is cancelled closes its connection first."""
_REFUSED = (400, 422, 501)
"""What servers answer to tools that they do not know, or that they have no room for."""


class NoVerdict(StepFailed):
    """A driver's examination did not come to its end; nothing is known of it."""


def examine(endpoint: Endpoint, context_tokens: int, stopped: Callable[[], str] = lambda: "") -> Record:
    """Try a served driver out; the tasks that are left once the level is clear are given up.

    Raises NoVerdict where a task died, where it takes too long, and for what `stopped` says.
    """
    until, found = time.monotonic() + _DEADLINE_S, dict[str, bool]()
    with ExitStack() as ends:
        sittings = [ends.enter_context(_sitting(task, endpoint, context_tokens)) for task in TASKS]
        ends.callback(_give_up, sittings)
        left = {sitting.turn: sitting for sitting in sittings}
        while left and level_of({task.name: found.get(task.name, True) for task in TASKS}) == "native":
            ended, _ = wait(left, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for sitting in map(left.pop, ended):
                found[sitting.task.name] = sitting.passed()
            if why := stopped():
                raise NoVerdict(f"the examination was given up: {why}")
            if left and time.monotonic() > until:
                raise NoVerdict(f"{len(left)} of {len(TASKS)} tasks took longer than {_DEADLINE_S:.0f} s")
        thinks = any(sitting.chat.deps.window.thinks for sitting in sittings)
    return Record(
        level=level_of(found),
        passed=tuple(name for name, right in found.items() if right),
        failed=tuple(name for name, right in found.items() if not right),
        context_tokens=context_tokens,
        thinks=thinks,
        exam=EXAM,
    )


@dataclass(frozen=True, slots=True)
class _Sitting:
    """One task at work: its conversation, the calls that it made, the sentences that it said, and its turn."""

    task: Task
    chat: Chat
    calls: list[tuple[str, Mapping[str, object]]]
    said: list[str]
    turn: Future[Reply]

    def passed(self) -> bool:
        """Whether the driver did the right thing. Raises NoVerdict where its turn ended by something else."""
        try:
            reply = self.turn.result()
            # a figure that was marked was said
            return self.task.right(Attempt(tuple(self.calls), " ".join([reply.text, *reply.left_out])))
        except Exception as error:
            cause = error.__cause__
            if isinstance(cause, UnexpectedModelBehavior | UsageLimitExceeded) and (self.calls or self.said):
                return False  # else what came was no answer of a model's
            if isinstance(cause, ModelHTTPError) and cause.status_code in _REFUSED:
                return False
            raise NoVerdict(f"“{self.task.name}” ended early: {error}") from error


@contextmanager
def _sitting(task: Task, endpoint: Endpoint, context_tokens: int) -> Iterator[_Sitting]:
    """A task that is begun, in a home of its own, where nobody agrees to anything."""
    calls, said = list[tuple[str, Mapping[str, object]]](), list[str]()

    def emit(event: str, /, **data: object) -> None:
        if event == "tool.called":
            calls.append((str(data["tool"]), as_object(data["arguments"])))

    def nobody_agrees(plan: Plan, step: str) -> Decision:
        return Decision(False, "examination", "this is an examination")

    with TemporaryDirectory(ignore_cleanup_errors=True) as home, closing(exam_store(Path(home))) as store:
        deps = TurnDeps(
            ws=Workspace(store, None, emit),
            approver=nobody_agrees,
            show=lambda renderable: None,
            start_pipeline=lambda plan: "not started: this is an examination",
            window=Window(context_tokens),
        )
        with closing(Chat(deps)) as chat:
            turn = chat.begin(task.asked, lambda: model_of(endpoint), said.append)
            yield _Sitting(task, chat, calls, said, turn)


def _give_up(sittings: Sequence[_Sitting]) -> None:
    """End the turns that are still at work, all at once."""
    for sitting in sittings:
        sitting.chat.cancel()
    wait([sitting.turn for sitting in sittings], timeout=_LETS_GO_S)
