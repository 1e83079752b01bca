"""What the driver's tools work on in one conversation: the store, the run, the plan that is being written.

Nothing here is the model's: every decision goes through the approver, and everything shown comes from the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock

from pydantic import BaseModel
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from rich.console import RenderableType

from tunesmith.agent.commands.places import is_known, places
from tunesmith.agent.driver.abilities import Known
from tunesmith.agent.driver.figures import Ledger
from tunesmith.agent.driver.history import Window
from tunesmith.agent.driver.reads import Reads
from tunesmith.agent.driver.user_words import names, names_model
from tunesmith.agent.exam import Level
from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.registry import TOOLS
from tunesmith.memory.errors import ApprovalPending, BadInput, GateRefused, StepFailed, TunesmithError
from tunesmith.memory.records import Run
from tunesmith.memory.store import Store
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Approver, Workspace
from tunesmith.tools.serving.endpoint import Endpoint

NOT_THE_USER = "(Not the user:"
"""How a turn begins that no user did: a job has ended, and a driver is woken with that."""
_FREE = (entry.name for entry in catalog.STAGES if not entry.expensive and not entry.makes)
_READING = frozenset({*TOOLS, "query_records", *_FREE})
"""These put right only what they got wrong themselves."""


_OF_THEIR_OWN = ("model", "source", "revision", "mapping", "split")
"""Fields that are looked at by themselves, or that name nothing outside what the others name."""


@dataclass(frozen=True, slots=True)
class TurnAnswer:
    """Words that answer the turn; `for_model` is what a model may read of them later."""

    text: str
    for_model: str = ""
    tool: str = ""
    """The tool that did it, for the events of a script; empty: none."""
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A step that was ordered, with its fields."""

    tool: str
    arguments: Mapping[str, object]


class Declined(StepFailed):
    """The user said no to a price."""


