"""What a sentence does to the proposed plan, and a wish for one, as the arguments of the tools that do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tunesmith.agent.commands.approvals import no_clear_yes
from tunesmith.agent.driver import describing, drafts, plan
from tunesmith.agent.driver.manual import talk_text
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.words.acts import Edits, holds_back, model_in
from tunesmith.agent.words.reading import Reading, reader
from tunesmith.memory.json_values import as_object
from tunesmith.tools.core.format import listed
from tunesmith.tools.pipeline.plan_file import PipelinePlan

_CHANGES = ("plan.set", "plan.without", "plan.start", "plan.drop", "plan.what_if")
_NO_TEXT, _TEXT_ALONE = "talk.images", 0.97
"""What asks for a model of pictures or sound; from which probability of a wish that counts for nothing."""


def changed(deps: TurnDeps, reading: Reading) -> TurnAnswer | None:
    """What a sentence does to the proposed plan; None where it is about something else. Raises BadInput."""
    edits, draft, unchanged = reading.edits or Edits(), plan.drafted(deps), (deps.draft, deps.draft_before)
    match reading.label:
        case "plan.start" if doubt := no_clear_yes(deps.prompt):
            return TurnAnswer(doubt)
        case "plan.start" | "plan.drop" if not edits.changes:
            how = reading.label.removeprefix("plan.")
            plan.start_plan(deps, plan.StartPlan.model_validate({"confirm": how}))
            return _said(deps, "start_plan", {"confirm": how})
        case "plan.undo" if deps.draft_before is not None:
            deps.change(deps.draft_before)
            return _shown(deps, "The plan is as it was before its last change.")
        case "plan.show" | "plan.cost" | "plan.why" | "plan.before" | "price":
            return _shown(deps, "")
    given = _arguments(reading, edits, draft)
    if not any(given.values()):
        none = "I see no value and no step in that, so the plan is unchanged. Say such as “rank 8” or “without merge”."
        return TurnAnswer(none) if reading.label.startswith("plan.") and not reading.slots.asks else None
    held = holds_back(reading.slots, of_the_plan=True) or listed(edits.unread, 4)
    if held and "rows_from" not in given:
        return TurnAnswer(f"“{held}” I cannot hold the plan to, so it is unchanged. Say the step or the setting alone.")
    result = plan.edit_plan(deps, plan.EditPlan.model_validate(given))
    done = as_object(result["taken"])
    taken = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in done.items())
    deps.say_next = ""
    if reading.label == "plan.what_if":
        deps.draft, deps.draft_before = unchanged
        return TurnAnswer(f"With {taken} it would take about {result['estimated_in_all']}; the plan is unchanged.")
    text = f"The plan is changed: {taken}. It takes about {result['estimated_in_all']} now. Start it, or change more?"
    return TurnAnswer(text, tool="edit_plan", arguments=given)


def settings_of(draft: PipelinePlan | None) -> dict[str, object]:
    """What a plan gives a value to."""
    return {name: value for spec in draft.steps for name, value in spec.fields.items()} if draft else {}


def _arguments(reading: Reading, edits: Edits, draft: PipelinePlan) -> dict[str, object]:
    """What a sentence changes of the plan, as the arguments of its tool."""
    label, run = reading.label, reading.slots.first("run")
    if label == "plan.rows" or (run and not edits.changes and "plan.rows" in reading.nearest[:2]):
        return {"rows_from": run}
    if label in ("plan.as_before", "plan.add"):
        return {"add": edits.stages} if label == "plan.add" else {"settings_from_run": run}
    if not (label in _CHANGES or label.startswith("do.")):
        return {}
    now = settings_of(draft)
    times = {name: had * by for name, by in edits.factors.items() if isinstance(had := now.get(name), int | float)}
    settings = " ".join(f"{name}={value}" for name, value in {**times, **edits.values}.items())
    return {"settings": settings, "leave_out": edits.without, "base": edits.model}


def _said(deps: TurnDeps, tool: str, arguments: Mapping[str, object]) -> TurnAnswer:
    text, deps.say_next = deps.say_next, ""
    return TurnAnswer(text or "The plan is carried out.", tool=tool, arguments=arguments)


def _shown(deps: TurnDeps, words: str) -> TurnAnswer:
    takes = plan.show_draft(deps)["estimated_in_all"]
    return TurnAnswer(f"{words} It takes about {takes} in all. Start it, or change something?".strip())


def wanted(deps: TurnDeps, reading: Reading) -> TurnAnswer:
    """A wish: the plan of a behaviour that is there, or the first question about a new one."""
    slots, home = reading.slots, deps.store.home
    if _NO_TEXT in reading.nearest[:2] and reading.probability < _TEXT_ALONE:
        return TurnAnswer(talk_text(deps, _NO_TEXT.removeprefix("talk.")))
    pace: Literal["fast", "full"] = "fast" if slots.first("pace") == "fast" else "full"
    before = describing.described_before(home, deps.prompt)
    own = slots.unread([(one.start, one.end) for one in slots.named], reader().known(reading.label))
    if before or (reading.label == "want.bundled" and not own):
        asked = {"behaviour": before.name if before else "demo", "goal": deps.prompt, "pace": pace}
        plan.plan_fine_tune(deps, plan.PlanFineTune.model_validate(asked))
        return _said(deps, "plan_fine_tune", asked)
    base = model_in(slots)
    opened = drafts.begin(home, deps.prompt, pace, "auto", str(base.value) if base else "")
    told = f" Its base will be {base.value}, as you said." if base else ""
    return TurnAnswer(f"{talk_text(deps, 'new_wish')}{told}\n{opened.question}", tool="plan_fine_tune")
