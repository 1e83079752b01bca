"""The plan of a whole fine-tune, as it is talked about: proposed, changed in words, started or dropped.

Nothing is started before it was shown with its price. What the user says about a step, code carries out on the typed
plan; where a change could mean two things it is asked back, and a plan that its own gate would refuse is not accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.agent.commands import run_steps
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.price import forecast_table
from tunesmith.agent.driver import describing, opening
from tunesmith.agent.driver.look_ups import talk_text, whether_it_fits
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.acts import Assigned, assigned
from tunesmith.agent.words.edits import Edits, edits_of, model_in
from tunesmith.agent.words.lexicon import everyday, words_of
from tunesmith.agent.words.reading import LONGEST, Context, read_or_not, reader
from tunesmith.agent.words.slots import Slots, slots_of
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.export.deploying import DEPLOYS
from tunesmith.tools.machine.memory_left import memory_left_bytes
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.model_names import SeveralSizes, hub_name
from tunesmith.tools.pipeline import catalog, plan_file
from tunesmith.tools.pipeline.base_choice import plan_here, with_arm_of_base
from tunesmith.tools.pipeline.behaviour_plan import Quantizing
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec

if TYPE_CHECKING:
    from tunesmith.tools.pipeline.forecast import Forecast

STAGES = tuple(entry.name for entry in catalog.STAGES)
_BUNDLED = "want.bundled"
"""The label of a wish for the behaviour that comes with tunesmith."""
_NOT_HERE = ("role", "rollback", "fresh")
FIELDS = tuple(dict.fromkeys(name for entry in catalog.STAGES for name in entry.load().settable))


class Args(BaseModel):
    """Arguments of a tool: flat, and no other ones."""

    model_config = ConfigDict(extra="forbid")


class PlanFineTune(Args):
    """Propose the whole plan for teaching the model a behaviour; it is shown with its price and nothing starts."""

    goal: str = Field(description="What the model shall do, in the user's words.")
    pace: Literal["fast", "full"] = Field(description="fast: a quick try in minutes. full: all rows and cases.")
    quantize: Quantizing = Field(description="yes or no where the user says so; else auto, as the memory allows.")


class EditPlan(Args):
    """Change the proposed plan: set a field of a step, or remove a step."""

    # made by the catalogue, which mypy does not run
    step: Literal[STAGES] = Field(description="The stage to change.")  # type: ignore[valid-type]
    field: Literal[FIELDS] | None = Field(  # type: ignore[valid-type]
        description="The field to set, such as lora_rank; null to remove the step."
    )
    value: str | None = Field(description="Its new value; null to remove the step.")


class StartPlan(Args):
    """Start the proposed plan, after the user agreed to it; each expensive step still asks the user."""

    confirm: Literal["start", "drop"] = Field(description="start: carry it out. drop: forget the plan.")


# Proposed


def plan_fine_tune(deps: TurnDeps, args: PlanFineTune) -> object:
    """Propose a plan, or begin to ask what a new behaviour is to be."""
    if folder := describing.described_before(deps.store.home, f"{args.goal} {deps.prompt}"):
        plan = plan_here(deps.ws, folder, args.pace, quantize=args.quantize)
        behaviour = f"{folder.name}, described earlier"
    elif not opening.describes(deps.prompt) and any(_means_the_bundled(one) for one in (args.goal, deps.prompt)):
        plan = run_steps.demo_plan(fast=args.pace == "fast")
        behaviour = f"the bundled behaviour {plan.name}, by its own rows; where yours is another, drop it and say yours"
    else:
        base, named = _wished_base(deps, f"{_published_base(deps.prompt)} {opening.beside(deps.prompt)}"[:LONGEST])
        interview = describing.begin(deps.store.home, args.goal, args.pace, args.quantize, base)
        interview, took = opening.filled_in(deps.store.home, interview, deps.prompt)
        if not interview.draft.when and (whenever := _always(deps.prompt)):
            interview = describing.take(deps.store.home, interview, f"when: {whenever}")
            named += f" (It applies to every message, as you said: when: {whenever}.)"
        return _ask_on(deps, f"{talk_text(deps, 'new_wish')}{named}\n{took}{interview.question}")
    draft(deps, plan, args.goal, args.quantize)
    summary = show_draft(deps)
    if not deps.agreed_before:
        deps.say(f"This plan teaches {behaviour}; every step's price is on your screen. Start it, or change something?")
    return {"behaviour": behaviour, **summary}


def _always(words: str) -> str:
    """The last word of a wish where that says that it always applies; empty: it does not."""
    said = words_of(words)
    last = [match for match in everyday("always", said) if match.after == len(said)]
    return words[said[last[-1].first].start : said[-1].end] if last else ""


_TWO_WORDS = re.compile(r"[a-z]+/[a-z]+")
"""`yes/no`: in a wish no model, unless one is known by it."""


_NAME_PARTS = re.compile(r"[\s/_-]+")
"""Between the parts of a model's name: `llama 3 8b`, `Llama-3.1-8B`."""


