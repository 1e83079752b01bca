"""A process that has the same store open as others, and does to it what `test_store_model` tells it to."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.locks import lock_file, take
from tunesmith.memory.records import STOPPED, Worker
from tunesmith.memory.store import Store
from tunesmith.tools.machine.processes import ProcessId
from tunesmith.tools.pipeline import launcher


class Peer:
    """One process of tunesmith: a terminal and a worker in one."""

    def __init__(self) -> None:
        self.me = ProcessId.of(os.getpid())
        self.locks: dict[str, int] = {}
        self.store: Store | None = None

    def open(self, home: str) -> bool:
        if self.store:
            for step in [*self.locks, *self.store._starting]:
                self._leave(step)
                self.store.let_go(step)
            self.store.close()
        self.store = Store(Path(home))
        return True

    def clock(self, offset_s: float) -> bool:
        """Everything here that asks for the time is told another one."""
        time.time = lambda: time.clock_gettime(time.CLOCK_REALTIME) + offset_s
        return True

    def __call__(self, what: str, *arguments: object) -> object:
        """The answer; False where it was refused."""
        try:
            return getattr(self, what)(*arguments)
        except TunesmithError:
            return False

    def run(self) -> str:
        return self._store.new_run("test", plan={"steps": [{"stage": "base"}]})

    def propose(self, run: str) -> str:
        return self._store.propose(run, "base", plan_hash="h")

    def decide(self, step: str, word: str) -> bool:
        self._store.decide(step, word, by="test", reason="", price={})
        return True

    def let_go(self, step: str) -> bool:
        self._store.let_go(step)
        return True

    def claim(self, step: str) -> bool:
        """As a worker does: its lock first, which it holds for as long as it works."""
        if step in self.locks:
            raise BadInput("at work on it")
        fd, me = take(lock_file(self._store.home, step)), self.me
        try:
            self._store.claim(
                step, needs_approval=True, pid=me.pid, pid_started=me.started, boot_id=me.boot_id, pid_ticks=me.ticks,
                host=me.host, pid_namespace=me.namespace,
            )  # fmt: skip
        except BaseException:
            os.close(fd)
            raise
        self.locks[step] = fd
        return True

    def finish(self, step: str) -> bool:
        done = self._store.finish(step, {"by": self.me.pid}, worker=self._worker)
        self._leave(step)
        return done

    def fail(self, step: str) -> bool:
        failed = self._store.fail(step, "an error", worker=self._worker)
        self._leave(step)
        return failed

    def stop(self, step: str) -> bool:
        return self._store.fail(step, "stopped", status=STOPPED)

    def reopen(self, step: str) -> bool:
        self._store.reopen(step)
        return True

    def reconcile(self) -> list[str]:
        return [step.id for step in launcher.reconcile(self._store)]

    @property
    def _store(self) -> Store:
        assert self.store
        return self.store

    @property
    def _worker(self) -> Worker:
        return Worker(self.me.pid, self.me.ticks)

    def _leave(self, step: str) -> None:
        if (fd := self.locks.pop(step, None)) is not None:
            os.close(fd)


def main(orders: Connection) -> None:
    """Carry out what comes, one after another, until nobody is there any more."""
    peer = Peer()
    with suppress(EOFError):
        while True:
            orders.send(peer(*orders.recv()))
