"""The plan of a whole fine-tune: proposed from typed arguments, changed by them, started or dropped.

Every argument is taken, or told with the reason why it is not. A plan that its own gate would refuse is not accepted,
and nothing is started before it was shown with its price.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunesmith.agent.commands import run_steps
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.price import forecast_table
from tunesmith.agent.driver.describe import write_down
from tunesmith.agent.driver.drafts import Interview, open_interview
from tunesmith.agent.driver.told import Args
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.data.behaviour import described_folder
from tunesmith.tools.machine.cards import card_of
from tunesmith.tools.machine.memory_left import memory_left_bytes
from tunesmith.tools.pipeline import plan_file
from tunesmith.tools.pipeline.base_choice import plan_here, with_arm_of_base
from tunesmith.tools.pipeline.plan_edits import Around, Changes, Edited, base_named, edited_plan, task_of
from tunesmith.tools.pipeline.plan_file import PipelinePlan

if TYPE_CHECKING:
    from tunesmith.tools.pipeline.forecast import Forecast

_PLACES = ("behaviour", "source", "suites", "mapping")
"""Fields that say where something lies: nobody needs them to talk about a plan."""


class PlanFineTune(Changes):
    """Propose and price the whole plan of a behaviour. Set what the user said alone."""

    behaviour: str = Field(default="", description="A described one, or demo; empty: the open one.")
    goal: str = Field(default="", description="The user's words.")
    pace: Literal["fast", "full"] = Field(default="full", description="fast: a try in minutes.")


class EditPlan(Changes):
    """Change the proposed plan; arguments of plan_fine_tune."""


class StartPlan(Args):
    """Start or drop the proposed plan, as the user said."""

    confirm: Literal["start", "drop"]


# Proposed


def plan_fine_tune(deps: TurnDeps, args: PlanFineTune) -> dict[str, object]:
    """Propose a plan, and show it with its prices. Raises BadInput for a behaviour that is not whole, or not there."""
    opened = None if args.behaviour else open_interview(deps.store.home)
    if args.behaviour in ("demo", BUNDLED_BEHAVIOUR):
        edited, rest = Edited(run_steps.demo_plan(fast=args.pace == "fast")), args
    else:
        if opened is not None:
            args = args.model_copy(update={"base": args.base or opened.base, "goal": args.goal or opened.goal})
        edited = of_behaviour(deps, args, opened)
        rest = args.model_copy(update={"base": "", "quantize": None})
    name = edited.plan.name
    edited.taken |= {"behaviour": name, "pace": args.pace, **({"goal": args.goal} if args.goal else {})}
    edited_plan(_around(deps), edited, rest)
    if "base" in edited.not_taken:
        edited.not_taken["base"] += f"; the plan and its prices are of {_base_of(edited.plan)} in its place"
    deps.draft, deps.draft_before = edited.plan.model_copy(update={"goal": args.goal or edited.plan.goal}), None
    if not deps.agreed_before:
        deps.say(f"This plan teaches {name}; every step's price is on your screen. Start it, or change something?")
    return {"behaviour": name, **_shown(deps, args, edited)}


def _base_of(plan: PipelinePlan) -> object:
    return next((one.fields.get("model", "bundled") for one in plan.steps if one.stage == "base"), "no base")


def of_behaviour(deps: TurnDeps, args: PlanFineTune, opened: Interview | None) -> Edited:
    """The plan of a behaviour, the open one written down; a base that cannot be had is left to the plan, with the
    reason. Raises BadInput for a behaviour that is not whole, or not there."""
    taken: dict[str, object] = {"quantize": args.quantize} if args.quantize else {}
    not_taken: dict[str, str] = {}
    model = ""
    try:
        model = base_named(args.base, deps.check_grounded) if args.base else ""
    except BadInput as error:
        not_taken["base"] = str(error)
    folder = write_down(deps, opened) if opened else described_folder(deps.store.home, args.behaviour)
    quantize = args.quantize or (opened.quantize if opened else "auto")
    try:
        plan = plan_here(deps.ws, folder, args.pace, model=model, quantize=quantize)
    except BadInput as error:  # the hub has no such model, or cannot be asked
        if not model:
            raise
        not_taken["base"] = str(error)
        plan = plan_here(deps.ws, folder, args.pace, quantize=quantize)
    return Edited(plan, taken | ({"base": model} if model and not not_taken else {}), not_taken)


def show_draft(deps: TurnDeps) -> dict[str, object]:
    """Show the proposed plan with its prices; what a model is told of it."""
    return _shown(deps, EditPlan(), Edited(drafted(deps)))


def _shown(deps: TurnDeps, args: Changes, edited: Edited) -> dict[str, object]:
    """The proposed plan on the screen, priced; for the driver with every argument that was given."""
    from tunesmith.tools.pipeline.forecast import forecast

    plan = drafted(deps)
    prices = forecast(deps.ws, plan)
    deps.show(forecast_table(plan.name, prices, plan.reasons))
    costs = [price.estimate for price in prices if price.estimate]
    seconds, disk = sum(cost.seconds for cost in costs), sum(cost.disk_bytes for cost in costs)
    named = {"name": plan.name, "steps": [spec.stage for spec in plan.steps]}
    deps.ws.emit("plan.shown", plan=named, estimated_seconds=seconds, stage="")
    limits = {"max_hours": (args.max_hours, seconds / 3600), "max_disk_gib": (args.max_disk_gib, disk / GIB)}
    within = {
        name: {"limit": limit, "estimated": round(takes, 2), "kept": takes <= limit}
        for name, (limit, takes) in limits.items() if limit is not None
    }  # fmt: skip
    edited.taken |= {name: limit for name, (limit, _) in limits.items() if limit is not None}
    on_card = _on_card(deps, plan, args.card, edited) if args.card else {}
    for name, why in edited.not_taken.items():
        deps.show(prose(f"(Not taken, {name}: {why}.)"))
    note = "nothing has started: ask the user whether to start it or to change something"
    return {
        "plan": [
            {"stage": spec.stage, "fields": {k: v for k, v in spec.fields.items() if k not in _PLACES},
             "seconds": round(price.estimate.seconds, 1) if price.estimate else None}
            for spec, price in zip(plan.steps, prices, strict=True)
        ],
        "estimated_in_all": duration(seconds),
        "memory": _memory(prices),
        "reasons": list(plan.reasons),
        "within": within,
        **on_card,
        "taken": edited.taken,
        "not_taken": edited.not_taken,
        "note": "the user agreed to everything beforehand: call start_plan now" if deps.agreed_before else note,
    }  # fmt: skip


def _memory(prices: Sequence[Forecast]) -> str:
    """Whether every step finds the memory and the disk that it needs, by the largest and by what is free now."""
    if lacking := [f"{price.stage}: {lack}" for price in prices for lack in price.lacks]:
        return f"It cannot be carried out on this machine: {'; '.join(lacking)}."
    if held := [f"{price.stage}: {held}" for price in prices for held in price.held]:
        return f"As this machine is now it does not fit: {'; '.join(held)}."
    peak = max((price.estimate.peak_ram_bytes for price in prices if price.estimate), default=0)
    return f"Its largest step needs about {size(peak)} of memory; {size(memory_left_bytes())} are left now."


def _on_card(deps: TurnDeps, plan: PipelinePlan, named: str, edited: Edited) -> dict[str, object]:
    """Whether the plan, with what its base decides there, fits another card."""
    from tunesmith.tools.pipeline.fits import facts_here
    from tunesmith.tools.pipeline.forecast import looked_ahead

    try:
        card = card_of(named)
        facts = facts_here(deps.store, vllm=deps.ws.vllm, card=card)
        prices, why_not = looked_ahead(deps.ws, with_arm_of_base(deps.ws, plan, facts=facts), facts)
    except BadInput as error:
        edited.not_taken["card"] = str(error)
        return {}
    edited.taken["card"] = card.name
    costs = [price.estimate for price in prices if price.estimate]
    needs = {"most_vram": size(max(cost.peak_vram_bytes for cost in costs)), "why_not": why_not}
    return {"on_card": {"card": card.name, "fits": not why_not, **needs}}


# Changed


def edit_plan(deps: TurnDeps, args: EditPlan) -> dict[str, object]:
    """Change the proposed plan and show it again. Raises BadInput where nothing is changed, with each reason."""
    before = drafted(deps)
    edited = edited_plan(_around(deps), Edited(before), args)
    if not (edited.taken or args.card or args.max_hours or args.max_disk_gib):
        why = "; ".join(f"{name}: {reason}" for name, reason in edited.not_taken.items()) or "no argument is set"
        steps = ", ".join(dict.fromkeys(map(task_of, before.steps)))
        raise BadInput(f"nothing of the plan is changed ({why}); its steps are {steps}")
    if edited.plan != before:
        deps.change(edited.plan)
    deps.say("The plan is changed; its new prices are on your screen. Start it, or change more?")
    return _shown(deps, args, edited)


def _around(deps: TurnDeps) -> Around:
    from tunesmith.agent.commands.rows import kept_rows_file

    def say(sentence: str) -> None:
        deps.show(prose(sentence))

    return Around(deps.ws, deps.check_grounded, lambda run: kept_rows_file(deps.store, run), say)


def drafted(deps: TurnDeps) -> PipelinePlan:
    """The proposed plan. Raises BadInput where none is."""
    if deps.draft is None:
        raise BadInput("no plan is proposed; call plan_fine_tune first")
    return deps.draft


# Started


def start_plan(deps: TurnDeps, args: StartPlan) -> object:
    """Begin to carry the proposed plan out, or drop it; one that cannot begin stays proposed. Raises BadInput."""
    draft = drafted(deps)
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