def _published_base(words: str) -> str:
    """The first OWNER/NAME in words, wherever it stands in them; empty: none."""
    names = (str(slot.value) for slot in slots_of(words[: opening.LONGEST]).all("model"))
    return next((name for name in names if "/" in name and not _TWO_WORDS.fullmatch(name)), "")


def _wished_base(deps: TurnDeps, words: str) -> tuple[str, str]:
    """The base that a wish names, for the plan once the behaviour is described, and what is said of it; both empty: it
    names none."""
    slots = slots_of(words)
    try:
        base = named_base(slots)
    except SeveralSizes as several:
        return "", f" (Of its base: {several}. Until then the plan chooses one.)"
    except BadInput:
        named = model_in(slots)
        asked = named.value if named else ""
        return "", f" (I know no model “{asked}”: the plan will choose a base, or there name one, as OWNER/NAME.)"
    if not base or (_TWO_WORDS.fullmatch(base) and not hub_name(base)):
        return "", ""
    title = BUNDLED[base].title if base in BUNDLED else base
    named = model_in(slots)
    words = str(named.value) if named and base not in BUNDLED else title
    told = f"Its base will be {title}, as you said."
    if not {*_NAME_PARTS.split(words.lower())} <= {*_NAME_PARTS.split(title.lower())}:  # `llama 3 8b` is no Llama-3.1
        told = f"Its base will be {title}, which I take “{words}” for; OWNER/NAME names another."
    return base, f" ({told} {whether_it_fits(deps, base)})".replace(". )", ".)")


def named_base(slots: Slots) -> str:
    """The base that a sentence names, as a request names it; empty: none. Raises BadInput, SeveralSizes."""
    named = model_in(slots)
    return _model_named(str(named.value)) if named is not None else ""


def _means_the_bundled(words: str) -> bool:
    """Whether words want the bundled behaviour and say nothing more of theirs than values: with `fields a, b and c` it
    is a behaviour of their own."""
    understood = read_or_not(words, Context())
    if understood.label != _BUNDLED:
        return False
    edits = edits_of(understood.slots, STAGES, reader().known(_BUNDLED), leaves_out=False)
    return understood.probability == 1.0 or not (edits.unread or edits.beside)


def draft(deps: TurnDeps, plan: PipelinePlan, goal: str, quantize: Quantizing) -> None:
    """Let a plan stand proposed."""
    quantizing = catalog.maker_of("quantized")
    steps = _without_stage(plan.steps, quantizing) if quantize == "no" else plan.steps
    deps.draft, deps.draft_before = plan.model_copy(update={"goal": goal, "steps": steps}), None


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
    stages = [spec.stage for spec in deps.draft.steps]
    plan = {"name": deps.draft.name, "steps": stages}
    deps.ws.emit("plan.shown", plan=plan, estimated_seconds=seconds, stage="")
    return {
        "plan": stages,
        "estimated_in_all": duration(seconds),
        "memory": _memory(prices),
        "note": "the user agreed to everything beforehand: call start_plan now"
        if deps.agreed_before
        else "the table with every step's price is on the user's screen; nothing has started. "
        "Ask whether to start it or to change something.",
    }


def takes_now(deps: TurnDeps, plan: PipelinePlan) -> str:
    """Let a changed plan stand and show it; how long all of it takes."""
    deps.change(plan)
    return str(show_draft(deps)["estimated_in_all"])


def _memory(prices: Sequence[Forecast]) -> str:
    """Whether every step finds the memory and the disk that it needs, by the largest and by what is free now."""
    if lacking := [f"{price.stage}: {lack}" for price in prices for lack in price.lacks]:
        return f"It cannot be carried out on this machine: {'; '.join(lacking)}."
    if held := [f"{price.stage}: {held}" for price in prices for held in price.held]:
        return f"As this machine is now it does not fit: {'; '.join(held)}."
    peak = max((price.estimate.peak_ram_bytes for price in prices if price.estimate), default=0)
    return f"Its largest step needs about {size(peak)} of memory; {size(memory_left_bytes())} are left now."


