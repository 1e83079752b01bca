"""What the slash commands, the conversation and completion need of the REPL: who shows, asks and carries plans out.

`Shell` is the one implementation; nothing here knows it, so that none of them has to know another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from rich.console import Console, RenderableType

from tunesmith.agent.commands.settings import Settings
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Decision, Workspace

T = TypeVar("T")


class Screen(Protocol):
    """The REPL as its parts see it. What asks runs in the main thread; `from_thread` brings a question there."""

    @property
    def settings(self) -> Settings:
        """As they were loaded at the start."""

    @property
    def store(self) -> Store:
        """The history."""

    @property
    def ws(self) -> Workspace:
        """Where steps are carried out; what happens to them is told on the screen."""

    def say(self, text: str) -> None:
        """Print plain text as one line, from any thread."""

    def show(self, view: RenderableType) -> None:
        """Print above the prompt, from any thread."""

    def page(self, view: RenderableType) -> None:
        """Print what was asked for, as much of it as the screen holds."""

    def more(self) -> bool:
        """Print the next screen of a long page; False where nothing is left of one."""

    def main_console(self) -> Console:
        """The terminal itself, for the main thread while it shows no prompt."""

    def confirm(self, question: str) -> bool:
        """A yes or anything else."""

    def approver(self, plan: Plan, step: str) -> Decision:
        """Ask the user about a priced plan. Raises ApprovalPending, Edited."""

    def from_thread(self, ask: Callable[[], T]) -> T:
        """Have the main thread ask, and wait for the answer. Raises what asking raised."""

    def answer_questions(self) -> None:
        """Ask what the background threads want to know."""

    def enqueue(self, text: str) -> None:
        """Hold a turn on words that had to wait, as soon as the prompt is free; from any thread."""

    def later(self, act: Callable[[], None]) -> None:
        """Do something in the main thread as soon as the prompt is free; from any thread."""

    def carries_a_plan(self) -> bool:
        """Whether a plan is being carried out, which says itself what is next."""

    def follow(self, step: str) -> bool:
        """A bar until the step ends, whose end is told then; False for Ctrl-C, which lets it go on."""

    def tell_end(self, step: Step) -> None:
        """Tell the end of a step, once."""

    def start_plan(self, plan: PipelinePlan | None, resume_run: str | None = None) -> None:
        """Carry out a plan, or the rest of a run, in the background. Raises BadInput while another one is."""

    def run_words(self) -> Iterable[tuple[str, str]]:
        """Ids of runs, each with its name."""

    def step_words(self) -> Iterable[tuple[str, str]]:
        """Ids of steps at work."""

    def field_words(self, stage: str, word: str) -> Iterable[tuple[str, str]]:
        """`field=` for every field of a stage's request, and its values where they can be listed."""
