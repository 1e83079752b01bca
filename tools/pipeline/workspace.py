"""What a step is asked for with, where it is carried out, who decides about it, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, Unpack

from tunesmith.memory.errors import ApprovalPending, Declined
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan, PlanQuestion
from tunesmith.tools.pipeline import catalog, plan_file
from tunesmith.tools.pipeline.ray_settings import RaySettings


class EventData(TypedDict, total=False):
    """What an event may say, whichever it is: the fields of the JSON that a stream prints."""

    run: str
    step: str
    stage: str
    name: str
    steps: Sequence[object]
    resumed: bool
    plan: Plan | Mapping[str, object]
    plan_hash: str
    estimated_seconds: float
    started_at: float | None
    done: float
    total: float
    note: str
    status: str
    seconds: float | None
    peak_rss_bytes: int | None
    result: Mapping[str, object] | str | None
    error: str | None
    decision: str
    by: str
    reason: str
    text: str
    question: str
    left_out: list[str]
    tool: str
    arguments: Mapping[str, object]
    quiet: bool
    rows: Sequence[Mapping[str, object]]
    balance: Mapping[str, Mapping[str, int]]


class Emit(Protocol):
    """Takes an event, by its name, for everything that a watcher may want to know."""

    def __call__(self, event: str, /, **data: Unpack[EventData]) -> None: ...


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One step that somebody asks for; its fields are checked when it is priced."""

    stage: str
    fields: Mapping[str, object] = field(default_factory=dict)
    """Of the stage's request, without `run`."""
    run: str = ""
    """Empty: the run that the stage belongs to by itself."""
    notices: tuple[str, ...] = ()
    """What its user should hear of how it was asked for, before its price."""

    @classmethod
    def of(cls, step: Step) -> StepRequest:
        """What a recorded step was asked for with."""
        fields = {name: value for name, value in step.request.items() if name != "run"}
        return cls(step.stage, fields, step.run)

    @classmethod
    def given(cls, stage: str, given: Mapping[str, object], spelled: Mapping[str, str] | None = None) -> StepRequest:
        """Of fields that a user gave, `run` among them. Raises BadInput, naming a field as it was `spelled`."""
        fields = plan_file.parse_fields(stage, given, spelled=spelled)
        run = str(fields.pop("run", ""))
        settlement = catalog.BY_NAME[stage].load().settle(fields)
        notices = (*plan_file.renamed(stage, given, spelled), *settlement.notes)
        return cls(stage, {**fields, **settlement.fields}, run, notices)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was answered to a plan. A no carries its reason."""

    yes: bool
    by: str
    reason: str = ""


class Edited(Exception):
    """The answer to a plan was neither yes nor no: other values for fields of its request."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__(", ".join(f"{name}={value}" for name, value in fields.items()))
        self.fields = dict(fields)


class Approver(Protocol):
    """Asks whoever decides. Raises ApprovalPending where nobody is there, Edited for other values of fields."""

    def __call__(self, plan: Plan, step: str) -> Decision: ...


Ask = Callable[[PlanQuestion], bool | None]
"""Has a question answered by yes or no; None where nobody is there to answer. Raises Edited where what it rests on was
changed instead, so that the step is planned anew."""


def ask_nobody(question: PlanQuestion) -> None:
    """An `Ask` where no person is."""
    return


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where steps are carried out: the store, the vllm program, and who is told."""

    store: Store
    vllm: str | None
    emit: Emit
    vllm_from: str = ""
    """Where the vllm program was named, or why there is none."""
    ask: Ask = ask_nobody
    """Who answers what a plan asks before its price."""
    own_model: str = ""
    """The folder of the model that the user serves for the conversation, where it is not a bundled one."""
    ray: RaySettings = field(default_factory=RaySettings)
    """The other machine, for steps that are carried out on it."""

    def agreed(self, plan: Plan, question: PlanQuestion) -> bool:
        """Whether a person agreed to what a plan asks; False where nobody was there, and the plan stands as it is.

        Raises Declined after a no, ApprovalPending where it takes a person and nobody is there, Edited as `ask` does.
        """
        answer = self.ask(question)
        if answer is None and question.needs_person:
            self.emit(
                "approval.required", run=plan.run, step="", stage=plan.stage, plan_hash="", question=question.text,
                estimated_seconds=plan.estimate.seconds,
            )  # fmt: skip
            raise ApprovalPending(f"{plan.stage} waits for a person: {'; '.join(plan.refusals) or question.text}")
        if answer is None:
            return False
        word = "yes" if answer else "no"
        self.store.event("question.answered", run=plan.run or None, stage=plan.stage, text=question.text, answer=word)
        if not answer:
            text = " ".join(question.text.split())
            raise Declined(f"{plan.stage}: nothing was started, as the answer was no to: {text}")
        return True