# Changed


def edit_plan(deps: TurnDeps, args: EditPlan) -> object:
    """Change the proposed plan and show it again: the field that was chosen, and every other one that the user's words
    give a number to by name. Raises BadInput for a change that it cannot take."""
    plan, edits = _drafted(deps), Edits(without=(args.step,))
    if args.field is not None:
        deps.check_grounded({str(args.field): args.value})
        if args.value is None:
            raise BadInput(f"{args.step}.{args.field}: to what? Ask the user for the value")
        also = [
            one for one in assigned(slots_of(deps.prompt))
            if one.field in FIELDS and one.field != args.field and isinstance(one.value, int | float)
        ]  # fmt: skip
        edits = Edits((Assigned(str(args.field), args.value, ()), *also), (args.step,))
    try:
        edited, changes = edited_plan(deps, plan, edits)
    except Unclear as unclear:
        return _ask_on(deps, str(unclear))
    if not changes:
        steps = ", ".join(spec.stage for spec in plan.steps)
        raise BadInput(f"nothing of the plan is changed by that: its steps are {steps}")
    deps.change(edited)
    summary = show_draft(deps)
    deps.say(f"The plan is changed: {', '.join(changes)}. Its new prices are on your screen. Start it, or change more?")
    return {"changed": changes, **summary}


def edited_plan(deps: TurnDeps, plan: PipelinePlan, edits: Edits) -> tuple[PipelinePlan, list[str]]:
    """The plan with the edits, and what they change, in words; a hub model at its commit, which is shown.

    Raises BadInput for a plan that its gate would refuse, Unclear for a change that could mean two things.
    """
    steps, changes = plan.steps, list[str]()
    planned = list(dict.fromkeys(spec.stage for spec in steps))
    after_last = planned[planned.index(edits.last) + 1 :] if edits.last in planned else []
    for stage in (*edits.without, *after_last):
        after = without(steps, stage, deps.prompt)
        changes += [f"without {stage}"] if after != steps else []
        steps = after
    for one in edits.values:
        steps, changed = _set(steps, one, edits.stages)
        changes += changed
    if edits.model:
        commit = slots_of(deps.prompt).first("commit")
        for name, value in {"model": edits.model, **({"revision": commit} if commit else {})}.items():
            steps, changed = _set(steps, Assigned(name, value, ()), ())
            changes += changed
    if not changes:
        return plan, []
    edited = plan_file.settled(plan.with_steps(steps), lambda sentence: deps.show(prose(sentence)))
    if _models(edited) != _models(plan):
        swapped, edited = edited, with_arm_of_base(deps.ws, edited)
        changes += [why for why in edited.reasons if why.startswith(DEPLOYS) and edited.steps != swapped.steps]
    plan_file.check_pipeline(edited, have=())
    return edited, changes


def _set(steps: tuple[StepSpec, ...], one: Assigned, named: Sequence[str]) -> tuple[tuple[StepSpec, ...], list[str]]:
    """A field set wherever the sentence means it: in the stages it names, else in those that are meant by itself.

    Of a stage's several tasks the usual one is meant. Raises BadInput where the field is what tells them apart.
    """
    changed: list[str] = []
    having = [
        stage for stage in dict.fromkeys(spec.stage for spec in steps)
        if one.field in catalog.BY_NAME[stage].load().request.model_fields and one.field not in _NOT_HERE
    ]  # fmt: skip
    meant = [stage for stage in named if stage in having]
    alone = [stage for stage in having if one.field in catalog.BY_NAME[stage].load().meant_by]
    for stage in meant or alone[:1] or having:
        declared = catalog.BY_NAME[stage].load()
        tasks, apart = [spec for spec in steps if spec.stage == stage], declared.identified_by
        if one.field in apart and len(tasks) > 1:
            raise BadInput(f"the plan has {len(tasks)} steps {stage}, a {one.field} each; leave one out instead")
        if one.field not in apart:
            tasks = [spec for spec in tasks if not set(apart) & set(spec.fields)] or tasks
        value = _model_named(str(one.value)) if one.field == "model" else one.value
        typed = plan_file.parse_fields(stage, {one.field: value})
        given = [{**declared.carried_over(s.fields, typed), **typed} if s in tasks else s.fields for s in steps]
        steps = tuple(s.model_copy(update={"fields": fields}) for s, fields in zip(steps, given, strict=True))
        changed.append(f"{stage} {one.field} {plain(typed[one.field])}")
    return steps, changed


