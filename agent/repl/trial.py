"""The examination of a session's driver behind its turns, and whom it asks before.

Every request to another machine is in the contact log, as a turn's are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from rich.text import Text

from tunesmith.agent.driver.abilities import Record, keep, record_of
from tunesmith.agent.driver.endpoint import Driver
from tunesmith.agent.exam import TASKS
from tunesmith.agent.probe import NoVerdict, examine
from tunesmith.memory.records import RUNNING
from tunesmith.tools.core.format import visible
from tunesmith.tools.core.stage import PlanQuestion
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.pipeline.driver_choice import proposed
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.endpoint import Endpoint

_LETS_GO_S = 2.0
"""A turn that is cancelled closes its connection first."""
_ROUNDS, _REQUEST_TOKENS = 3, 10_000
"""Requests of a usual task, and what one holds at most: the tools, the instructions and a few results."""


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
