"""A progress bar that follows one step: stage, note, how far, time to the end.

Where stderr is no terminal it says so much less: one line a minute.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from tunesmith.agent.commands.render import plain, progress_words

_LINE_EVERY_S = 60.0
"""Where no terminal redraws a bar: hours of work stay a page of log."""


class _Words(ProgressColumn):
    """Note, share and time left, reckoned anew at every refresh."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()
        self._bar = bar

    def render(self, task: Task) -> Text:
        return plain(self._bar.words(task.completed, task.total or 0, task.fields["note"]))


class Bar:
    """The bar of one step; `stop` takes it away."""

    def __init__(self, console: Console, title: str, estimated_s: float, *, since: float | None = None) -> None:
        """`since` is when the step was started (seconds since the epoch); now, unless given."""
        self._started = since or time.time()
        self._estimated_s = estimated_s
        self._console = console
        self._title = title
        self._printed_at = time.monotonic()
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                # 24: beside it there is room for the words of a line of 80.
                BarColumn(bar_width=24),
                _Words(self),
                console=console,
                transient=True,
                refresh_per_second=4,  # a clock of seconds moves, and a terminal far away keeps up
            )
            self._task = self._progress.add_task(title, total=None, note="starting")
            self._progress.start()

    def move(self, done: float, total: float, note: str) -> None:
        """Show how far the whole step has come, in seconds."""
        if self._progress:
            self._progress.update(self._task, completed=done, total=total or None, note=note)
        elif time.monotonic() - self._printed_at > _LINE_EVERY_S:
            self._printed_at = time.monotonic()
            self._console.print(f"{self._title}: {self.words(done, total, note)}", markup=False)

    def words(self, done: float, total: float, note: str) -> str:
        """The same as text."""
        return progress_words(time.time() - self._started, done, total, note, self._estimated_s)

    def stop(self) -> None:
        """Take the bar off the screen."""
        if self._progress:
            self._progress.stop()
