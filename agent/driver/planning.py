"""The plan of a whole fine-tune, as it is talked about: proposed, changed in words, started or dropped.

Nothing is started before it was shown with its price. What the user says about a step, code carries out on the typed
plan; where a change could mean two things it is asked back, and a plan that its own gate would refuse is not accepted.
"""

from __future__ import annotations

from typing import Literal, Optional

from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai import RunContext

from tunesmith.agent.commands import run_steps
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.price import forecast_table
from tunesmith.agent.driver import describing
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.acts import assigned, edits_of
from tunesmith.agent.words.reading import Context, read_or_not, reader
from tunesmith.agent.words.slots import slots_of
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import duration
from tunesmith.tools.pipeline import catalog, plan_file
from tunesmith.tools.pipeline.base_choice import plan_here
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec

STAGES = tuple(entry.name for entry in catalog.STAGES)
_BUNDLED = "want.bundled"
"""The label of a wish for the behaviour that comes with tunesmith."""
FIELDS = tuple(dict.fromkeys(name for entry in catalog.STAGES for name in entry.load().settable))


class Args(BaseModel):
    """Arguments of a tool: flat, and no other ones."""

    model_config = ConfigDict(extra="forbid")


class PlanFineTune(Args):
    """Propose the whole plan for teaching the model a behaviour; it is shown with its price and nothing starts."""

    goal: str = Field(description="What the model shall do, in the user's words.")
    pace: Literal["fast", "full"] = Field(description="fast: a quick try in minutes. full: all rows and cases.")
    quantize: bool = Field(description="Whether to quantize the result; true unless the user says not to.")


class EditPlan(Args):
    """Change the proposed plan: set a field of a step, or remove a step."""

    step: Literal[STAGES] = Field(description="The stage to change.")  # type: ignore[valid-type]
    field: Optional[Literal[FIELDS]] = Field(  # type: ignore[valid-type]  # noqa: UP045
        description="The field to set, such as lora_rank; null to remove the step."
    )
    value: Optional[str] = Field(description="Its new value; null to remove the step.")  # noqa: UP045


class StartPlan(Args):
    """Start the proposed plan, after the user agreed to it; each expensive step still asks the user."""

    confirm: Literal["start", "drop"] = Field(description="start: carry it out. drop: forget the plan.")


# Proposed


def plan_fine_tune(deps: TurnDeps, args: PlanFineTune, ctx: RunContext[TurnDeps] | None) -> object:
    """Propose a plan, or begin to ask what a new behaviour is to be."""
    if folder := describing.described_before(deps.store.home, f"{args.goal} {deps.prompt}"):
        plan, behaviour = plan_here(deps.ws, folder, args.pace), f"{folder.name}, described earlier"
    elif any(_means_the_bundled(words) for words in (args.goal, deps.prompt)):
        plan = run_steps.demo_plan(fast=args.pace == "fast")
        behaviour = f"the bundled behaviour {plan.name}, by its own rows; where yours is another, drop it and say yours"
    else:
        interview = describing.begin(deps.store.home, args.goal, args.pace, args.quantize)
        return _ask_on(deps, f"That is a new behaviour, so I need to know it exactly. {interview.question}")
    draft(deps, plan, args.goal, args.quantize)
    shown = show_draft(deps)
    if not deps.agreed_before:
        deps.say(f"This plan teaches {behaviour}; every step's price is on your screen. Start it, or change something?")
    return {"behaviour": behaviour, **shown}


def _means_the_bundled(words: str) -> bool:
    """Whether words want the bundled behaviour and say nothing more of theirs than values: with `fields a, b and c` it
    is a behaviour of their own."""
    found = read_or_not(words, Context())
    if found.label != _BUNDLED:
        return False
    edits = edits_of(found.slots, STAGES, reader().known(_BUNDLED), leaves_out=False)
    return found.probability == 1.0 or not edits.unread


def draft(deps: TurnDeps, plan: PipelinePlan, goal: str, quantize: bool) -> None:
    """Let a plan stand proposed."""
    quantizing = catalog.maker_of("quantized")
    steps = plan.steps if quantize else _without_stage(plan.steps, quantizing)
    deps.draft = plan.model_copy(update={"goal": goal, "steps": steps})


def _without_stage(steps: tuple[StepSpec, ...], stage: str) -> tuple[StepSpec, ...]:
    """The steps without a stage; each other one says what is left of it once nothing makes what that one made."""
    kind, left = catalog.BY_NAME[stage].makes, []
    for spec in steps:
        fields = catalog.BY_NAME[spec.stage].load().without(spec.fields, kind)
        if spec.stage != stage and fields is not None:
            left.append(spec.model_copy(update={"fields": dict(fields)}))
    return tuple(left)


def _ask_on(deps: TurnDeps, question: str) -> dict[str, str]:
    """Have the user asked in exactly these words."""
    deps.say(question)
    return {"ask_the_user": question}


def show_draft(deps: TurnDeps) -> dict[str, object]:
    """Show the proposed plan with its prices; what a model is told of it."""
    from tunesmith.tools.pipeline.forecast import forecast

    assert deps.draft is not None
    prices = forecast(deps.ws, deps.draft)
    deps.show(forecast_table(deps.draft.name, prices, deps.draft.reasons))
    seconds = sum(price.estimate.seconds for price in prices if price.estimate)
    deps.ws.emit(
        "plan.shown",
        plan={"name": deps.draft.name, "steps": [spec.stage for spec in deps.draft.steps]},
        estimated_seconds=seconds,
        stage="",
    )
    return {
        "plan": [spec.stage for spec in deps.draft.steps],
        "estimated_in_all": duration(seconds),
        "note": "the user agreed to everything beforehand: call start_plan now"
        if deps.agreed_before
        else "the table with every step's price is on the user's screen; nothing has started. "
        "Ask whether to start it or to change something.",
    }


