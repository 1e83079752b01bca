"""The plan of a whole fine-tune: proposed from typed arguments, changed by them, started or dropped.

Every argument is taken, or told with the reason why it is not. A plan that its own gate would refuse is not accepted,
and nothing is started before it was shown with its price.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunesmith.agent.commands import run_steps
from tunesmith.agent.commands.fields import of_words, split_words
from tunesmith.agent.commands.layout import prose
from tunesmith.agent.commands.price import forecast_table
from tunesmith.agent.driver.describe import Args, Interview, open_interview, read_words, write_down
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import DONE
from tunesmith.tools.core.format import duration, listed, size
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR, expanded
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.machine.cards import card_of
from tunesmith.tools.machine.memory_left import memory_left_bytes
from tunesmith.tools.pipeline import catalog, plan_edits, plan_file
from tunesmith.tools.pipeline.base_choice import plan_here, with_arm_of_base
from tunesmith.tools.pipeline.behaviour_plan import Quantizing, deploying
from tunesmith.tools.pipeline.known_cases import refuse_cases
from tunesmith.tools.pipeline.plan_edits import Steps, task_of
from tunesmith.tools.pipeline.plan_file import PipelinePlan

if TYPE_CHECKING:
    from tunesmith.tools.pipeline.forecast import Forecast

_PLACES = ("behaviour", "source", "suites", "mapping")
"""Fields that say where something lies: nobody needs them to talk about a plan."""


class Changes(Args):
    """What a plan can be told."""

    base: str = Field("", description="Model to teach, as the user named it.")
    rows: int | None = Field(None, description="Rows to write.")
    rows_from: str = Field("", description="Take these instead of writing: a run, or a file that the user named.")
    quantize: Quantizing | None = Field(None, description="auto: as the memory allows.")
    card: str = Field("", description="Also price it for this card: 4090, 24 GB, 2x24.")
    max_hours: float | None = None
    max_disk_gib: float | None = None
    leave_out: tuple[str, ...] = Field((), description="Such as quantize, `evaluate merged`.")
    add: tuple[str, ...] = Field((), description="Such as release, `evaluate merged`.")
    settings: str = Field("", description="All else: `train.lora_rank=8 epochs=2`.")
    settings_from_run: str = Field("", description="Train as this run did.")


class PlanFineTune(Changes):
    """Propose and price the whole plan that teaches a behaviour. It is shown as a table, and nothing starts. Set what
    the user said, nothing else."""

    behaviour: str = Field("", description="One described before, or demo (tickets as JSON); else the open one.")
    goal: str = Field("", description="The user's words.")
    pace: Literal["fast", "full"] = Field("full", description="fast: a quick try in minutes.")


class EditPlan(Changes):
    """Change the proposed plan by arguments of plan_fine_tune, and price it anew."""


class StartPlan(Args):
    """Start or drop the proposed plan, as the user said; each expensive step still asks the user itself."""

    confirm: Literal["start", "drop"]


@dataclass(slots=True)
class Edited:
    """A plan as its arguments made it."""

    plan: PipelinePlan
    taken: dict[str, object] = field(default_factory=dict)
    """Argument → what was taken of it."""
    not_taken: dict[str, str] = field(default_factory=dict)
    """Argument → why it changed nothing, or which part of it did not."""


# Proposed


def plan_fine_tune(deps: TurnDeps, args: PlanFineTune) -> dict[str, object]:
    """Propose a plan, and show it with its prices. Raises BadInput for a behaviour that is not whole, or not there."""
    opened = None if args.behaviour else open_interview(deps.store.home)
    if args.behaviour in ("demo", BUNDLED_BEHAVIOUR):
        edited, rest = Edited(run_steps.demo_plan(fast=args.pace == "fast")), args
    else:
        if opened is not None:
            args = args.model_copy(update={"base": args.base or opened.base, "goal": args.goal or opened.goal})
        edited = _of_behaviour(deps, args, opened)
        rest = args.model_copy(update={"base": "", "quantize": None})
    name = edited.plan.name
    edited.taken |= {"behaviour": name, "pace": args.pace, **({"goal": args.goal} if args.goal else {})}
    edited_plan(deps, edited, rest)
    deps.draft, deps.draft_before = edited.plan.model_copy(update={"goal": args.goal or edited.plan.goal}), None
    if not deps.agreed_before:
        deps.say(f"This plan teaches {name}; every step's price is on your screen. Start it, or change something?")
    return {"behaviour": name, **_shown(deps, args, edited)}


def _of_behaviour(deps: TurnDeps, args: PlanFineTune, opened: Interview | None) -> Edited:
    """The plan of a behaviour; a base that cannot be had is left to the plan, with the reason."""
    taken: dict[str, object] = {"quantize": args.quantize} if args.quantize else {}
    not_taken: dict[str, str] = {}
    model = ""
    try:
        model = _base(deps, args.base) if args.base else ""
    except BadInput as error:
        not_taken["base"] = str(error)
    folder = write_down(deps, opened, read_words(deps, opened)) if opened else _folder(deps, args.behaviour)
    quantize = args.quantize or (opened.quantize if opened else "auto")
    try:
        plan = plan_here(deps.ws, folder, args.pace, model=model, quantize=quantize)
    except BadInput as error:  # the hub has no such model, or cannot be asked
        if not model:
            raise
        not_taken["base"] = str(error)
        plan = plan_here(deps.ws, folder, args.pace, quantize=quantize)
    return Edited(plan, taken | ({"base": model} if model and not not_taken else {}), not_taken)


def _folder(deps: TurnDeps, name: str) -> Path:
    """The folder of a behaviour that was described before. Raises BadInput with those that there are."""
    home = deps.store.home / "behaviours"
    known = {path.parent.name: path.parent for path in sorted(home.glob("*/behaviour.yaml"))}
    if name in known:
        return known[name]
    none = f"no behaviour {name[:60]!r} was described" if name else "no behaviour is being described"
    there = f"; described before are {listed([*known], 8)}" if known else ""
    raise BadInput(f"{none}{there}; describe it with describe_behaviour, or name one that is there, or demo")


def _base(deps: TurnDeps, named: str) -> str:
    """A base that the user named, as a request names it. Raises BadInput."""
    deps.check_grounded({"model": named})
    return plan_edits.model_named(named)


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
    edited = edited_plan(deps, Edited(before), args)
    if not (edited.taken or args.card or args.max_hours or args.max_disk_gib):
        why = "; ".join(f"{name}: {reason}" for name, reason in edited.not_taken.items()) or "no argument is set"
        steps = ", ".join(dict.fromkeys(map(task_of, before.steps)))
        raise BadInput(f"nothing of the plan is changed ({why}); its steps are {steps}")
    if edited.plan != before:
        deps.change(edited.plan)
    deps.say("The plan is changed; its new prices are on your screen. Start it, or change more?")
    return _shown(deps, args, edited)


def edited_plan(deps: TurnDeps, edited: Edited, args: Changes) -> Edited:
    """The plan with every argument that it can take; a hub model at its commit, which is shown."""
    for name, change in _CHANGES.items():
        value = getattr(args, name)
        if value is None or value in ("", ()):
            continue
        items = value if isinstance(value, tuple) else split_words(value) if name == "settings" else (value,)
        if len(items) > 1 and not _refusal(deps, edited, name, change, items):
            continue  # which may only be possible together
        why = {str(item): _refusal(deps, edited, name, change, (item,)) for item in items}
        if refused := [f"{item}: {reason}" if len(items) > 1 else reason for item, reason in why.items() if reason]:
            edited.not_taken[name] = "; ".join(refused)
    return edited


_Change = Callable[[TurnDeps, Steps, str], Steps]


def _refusal(deps: TurnDeps, edited: Edited, name: str, change: _Change, items: Sequence[object]) -> str:
    """Take items of an argument, all or none; why they cannot be taken, empty where they are."""
    plan, steps = edited.plan, edited.plan.steps
    try:
        for item in items:
            steps = change(deps, steps, str(item))
        after = plan_file.settled(plan.with_steps(steps), lambda sentence: deps.show(prose(sentence)))
        if _models(after) != _models(plan):
            after = with_arm_of_base(deps.ws, after)
        plan_file.check_pipeline(after, have=())
    except BadInput as error:
        return str(error)
    edited.plan = after
    before = str(edited.taken.get(name, ""))
    edited.taken[name] = " ".join(filter(None, (before, *map(str, items))))
    return ""


def _models(plan: PipelinePlan) -> list[object]:
    return [spec.fields["model"] for spec in plan.steps if "model" in spec.fields]


def _quantized(deps: TurnDeps, steps: Steps, said: str) -> Steps:
    if said == "no":
        return plan_edits.without_stage(steps, catalog.maker_of("quantized"))
    return deploying(steps, "quantized") if said == "yes" else steps


def _with_setting(deps: TurnDeps, steps: Steps, word: str) -> Steps:
    name, equals, value = word.partition("=")
    if not equals:
        raise BadInput(f"{name[:60]} has no value; write {name[:60]}=VALUE")
    plain = shlex.quote(f"{name.rpartition('.')[2]}={value}")
    return plan_edits.with_setting(steps, name, lambda request: of_words(plain, request), _check(deps))


def _with_settings_of(deps: TurnDeps, steps: Steps, run: str) -> Steps:
    trained = [step for step in deps.store.steps(deps.store.run(run).id, status=DONE) if step.stage == "train"]
    if not trained:
        raise BadInput(f"{run} has no finished training whose settings could be taken")
    had = trained[-1].request
    given = {name: had[name] for name in catalog.BY_NAME["train"].load().settable if name in had}
    return plan_edits.with_fields(steps, "train", given, _check(deps))


def _check(deps: TurnDeps) -> plan_edits.Check:
    return lambda fields, declared: deps.check_grounded(fields, declared.request)


def _with_rows_from(deps: TurnDeps, steps: Steps, named: str) -> Steps:
    """Rows of a run, or of a file that the user named; a test case among them is refused."""
    run = next((run for run in deps.store.runs() if named in (run.id, run.name)), None)
    if run is None:
        deps.check_grounded({"source": named})
    file = _exported(deps, run.id) if run else named if named.startswith("hub:") else str(expanded(named).absolute())
    return plan_edits.with_rows_of(steps, file, refuse_cases(deps.store, file))


def _exported(deps: TurnDeps, run: str) -> str:
    """A file of the rows that a run kept. Raises NotFound for a run without rows."""
    from tunesmith.agent.commands.rows import exported
    from tunesmith.agent.commands.rows_view import review_of

    lines = exported(deps.store.rows(review_of(deps.store, run).step))
    file = deps.store.home / "exports" / f"{run}.jsonl"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    atomic_write(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), mode=0o600)
    return str(file)


_CHANGES: Mapping[str, _Change] = {
    "base": lambda deps, steps, named: plan_edits.with_base(steps, _base(deps, named)),
    "quantize": _quantized,
    "leave_out": lambda deps, steps, task: plan_edits.without(steps, task),
    "add": lambda deps, steps, task: plan_edits.with_step(steps, task),
    "rows": lambda deps, steps, rows: plan_edits.with_fields(steps, "generate", {"rows": rows}, _check(deps)),
    "rows_from": _with_rows_from,
    "settings_from_run": _with_settings_of,
    "settings": _with_setting,
}
"""Argument → what it does to the steps, in the order in which they are taken."""


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