@dataclass(slots=True)
class TurnDeps:
    """The deps of a turn."""

    ws: Workspace
    approver: Approver
    show: Callable[[RenderableType], None]
    """Puts something on the user's screen; the model never sees it."""
    start_pipeline: Callable[[PipelinePlan], str]
    """Begins to carry out a whole plan and says, for the model, what became of it."""
    agreed_before: bool = False
    """Whether the user said yes to everything beforehand, as a script does with `--yes`."""
    follow: bool = False
    """Wait for a started step to end; a script does, a conversation goes on."""
    endpoint: Callable[[], Endpoint] | None = None
    """Where the driver answers, for what else it is asked; None where it is no server."""
    driver: Model | None = None
    """The driver once a request of this turn needed it: another one where it was evicted for a step of the turn."""
    say_next: str = ""
    """What is said to the user next, in exactly these words, instead of asking the model for some."""
    focused_run_id: str = ""
    """The run that a question named last, for questions that name none; empty: the newest. No step goes by it."""
    draft: PipelinePlan | None = None
    """The plan that was proposed and not yet started."""
    draft_before: PipelinePlan | None = None
    """The same as it was before its newest change; None: nothing of it was changed."""
    prompt: str = ""
    """What the user said in this turn."""
    user_turns: Callable[[], Sequence[str]] | None = None
    """Every turn of this conversation as it was typed; None: there is none but this turn."""
    known: Callable[[], Known] | None = None
    """What is known of the driver by now; None: it stays as it is set here."""
    level: Level = "native"
    """Who answers this turn: read as it begins, so that it never changes within one."""
    window: Window = field(default_factory=Window)
    """How much the driver can be sent, and may answer."""
    keep_waiting: Callable[[Sequence[ModelMessage], Mapping[str, str]], None] = lambda messages, waiting: None
    """Writes down the calls that wait for the user, by their steps, before they are asked about."""
    undecided: ApprovalPending | None = None
    """Why nobody decided on a call of this turn."""
    ledger: Ledger = field(default_factory=Ledger)
    """Everything a figure of an answer may come from: tool results, the state card, the user's words."""
    reads: Reads = field(default_factory=Reads)
    """What this turn looked at; once it has ended, what `/why` shows."""
    seen_calls: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Call → its last result and how often in a row it was the same."""
    driver_state: Callable[[], str] = lambda: "No language model drives this conversation: I answer from the records."
    """The driver as the user knows it."""
    edit: Callable[[str], str] | None = None
    """Has the user edit a text in a program of their own; None where nobody sits at a terminal."""
    end: Callable[[str], None] | None = None
    """Has the user asked, once this turn is told, whether a step is to be ended, or with no step what is served; None
    where nobody sits at a terminal."""
    start_driver: Callable[[], Awaitable[Model]] | None = None
    """Starts the driver for this turn, once a request needs it."""
    one_at_a_time: RLock = field(default_factory=RLock)
    """Held while an answer is shown: reads may run at once."""
    errors: dict[str, TunesmithError] = field(default_factory=dict)
    """Tool → what went wrong in this turn."""

    def __post_init__(self) -> None:
        """Go by what is known of the driver from the start: a job may end before the first words."""
        self._read_level()

    def _read_level(self) -> None:
        if known := self.read_window():
            self.level = known.level

    def read_window(self) -> Known | None:
        """Take over how much the driver can be sent; what is known of it, None where nobody says."""
        known = self.known() if self.known else None
        if known:
            self.window.context_tokens = known.context_tokens
            self.window.thinks |= known.thinks
        return known

    @property
    def store(self) -> Store:
        """The history."""
        return self.ws.store

    def current_run(self) -> Run | None:
        """The newest run, else none: where steps go."""
        return self.store.newest_run()

    def focused_run(self) -> Run | None:
        """The run that a question without a name is about."""
        return self.store.run(self.focused_run_id) if self.focused_run_id else self.current_run()

    def records(self) -> Context:
        """What a question is answered from."""
        return Context(self.ws, self.focused_run(), self.draft)

    def say(self, words: str) -> None:
        """Have exactly these words said next, where a small model would only say them worse."""
        self.note(words)
        self.say_next = words

    def said_by_user(self) -> Sequence[str]:
        """Every turn of this conversation that its user typed."""
        turns = self.user_turns() if self.user_turns else (self.prompt,)
        return [turn for turn in turns if not turn.startswith(NOT_THE_USER)]

    def check_grounded(self, given: Mapping[str, object], request: type[BaseModel] | None = None) -> None:
        """No free path among the tools: what may name a model, a file or a suite is ours, or the user named it.

        Named are whole words, in any turn of this conversation; of a `request` every such field is looked at. Raises
        BadInput.
        """
        turns = self.said_by_user()
        model, source = given.get("model"), given.get("source")
        if model is not None and model not in BUNDLED and not names_model(str(model), turns):
            raise BadInput(f"model {model!r}: the user did not name it; ask which model, or use 'bundled'")
        others = {name: value for name, value in given.items() if name not in _OF_THEIR_OWN}
        for text in (*([str(source)] if source else []), *(places(request, others) if request else ())):
            if not is_known(text) and not names(text, turns):
                raise BadInput(f"{text!r}: the user did not name it; ask which, as they would type it")

    def forget(self) -> None:
        """Forget what was talked about, for another conversation."""
        self.prompt, self.focused_run_id = "", ""
        self.draft_before = None
        self.ledger.clear()

    def change(self, plan: PipelinePlan) -> None:
        """Let the proposed plan be another one; the one before can be had back."""
        self.draft, self.draft_before = plan, self.draft

    def begin_turn(self, prompt: str) -> None:
        """Forget what belonged to the turn before; from now on the driver goes by what is known of it."""
        self._read_level()
        self.prompt, self.say_next, self.driver, self.undecided = prompt, "", None, None
        self.ledger.begin_turn()
        self.reads = Reads()
        self.note(prompt)
        self.seen_calls.clear()
        self.errors.clear()

    def note(self, result: object) -> None:
        """Remember what a tool told, for the check of figures."""
        self.ledger.note(result)

    # What a turn came to, for the exit code of a script

    def went_wrong(self, tool: str, error: Exception) -> None:
        """Keep what a call ended with."""
        if not isinstance(error, TunesmithError):
            error = StepFailed(f"{tool}: unexpected {type(error).__name__}: {error}")
        if not is_lasting(self.errors.get(tool)):
            self.errors[tool] = error

    def went_well(self, tool: str) -> None:
        """Forget what this call put right."""
        for name in [tool] if tool in _READING else list(self.errors):
            if not is_lasting(self.errors.get(name)):
                self.errors.pop(name, None)

    @property
    def error(self) -> TunesmithError | None:
        """The error that the turn came to; None where all is well."""
        left = list(self.errors.values())
        return next((error for error in left if is_lasting(error)), left[-1] if left else None)


def is_lasting(error: TunesmithError | None) -> bool:
    """Whether nothing that is called later puts it right."""
    return isinstance(error, StepFailed | GateRefused)