# Changed


def edit_plan(deps: TurnDeps, args: EditPlan, ctx: RunContext[TurnDeps] | None) -> object:
    """Change the proposed plan and show it again. Raises BadInput for a change that it cannot take."""
    draft_ = _drafted(deps)
    try:
        if args.field is None:
            steps, changed = without(draft_.steps, args.step, deps.prompt), [f"without {args.step}"]
        else:
            steps, changed = _with_fields(deps, draft_.steps, args)
    except Unclear as unclear:
        return _ask_on(deps, str(unclear))
    edited = draft_.with_steps(steps)
    plan_file.check_pipeline(edited, have=())
    deps.draft = plan_file.settled(edited, lambda sentence: deps.show(prose(sentence)))
    shown = show_draft(deps)
    deps.say(f"The plan is changed: {', '.join(changed)}. Its new prices are on your screen. Start it, or change more?")
    return {"changed": changed, **shown}


class Unclear(BadInput):
    """A change that could mean two things; the text asks which."""


def without(steps: tuple[StepSpec, ...], stage: str, words: str) -> tuple[StepSpec, ...]:
    """The steps without a stage, or without that one of its several tasks which the words name. Raises Unclear."""
    tasks = {_task(spec): spec for spec in steps if spec.stage == stage}
    if len(tasks) < 2:
        return _without_stage(steps, stage)
    said = {str(slot.value) for slot in slots_of(words).found}
    said |= {str(catalog.BY_NAME[name].makes) for name in said & {*catalog.BY_NAME}}
    named = [task for task in tasks if said & {*task.split()}]
    if len(named) != 1:
        raise Unclear(f"Which step {stage} shall I leave out: that of {' or '.join(tasks)}?")
    return tuple(spec for spec in steps if spec is not tasks[named[0]])


def _task(spec: StepSpec) -> str:
    """Which of its stage's several tasks a step is, by the fields that tell them apart."""
    declared = catalog.BY_NAME[spec.stage].load()
    request = declared.request.model_fields
    values = [spec.fields.get(name, request[name].default) for name in declared.identified_by]
    return " ".join(str(value) for value in values if value)


def _with_fields(deps: TurnDeps, steps: tuple[StepSpec, ...], args: EditPlan) -> tuple[tuple[StepSpec, ...], list[str]]:
    """The steps with the field that was chosen, and with every other one that the words give a number to by name."""
    wanted: dict[str, object] = {str(args.field): args.value}
    also = {one.field: one.value for one in assigned(slots_of(deps.prompt)) if one.field in FIELDS}
    wanted |= {
        name: f"{value:g}" for name, value in also.items() if name not in wanted and isinstance(value, int | float)
    }
    changed = []
    for name, value in wanted.items():
        stage = _stage_of(name, args.step if name == args.field else "")
        steps = _with_field(deps, steps, stage, name, value)
        changed.append(f"{stage} {name} {value}")
    return steps, changed


def _stage_of(field: str, named: str) -> str:
    """The stage that has a field: the one named, else the only one that has it. Raises BadInput."""
    asks = catalog.BY_NAME[named].load().settable if named else ()
    owners = [entry.name for entry in catalog.STAGES if field in entry.load().settable]
    if field not in asks and len(owners) != 1:
        raise BadInput(f"{named} has no field {field!r} to set here; it has {', '.join(asks) or 'none'}")
    return named if field in asks else owners[0]


def _with_field(
    deps: TurnDeps, steps: tuple[StepSpec, ...], stage: str, field: str, value: object
) -> tuple[StepSpec, ...]:
    deps.check_grounded({field: value})
    if value is None:
        raise BadInput(f"{stage}.{field}: to what? Ask the user for the value")
    meant = [spec for spec in steps if spec.stage == stage]
    if not meant:
        raise BadInput(f"the plan has no step {stage}; it has {', '.join(spec.stage for spec in steps)}")
    declared = catalog.BY_NAME[stage].load()
    apart = declared.identified_by
    if field in apart and len(meant) > 1:
        raise BadInput(f"the plan has {len(meant)} steps {stage}, a {field} each; leave one out instead")
    if field not in apart:  # of several tasks the usual one is meant, where it is among them
        meant = [spec for spec in meant if not set(apart) & set(spec.fields)] or meant
    return tuple(
        spec.model_copy(update={"fields": {**declared.taken_along(spec.fields, {field: value}), field: value}})
        if spec in meant
        else spec
        for spec in steps
    )


def _drafted(deps: TurnDeps) -> PipelinePlan:
    if deps.draft is None:
        raise BadInput("no plan is proposed; call plan_fine_tune first")
    return deps.draft


# Started


def start_plan(deps: TurnDeps, args: StartPlan, ctx: RunContext[TurnDeps] | None) -> object:
    """Begin to carry the proposed plan out, or drop it; one that cannot begin stays proposed. Raises BadInput."""
    draft = _drafted(deps)
    if args.confirm == "drop":
        deps.draft = None
        deps.say("The plan is dropped; nothing was started.")
        return {"dropped": draft.name, "note": "nothing was started"}
    plan_file.check_pipeline(draft, have=())
    note = deps.start_pipeline(draft)
    deps.draft, deps.focused_run_id = None, ""
    if not deps.agreed_before:
        deps.say("It begins. You are asked before each expensive step, and we can go on talking meanwhile.")
    return {"started": draft.name, "steps": [spec.stage for spec in draft.steps], "note": note}
