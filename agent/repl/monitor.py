"""The thread that knows what runs: for the toolbar, for completion, and to tell what ended, once.

It reads the store, so it sees jobs of every process, and those that ended while no tunesmith was open.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable

import psutil

from tunesmith.agent.commands.render import progress_words
from tunesmith.memory.records import RUNNING, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import size
from tunesmith.tools.pipeline import catalog, launcher

_EVERY_S = 0.5
"""A person does not wait for less; a look is a few reads of a local file."""


class Monitor(threading.Thread):
    """Watches the store of one home."""

    def __init__(self, store: Store, *, tell: Callable[[Step], None], changed: Callable[[], None]) -> None:
        """`tell` is called for every step that ended, `changed` when the toolbar would read differently."""
        super().__init__(daemon=True)  # leaving waits for no look
        self.running: tuple[Step, ...] = ()
        self.runs: tuple[Run, ...] = ()
        self._store = store
        self._tell = tell
        self._changed = changed
        self._announced: set[tuple[str, float | None]] = set()
        self._lock = threading.Lock()  # an end is noticed here, and in the thread of who follows the step
        self._closed = threading.Event()

    def run(self) -> None:
        """Look again and again until closed."""
        last_line = ""
        while not self._closed.wait(_EVERY_S):
            self.look()
            if (line := self.line()) != last_line:
                last_line = line
                self._changed()

    def look(self) -> None:
        """Read what runs, mark what died, tell what ended; as far as the disk has room for, which the start tells."""
        # a disk that is full, a store that is being moved or is damaged: the next look
        with contextlib.suppress(OSError, sqlite3.Error):
            running = self._store.steps(status=RUNNING)
            self.running = tuple(step for step in running if catalog.ENTRIES[step.stage].asks(step.request))
            self.runs = tuple(self._store.runs())
            if any(not launcher.is_alive(self._store, step) for step in running):
                dead = {step.id for step in launcher.reconcile(self._store)}
                self.running = tuple(step for step in self.running if step.id not in dead)
            for step in self._store.unannounced():
                self.announce(step)

    def announce(self, step: Step) -> None:
        """Tell the end of a step unless that was done already, whoever noticed it first."""
        with self._lock:
            key = (step.id, step.finished_at)  # a step that is resumed ends again
            if key in self._announced or not catalog.ENTRIES[step.stage].asks(step.request):
                return
            self._announced.add(key)
        self._tell(step)

    def line(self) -> str:
        """The jobs at work in one line: stage, share, note, time to the end, free memory; empty when none is."""
        if not self.running:
            return ""
        memory = f"RAM {size(psutil.virtual_memory().available)} free"
        return "  |  ".join([*(_line(step) for step in self.running), memory])

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()


def _line(step: Step) -> str:
    elapsed_s = time.time() - (step.started_at or time.time())
    far = progress_words(elapsed_s, step.done, step.total, step.note, step.estimated_seconds)
    return f"{step.stage} {step.id} of {step.run} · {far}"
