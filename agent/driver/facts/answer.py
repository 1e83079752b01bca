"""What an answer is: a few lines with the fact first, and a page for who asks for more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import RenderableType

from tunesmith.agent.driver.understanding.query import Query
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import ASIDE_RUNS, DONE, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import visible
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace

Page = Callable[[], RenderableType]
_CLIPPED = 150


@dataclass(frozen=True, slots=True)
class Proposed:
    """A step that an answer proposes: where, and with which fields."""

    run: str
    stage: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """At most a few lines for the screen, the fact that was asked for first, and the page behind them."""

    lines: tuple[str, ...]
    page: Page | None = None
    """Made only when it is asked for: it may read the whole run."""
    private: bool = False
    """Whether the lines hold text of rows, cases or outputs: they go to the screen alone, never to a model."""
    told: str = ""
    """What a model is told in their place where they are private."""
    proposals: tuple[Proposed, ...] = ()
    """The steps that the lines propose, in order, for words such as `do that`."""

    @property
    def facts(self) -> str:
        """The lines as a model may read them."""
        return self.told if self.private else "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class Question:
    """A question with all that it is answered from."""

    query: Query
    ws: Workspace
    current: Run | None
    """The run that a question without a name is about."""
    draft: PipelinePlan | None = None

    @property
    def store(self) -> Store:
        """The history."""
        return self.ws.store

    def run(self, *, with_stage: str = "") -> Run:
        """The run that is meant: the one named, else the one talked about, else the newest that holds such a step.

        Raises NotFound, naming the runs that there are.
        """
        if self.query.run:
            return find(self.store, self.query.run)
        if self.query.step:
            return self.store.run(self.store.step(self.query.step).run)
        runs = ([self.current] if self.current else []) + ordinary(self.store)
        for run in runs:
            steps = self.store.steps(run.id, status=DONE) if with_stage else []
            if not with_stage or any(step.stage == with_stage for step in steps):
                return run
        if not runs:
            raise NotFound("There is no run yet; say what a model should learn, or “demo” for a first one.")
        return runs[0]


def ordinary(store: Store) -> list[Run]:
    """The runs that are somebody's work, the newest first."""
    return [run for run in store.runs() if run.name not in ASIDE_RUNS]


def find(store: Store, name: str) -> Run:
    """A run by its id. Raises NotFound, naming those that there are."""
    for run in store.runs():
        if run.id == name or run.name == name:
            return run
    known = ", ".join(f"{run.id} ({clip(run.name, 30)})" for run in ordinary(store)[:6])
    raise NotFound(
        f"There is no run {clip(name, 30)}; " + (f"the runs are {known}." if known else "there is none yet.")
    )


def cite(step: Step) -> str:
    """A step as an answer cites it."""
    return f"{step.id} of {step.run}"


def clip(text: object, most: int = _CLIPPED) -> str:
    """Text as data in one line, cut where it is long."""
    flat = " ".join(visible(text).split())
    return flat if len(flat) <= most else f"{flat[: most - 1].rstrip()}…"


def without_instruction(text: str) -> str:
    """A prompt without the line above the message that says what to do with it, where it has one."""
    first, _, rest = text.partition("\n\n")
    return rest.strip() if first.rstrip().endswith(":") and "\n" not in first and rest.strip() else text


def day(at: float | None) -> str:
    """A point in time, to the minute, by this machine's clock."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def counted(number: int, noun: str) -> str:
    """A number and its noun; none is said as such."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


_BY = {
    "terminal": "you at the terminal",
    "edit": "you, with other values",
    "--yes": "--yes beforehand",
    "--approve": "--approve with the plan's hash",
}


def said_of(decided_by: object) -> str:
    """Who decided about a plan, in words."""
    return _BY.get(str(decided_by), clip(decided_by, 40))


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a row, the rest counted."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
