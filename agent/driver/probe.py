"""What a driver can really do, tried out: the tasks of `exam` at once, through the agent that the user talks with.

A task that ends by a lost connection, an eviction, a Ctrl-C or the clock says nothing of a driver: then there is no
verdict, and nothing is kept. Every request to another machine is in the contact log, as a turn's are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic_ai.exceptions import ModelHTTPError, UnexpectedModelBehavior, UsageLimitExceeded
from rich.text import Text

from tunesmith.agent.driver.abilities import Record, keep, proposed, record_of
from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.endpoint import Driver, Endpoint, model_of
from tunesmith.agent.driver.exam import EXAM, TASKS, Attempt, Task, exam_store, level_of
from tunesmith.agent.driver.history import Window
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.voice import Reply
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import RUNNING
from tunesmith.tools.core.format import visible
from tunesmith.tools.core.stage import Plan, PlanQuestion
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.pipeline.workspace import Decision, Workspace
from tunesmith.tools.serving import servers

_DEADLINE_S = 300.0
"""For all tasks: a driver on a CPU reads its tools for a minute."""
_POLL_S = 0.2
"""Whoever leaves waits no longer, and a step that begins has the machine to itself."""
_LETS_GO_S = 2.0
"""A turn that is cancelled closes its connection first."""
_ROUNDS, _REQUEST_TOKENS = 3, 10_000
"""Requests of a usual task, and what one holds at most: the tools, the instructions and a few results."""
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
    """One task at work: its conversation, the calls that it made, and its turn."""

    task: Task
    chat: Chat
    calls: list[tuple[str, Mapping[str, object]]]
    turn: Future[Reply]

    def passed(self) -> bool:
        """Whether the driver did the right thing. Raises NoVerdict where its turn ended by something else."""
        try:
            reply = self.turn.result()
            # a figure that was marked was said
            return self.task.right(Attempt(tuple(self.calls), " ".join([reply.text, *reply.left_out])))
        except Exception as error:
            cause = error.__cause__
            if isinstance(cause, UnexpectedModelBehavior | UsageLimitExceeded):
                return False
            if isinstance(cause, ModelHTTPError) and cause.status_code in _REFUSED:
                return False
            raise NoVerdict(f"“{self.task.name}” ended early: {error}") from error


@contextmanager
def _sitting(task: Task, endpoint: Endpoint, context_tokens: int) -> Iterator[_Sitting]:
    """A task that is begun, in a home of its own, where nobody agrees to anything."""
    calls: list[tuple[str, Mapping[str, object]]] = []

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
            turn = chat.begin(task.asked, lambda: model_of(endpoint), lambda words: None)
            yield _Sitting(task, chat, calls, turn)


def _give_up(sittings: Sequence[_Sitting]) -> None:
    """End the turns that are still at work, all at once."""
    for sitting in sittings:
        sitting.chat.cancel()
    wait([sitting.turn for sitting in sittings], timeout=_LETS_GO_S)


def verdict(name: str, record: Record) -> str:
    """What was found, for the user, in a line."""
    tried = len(record.passed) + len(record.failed)
    passed = f"{name} passed {len(record.passed)} of {tried} tasks"
    if record.level == "native":
        return f"{passed}: from your next words on it chooses the tools itself"
    failed = ", ".join(record.failed)
    return f"{passed} (not {failed}): code reads your words; `routing = false` in settings.toml lets it through"


class Trial:
    """The examination of a session's driver in the background: behind a turn, where nothing is known of it."""

    def __init__(
        self, driver: Driver, ws: Workspace, tell: Callable[[Text], None], fetch: Callable[[str], None]
    ) -> None:
        self._driver, self._ws, self._tell, self._fetch = driver, ws, tell, fetch
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._over = driver.chosen.routing != "auto"
        self._looked = False
        """Whether the driver was looked for: once, unless a turn finds it."""

    def behind_a_turn(self, *, may_ask: bool = True) -> None:
        """Begin, unless one is at work or has ended; what kept it from a verdict is tried again at a later start.

        An endpoint's, and a driver that is yet to be fetched, wait for a turn behind which its user may be asked.
        """
        asks = bool(self._driver.chosen.endpoint or not self._driver.seen()[0]) and not may_ask
        if not (self._over or asks or (self._thread and self._thread.is_alive())):
            self._thread = threading.Thread(target=self._run, daemon=True)  # leaving waits for no examination
            self._thread.start()

    def close(self) -> None:
        """Give it up."""
        self._closed.set()
        if self._thread and self._over:  # else its user was asked, and nobody answers any more
            self._thread.join(_LETS_GO_S)

    def _run(self) -> None:
        try:
            self._try_out()
        except Exception:  # of a thread: no driver that answers, or no verdict
            self._over = self._over or self._driver.here

    def _try_out(self) -> None:
        driver = self._driver
        if not driver.seen()[0]:
            self._propose()
            return
        record = record_of(driver.home, driver.seen()[0])
        self._over = record.level is not None or record.agreed is False
        if self._over or self._stopped() or not self._may_start():
            return
        endpoint = driver.ensure(self._while_waiting)
        key, context_tokens = driver.seen()
        if not driver.here:
            return
        agreed = self._agreed(key, record, endpoint, context_tokens)
        self._over = True
        if not agreed:
            return
        found = examine(endpoint, context_tokens, self._stopped)
        keep(driver.home, key, found.model_copy(update={"agreed": record_of(driver.home, key).agreed}))
        self._tell(Text(visible(verdict(endpoint.model, found)), style="dim"))

    def _propose(self) -> None:
        """Where no driver is here and a card has room for one that calls tools: propose it, once for each model."""
        stronger = None if "model" in self._driver.chosen.model_fields_set else proposed(self._ws)
        key = f"proposed {stronger.driver.model}" if stronger else ""
        if stronger is None or record_of(self._driver.home, key).agreed is not None:
            return
        answer = self._ws.ask(stronger.question)
        if answer is not None:
            keep(self._driver.home, key, Record(agreed=answer))
        if answer:
            self._fetch(stronger.driver.model)

    def _may_start(self) -> bool:
        """Whether the driver can be had without anything that ends for it; the bundled one only once it was asked."""
        looked, self._looked = self._looked, True
        if self._driver.here or looked:
            return self._driver.here
        if self._driver.chosen.endpoint:
            return True
        bundled = {model.name for model in BUNDLED.values()}
        return self._driver.folder().name not in bundled and not servers.list_servers(self._driver.home)

    def _stopped(self) -> str:
        """Why nothing may be examined now; empty where nothing keeps it."""
        if self._closed.is_set():
            return "tunesmith was left"
        at_work = next((step for step in self._ws.store.steps(status=RUNNING) if not step.on), None)
        return f"{at_work.stage} ({at_work.id}) has the machine" if at_work else ""

    def _while_waiting(self, seconds: float) -> None:
        if why := self._stopped():
            raise NoVerdict(why)

    def _agreed(self, key: str, record: Record, endpoint: Endpoint, context_tokens: int) -> bool:
        """Whether tokens may go for it: a server of ours takes none; an endpoint's user is asked once."""
        if endpoint.listener or record.agreed:
            return True
        requests = _ROUNDS * len(TASKS)
        tokens = requests * min(context_tokens, _REQUEST_TOKENS)
        question = (
            f"{endpoint.model} at {endpoint.address.place} chooses tools itself once it has passed {len(TASKS)} tasks "
            f"on made-up records: about {requests} requests and {tokens:,} tokens.\nTry it out now?"
        )
        answer = self._ws.ask(PlanQuestion(text=question, yes={}))
        if answer is not None:
            keep(self._driver.home, key, Record(agreed=answer))
        return bool(answer)
