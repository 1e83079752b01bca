"""The proposed plan in words: started, dropped, shown, and changed in as many places as one sentence names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tunesmith.agent.driver import describing, planning
from tunesmith.agent.driver.describing import Interview
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.driver.understanding.entities import STAGE_WORDS, Sentence
from tunesmith.agent.driver.understanding.orders import quantizes
from tunesmith.agent.driver.understanding.values import values_named
from tunesmith.memory.errors import BadInput
from tunesmith.tools.pipeline import catalog, plan_file
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec

_START = re.compile(
    r"^(?:(?:yes|yep|yeah|ok(?:ay)?|sure|good|great|fine|perfect|alright|all right|looks (?:good|"
    r"fine|great)(?: to me)?|sounds (?:good|fine|great)|nice|cool|then|now|please|so|well|that is "
    r"(?:fine|good|ok)|i agree|agreed|let'?s|lets|just)[,.! ]*)*"
    r"(?:yes|y|go|start|begin|run|launch|execute|proceed|do|carry (?:it )?out|make it so|go ahead|"
    r"go for it|let'?s (?:go|do|start|begin)|kick (?:it )?off|fire away|you may (?:start|begin)|"
    r"ok(?:ay)?|agreed|looks good|sounds good|approved)?"
    r"(?: (?:it|this|that|the plan|plan|now|please|then|on|off|so|with it|ahead|do it|start|for it|"
    r"begin|the whole thing|everything|away))*[.! ]*$"
)
_STARTS_WITH = re.compile(
    r"\b(?:yes|yep|yeah|go|start|begin|run|launch|execute|proceed|do it|make it so|ok(?:ay)?|sure|"
    r"approved|agreed|looks good|sounds good|fine|let'?s)\b"
)
_DROP = re.compile(
    r"^(?:(?:no|nah|nope|actually|oh|hm+|on second thought|wait|sorry)[,. ]*)*(?:please "
    r")?(?:(?:drop|forget|cancel|scrap|discard|delete|abandon|throw away|dismiss|remove|stop|abort|"
    r"kill|never ?mind)(?: (?:it|this|that|the|whole|plan|all|of|thing|about|away|everything|"
    r"again))*|throw (?:it|that|the plan|this) away|i (?:do not|no longer) want (?:it|this|that|"
    r"the plan)(?: any ?more)?|i (?:have )?changed my mind|no(?: thanks?| thank you)?)[.! ]*$"
)
_DONE = re.compile(r"^(?:(?:ok(?:ay)?|and|so)[, ]+)?(?:that is (?:all|it)|done|finished|ready)[.! ]*$")
_SHOW = re.compile(
    r"^(?:please )?(?:show|print|list|display|see|repeat|give)(?: me)? (?:the |my |this |that |"
    r"whole )*plan(?: again)?\b|what is (?:in )?the plan|^(?:the )?plan\??$|what (?:is|was|are) "
    r"(?:proposed|in it|the steps)|which steps|what (?:will|would) (?:it|you|happen|be done)"
)
_COST = re.compile(
    r"how (?:long|much)\b.{0,30}(?:take|cost|plan|all|whole|it|need)|what (?:will|does|would|is) "
    r"(?:it|this|that|the (?:plan|price|cost)|the whole).{0,14}(?:cost|price|take)?\??$|price|"
    r"estimate"
)
_LEAVE_OUT = (
    r"(?:skip|leave out|leave|without|omit|drop|remove|strike|cut|no|not?|do not need|do without|"
    r"don'?t (?:do|need|run|want)|never mind|forget|exclude|minus)"
)
_SHARED: Mapping[str, tuple[str, ...]] = {
    "rows": ("generate",),
    "temperature": ("generate", "baseline"),
    "seed": ("train",),
    "max_seq_len_tokens": ("train",),
    "lora_rank": ("train",),
    "precision": ("train",),
    "load_in_4bit": ("train",),
}
"""Field of several stages → the stages that mean it where none was named; others take it in all of them."""


@dataclass(frozen=True, slots=True)
class Turned:
    """What was said about the plan, and the tool that it amounts to."""

    text: str
    tool: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict)


def turn(deps: TurnDeps, s: Sentence) -> Turned | None:
    """What a sentence does to the proposed plan; None where it is about something else. Raises BadInput."""
    assert deps.draft is not None
    if _DROP.match(s.text):
        return _confirm(deps, "drop")
    if _SHOW.search(s.text) and len(s.text.split()) <= 8:
        shown = planning.show_draft(deps)
        return Turned(
            f"The plan {deps.draft.name}, {len(deps.draft.steps)} steps, {shown['estimated_in_all']} in "
            f"all, is on your screen. Start it, or change something?"
        )
    if _COST.search(s.text) and not s.runs and not re.search(r"\b(?:did|took|was|last)\b", s.text):
        shown = planning.show_draft(deps)
        return Turned(
            f"About {shown['estimated_in_all']} in all; each step's price is in the table, and asked about "
            f"again when its turn comes."
        )
    if _DONE.match(s.text):
        return Turned(f"The plan {deps.draft.name} waits: “start it” begins it, “drop it” gives it up.")
    if s.text.endswith("?") and not re.match(r"(?:can|could|would|will) (?:you|we)|may (?:i|we)|shall we", s.text):
        return None
    if (changed := _changed(deps, s)) is not None:
        return changed
    if _START.match(s.text) and _STARTS_WITH.search(s.text):
        return _confirm(deps, "start")
    return None


def _confirm(deps: TurnDeps, how: str) -> Turned:
    planning.start_plan(deps, planning.StartPlan(confirm=how), None)  # type: ignore[arg-type]
    text, deps.say_next = deps.say_next, ""
    return Turned(text or "The plan is carried out.", "start_plan", {"confirm": how})


def _changed(deps: TurnDeps, s: Sentence) -> Turned | None:
    """Every step that a sentence leaves out and every value that it sets, in one go; None where it does neither."""
    plan = deps.draft
    assert plan is not None
    steps, changes = plan.steps, []
    for stage in _left_out(plan, s):
        after = planning.without(steps, stage, s.text)
        changes += [f"without {stage}"] if after != steps else []
        steps = after
    if not quantizes(s.text) and "quantize" not in [t.removeprefix("without ") for t in changes]:
        after = planning.without(steps, "quantize", s.text)
        changes += ["without quantize"] if after != steps else []
        steps = after
    stages = list(dict.fromkeys(spec.stage for spec in steps))
    for name, value in values_named(s.text, stages, s.said).items():
        if name in ("arm", "role", "rollback", "fresh") or (name == "scheme" and "without quantize" in changes):
            continue
        steps, changed = _set(deps, steps, name, value, s)
        changes += changed
    if (model := _model(deps, s)) is not None:
        steps, changed = model(steps)
        changes += changed
    if not changes:
        return None
    edited = plan.with_steps(steps)
    plan_file.check_pipeline(edited, have=())
    deps.draft = edited
    shown = planning.show_draft(deps)
    text = (
        f"The plan is changed: {', '.join(changes)}. It takes about {shown['estimated_in_all']} now. "
        f"Start it, or change more?"
    )
    return Turned(text, "edit_plan", {"changes": changes})


def _left_out(plan: PipelinePlan, s: Sentence) -> list[str]:
    planned = {spec.stage for spec in plan.steps}
    stages = []
    for stage, words in STAGE_WORDS.items():
        words = words.replace(r"(?! (?:rows|data|examples|set|loss))", "")
        if stage in planned and re.search(
            rf"\b{_LEAVE_OUT}\b(?: (?:the|a|any|that|do|doing|to|step|run|for|it|serving|me))*[ -](?:\w+ "
            rf")?(?:{words})",
            s.text,
        ):
            stages.append(stage)
    if re.search(rf"\b{_LEAVE_OUT}\b.{{0,12}}\b(?:serv(?:e|ing))\b", s.text) and "deploy" in planned:
        stages.append("deploy")
    if re.search(r"\b(?:stop|only|just|end) (?:after|until|up to|to|at|with) (?:the )?train", s.text):
        stages += [stage for stage in ("evaluate", "merge", "quantize", "deploy") if stage in planned]
    return list(dict.fromkeys(stage for stage in stages if not (stage == "baseline" and stage not in s.stages)))


def _set(
    deps: TurnDeps, steps: tuple[StepSpec, ...], name: str, value: object, s: Sentence
) -> tuple[tuple[StepSpec, ...], list[str]]:
    """A field set wherever the sentence means it: in the stages it names, else in those that are meant by itself."""
    having = [
        stage
        for stage in dict.fromkeys(spec.stage for spec in steps)
        if name in catalog.BY_NAME[stage].load().request.model_fields
    ]
    named = [stage for stage in s.stages if stage in having]
    usual = [stage for stage in _SHARED.get(name, ()) if stage in having][:1]
    meant = named or usual or having
    changed = []
    for stage in meant:
        typed = plan_file.parse_fields(stage, {name: value})
        changed.append(f"{stage} {name} {_plain(typed[name])}")
        steps = tuple(
            spec.model_copy(update={"fields": {**spec.fields, **typed}})
            if spec.stage == stage and "role" not in spec.fields
            else spec
            for spec in steps
        )
    return steps, changed


def _plain(value: object) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, list | tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _model(
    deps: TurnDeps, s: Sentence
) -> Callable[[tuple[StepSpec, ...]], tuple[tuple[StepSpec, ...], list[str]]] | None:
    """A change of the base: a hub model at its commit, a folder, a bundled one; None where no model was named."""
    from tunesmith.agent.driver.hub_models import named_model

    if not re.search(r"\b(?:use|take|with|base|model|switch|instead|on)\b", s.text):
        return None
    named = named_model(s.said)
    if named is None:
        return None

    of_before = ("revision", "quantized")

    def change(steps: tuple[StepSpec, ...]) -> tuple[tuple[StepSpec, ...], list[str]]:
        changed = tuple(
            spec.model_copy(
                update={"fields": {**{k: v for k, v in spec.fields.items() if k not in of_before}, **named.fields}}
            )
            if spec.stage == "base" and "role" not in spec.fields
            else spec
            for spec in steps
        )
        return changed, [f"base {named.told}"]

    return change


def finish_description(deps: TurnDeps, opened: Interview) -> str:
    """Write a whole description down and propose its plan; what is said then. Errors ask on."""
    try:
        plan, words = describing.plan_of(deps, opened)
    except BadInput as error:
        return str(error)
    planning.draft(deps, plan, opened.goal, opened.quantize)
    shown = planning.show_draft(deps)
    return f"{words} It takes about {shown['estimated_in_all']} in all."