def _models(plan: PipelinePlan) -> list[object]:
    return [spec.fields["model"] for spec in plan.steps if "model" in spec.fields]


def plain(value: object) -> str:
    """A value of a field as it is said."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _model_named(asked: str) -> str:
    """A model as a request names it: OWNER/NAME, a folder, a bundled one also by its own name. Raises BadInput."""
    if asked.startswith(("/", "~", ".")):
        if not (folder := Path(asked).expanduser() / "config.json").is_file():
            raise BadInput(f"{folder.parent} is no model folder: it has no config.json; name the folder that holds it")
        return str(folder.parent)
    if "/" in asked:
        return asked.removeprefix("hub:")
    words = "-".join(asked.lower().removesuffix("instruct").split()).rstrip("-")
    exact = [name for name, one in BUNDLED.items() if words in (name, one.name.removesuffix("-instruct"))]
    family = [name for name, one in BUNDLED.items() if words == one.name.partition("-")[0]]
    if exact or len({BUNDLED[name].name for name in family}) == 1:  # a family of several is no choice of one
        return (exact or family)[0]
    if published := hub_name(asked):
        return published
    raise BadInput(f"“{asked}” is no model that can be had: name it as the hub does, OWNER/NAME, or a folder, or "
                   f"“bundled”; the plan is unchanged")  # fmt: skip


def whole_name(model: str) -> str:
    """The model that is to be fetched, as its request names it. Raises BadInput for a name that means none."""
    if "/" in model or model.startswith("bundled"):
        return model
    if published := hub_name(model):
        return published
    raise BadInput(f"“{model}” is no whole name: on the hub a model is OWNER/NAME, such as Qwen/Qwen2.5-0.5B; a folder "
                   f"or “bundled” will do too. Nothing was begun.")  # fmt: skip


class Unclear(BadInput):
    """A change that could mean two things; the text asks which."""


def without(steps: tuple[StepSpec, ...], stage: str, words: str) -> tuple[StepSpec, ...]:
    """The steps without a stage, or without that one of its several tasks which the words name. Raises Unclear."""
    tasks = {task(spec.stage, spec.fields): spec for spec in steps if spec.stage == stage}
    if len(tasks) < 2:
        return _without_stage(steps, stage)
    meant = {str(slot.value) for slot in slots_of(words).named}
    meant |= {str(catalog.BY_NAME[name].makes) for name in meant & {*catalog.BY_NAME}}
    named = [task for task in tasks if meant & {*task.split()}]
    if len(named) != 1:
        raise Unclear(f"Which step {stage} shall I leave out: that of {' or '.join(tasks)}?")
    return tuple(spec for spec in steps if spec is not tasks[named[0]])


def task(stage: str, fields: Mapping[str, object]) -> str:
    """Which of its stage's several tasks a step is, by the fields that tell them apart; empty: it has one."""
    declared = catalog.BY_NAME[stage].load()
    request = declared.request.model_fields
    values = [fields.get(name, request[name].default) for name in declared.identified_by]
    return " ".join(value for value in values if isinstance(value, str) and value)


def _drafted(deps: TurnDeps) -> PipelinePlan:
    if deps.draft is None:
        raise BadInput("no plan is proposed; call plan_fine_tune first")
    return deps.draft


# Started


def start_plan(deps: TurnDeps, args: StartPlan) -> object:
    """Begin to carry the proposed plan out, or drop it; one that cannot begin stays proposed. Raises BadInput."""
    draft = _drafted(deps)
    if args.confirm == "drop":
        deps.draft = deps.draft_before = None
        deps.say("The plan is dropped; nothing was started.")
        return {"dropped": draft.name, "note": "nothing was started"}
    plan_file.check_pipeline(draft, have=())
    note = deps.start_pipeline(draft)
    deps.draft, deps.focused_run_id = None, ""
    if not deps.agreed_before:
        deps.say("It begins. You are asked before each expensive step, and we can go on talking meanwhile.")
    return {"started": draft.name, "steps": [spec.stage for spec in draft.steps], "note": note}
