"""The proposed plan in words: started, dropped, shown, and changed in as many places as one sentence names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tunesmith.agent.driver import describing, look_ups, planning
from tunesmith.agent.driver.describing import Interview
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.acts import Edits, settled
from tunesmith.agent.words.reading import Reading
from tunesmith.agent.words.slots import Slots
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.format import duration
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import PipelinePlan


@dataclass(frozen=True, slots=True)
class Turned:
    """What was said about the plan, and the tool that it amounts to."""

    text: str
    tool: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict)


def turn(deps: TurnDeps, reading: Reading) -> Turned | None:
    """What a sentence does to the proposed plan; None where it is about something else. Raises BadInput."""
    assert deps.draft is not None
    edits = reading.edits and settled_in(deps.draft, reading.edits)
    match reading.label:
        case "plan.start" | "plan.drop" | "yes" | "no" | "accept" if edits is not None and edits.changes:
            return _changed(deps, edits)
        case "plan.start" | "yes" | "accept" if edits is not None and edits.unread:
            return Turned(not_taken(edits.unread, "nothing was started"))
        case "plan.start" | "yes" | "accept" if not reading.slots.asks:
            return _confirm(deps, "start")
        case "plan.drop" | "no":
            return _confirm(deps, "drop")
        case "plan.show" | "plan.cost":
            return _shown(deps)
        case "plan.wait" | "remark" | "plan.start":
            return Turned(f"The plan {deps.draft.name} waits unchanged: “start it” begins it, “drop it” gives it up.")
        case "plan.what_if" if edits is not None:
            return _imagined(deps, edits)
        case "plan.set" | "plan.without" if edits is not None:
            return _changed(deps, edits)
        case "plan.why":
            return _reason(deps, reading.slots)
    if reading.order is not None and edits is not None:
        if edits.changes:
            return _changed(deps, edits)
        return Turned(
            f"A plan is proposed, {reading.order.stage} among its steps or not: “start it” carries it out, “drop it” "
            f"gives it up; a single step is ordered after that."
        )
    return None


def settled_in(plan: PipelinePlan, edits: Edits) -> Edits:
    """The edits, a number that only names what the plan has already taken as that."""
    values, unread = settled(edits.values, edits.unread, {k: v for spec in plan.steps for k, v in spec.fields.items()})
    return replace(edits, values=values, unread=unread)


def _shown(deps: TurnDeps) -> Turned:
    assert deps.draft is not None
    shown = planning.show_draft(deps)
    return Turned(
        f"The plan {deps.draft.name}, {len(deps.draft.steps)} steps, takes about {shown['estimated_in_all']} in all; "
        f"each step's price is in the table, and asked about again when its turn comes. Start it, or change something?"
    )


def _reason(deps: TurnDeps, slots: Slots) -> Turned | None:
    """Why the plan has a value or a step: its rule, else what that setting or step is; None where neither is named."""
    assert deps.draft is not None
    for name in slots.values("field"):
        for spec in deps.draft.steps:
            if name in spec.fields:
                meant = catalog.BY_NAME[spec.stage].load().request.model_fields[name].description
                stands = f"it stands so in the plan. ({meant or name})"
                why = next((one for one in deps.draft.reasons if name in one), stands)
                return Turned(
                    f"{spec.stage} {name} is {planning.plain(spec.fields[name])}: {why} “{name} …” changes it."
                )
    text = look_ups.meaning(slots)
    return Turned(text) if text else None


def _confirm(deps: TurnDeps, how: str) -> Turned:
    planning.start_plan(deps, planning.StartPlan(confirm=how), None)  # type: ignore[arg-type]
    text, deps.say_next = deps.say_next, ""
    return Turned(text or "The plan is carried out.", "start_plan", {"confirm": how})


def _imagined(deps: TurnDeps, edits: Edits) -> Turned | None:
    """What the plan would take with a change that nobody ordered."""
    from tunesmith.tools.pipeline.forecast import forecast

    assert deps.draft is not None
    if edits.unread or not (edited := planning.edited_plan(deps, deps.draft, edits))[1]:
        return None
    now, then = (
        sum(p.estimate.seconds for p in forecast(deps.ws, plan) if p.estimate) for plan in (deps.draft, edited[0])
    )
    return Turned(
        f"Changed so ({', '.join(edited[1])}) it would take about {duration(then)} instead of {duration(now)}. The "
        f"plan is unchanged; say it as an order to change it."
    )


def _changed(deps: TurnDeps, edits: Edits) -> Turned:
    """Every step that a sentence leaves out and every value that it sets, in one go, or nothing of it."""
    assert deps.draft is not None
    if edits.unread or edits.pace:
        return Turned(not_taken((*edits.unread, *([edits.pace] if edits.pace else ())), "the plan is unchanged"))
    plan, changes = planning.edited_plan(deps, deps.draft, edits)
    if not changes:
        return Turned("I see no value and no step of the plan in that, so it is unchanged. Say such as “rank 8” or "
                      "“without quantizing”.")  # fmt: skip
    deps.draft = plan
    shown = planning.show_draft(deps)
    text = (
        f"The plan is changed: {', '.join(changes)}. It takes about {shown['estimated_in_all']} now. "
        f"Start it, or change more?"
    )
    return Turned(text, "edit_plan", {"changes": changes})


def not_taken(unread: tuple[str, ...], so: str) -> str:
    """What is said where a part of an order is no argument of it."""
    said = " and ".join(f"“{one}”" for one in unread)
    return f"You said {said}: I know no argument for it, so {so}. Say it without that, or with a setting's name."


def finish_description(deps: TurnDeps, opened: Interview) -> str:
    """Write a whole description down and propose its plan; what is said then. Errors ask on."""
    try:
        plan, words = describing.plan_of(deps, opened)
    except BadInput as error:
        return str(error)
    planning.draft(deps, plan, opened.goal, opened.quantize)
    shown = planning.show_draft(deps)
    return f"{words} It takes about {shown['estimated_in_all']} in all."
