"""What is asked of the proposed plan and of its steps: why, what if, against a run before; a step put into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from tunesmith.agent.driver import planning
from tunesmith.agent.driver.look_ups import meaning
from tunesmith.agent.driver.turn_deps import TurnAnswer, TurnDeps
from tunesmith.agent.queries.answer import find, named
from tunesmith.agent.queries.settings import BY_DEFAULT, usually
from tunesmith.agent.words.acts import assigned
from tunesmith.agent.words.edits import Edits
from tunesmith.agent.words.lexicon import everyday
from tunesmith.agent.words.reading import Reading, read
from tunesmith.agent.words.slots import Slots, amounts
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.memory.records import DONE, Step
from tunesmith.tools.core.auto import readable_default
from tunesmith.tools.core.format import duration, listed, size
from tunesmith.tools.core.stage import GIB, Estimate
from tunesmith.tools.machine.cards import Card, card_of
from tunesmith.tools.pipeline import catalog, plan_file
from tunesmith.tools.pipeline.base_choice import with_arm_of_base
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.serving.eviction import machine_for_a_step


def reason(deps: TurnDeps, slots: Slots) -> TurnAnswer | None:
    """Why the plan has a value or a step: its rule, else what that setting or step is; None where neither is named."""
    text = value_and_reason(deps, slots) or meaning(slots)
    return TurnAnswer(text) if text else None


def value_and_reason(deps: TurnDeps, slots: Slots) -> str:
    """A value of the plan that is named, why it has it, and how it is changed; empty where none is named."""
    assert deps.draft is not None
    for name in slots.values("field") or _fields_that_are(slots, deps.draft):
        for spec in deps.draft.steps:
            if name in spec.fields:
                meant = catalog.BY_NAME[spec.stage].load().request.model_fields[name].description
                why = next((one for one in deps.draft.reasons if name in one), "")
                why = why or f"{_whence(deps.draft_before or deps.draft, spec, name)}. ({meant or name})"
                return f"{spec.stage} {name} is {planning.plain(spec.fields[name])}: {why} “{name} …” changes it."
    return ""


def _whence(before: PipelinePlan, spec: StepSpec, name: str) -> str:
    """Where a value of the plan that no rule explains comes from: the last change, the default, or no one knows."""
    had = next((one for one in before.steps if _task(one.stage, one.fields) == _task(spec.stage, spec.fields)), spec)
    if _value(had, name) != _value(spec, name):
        return f"the last change set it so, before that it was {_value(had, name)}"
    if spec.fields[name] == readable_default(catalog.BY_NAME[spec.stage].load().request.model_fields[name]):
        return BY_DEFAULT
    return f"it stands so in the plan, and why is not recorded; left alone it would be {usually(spec.stage, name)}"


def _fields_that_are(slots: Slots, plan: PipelinePlan) -> list[str]:
    """The field of the plan that has the number which is named, where only one has: `is 64 overkill?`."""
    values = {number.value for number in slots.numbers if not number.weak}
    names = {name for spec in plan.steps for name, value in spec.fields.items()
             if isinstance(value, int | float) and value in values}  # fmt: skip
    return [*names] if len(names) == 1 else []


_LONGEST_STEPS = 3
_LIMITED: Mapping[str, tuple[Callable[[float], str], Callable[[Estimate], float], Callable[..., float], str]] = {
    "time": (duration, lambda one: one.seconds, sum, "fewer epochs, fewer rows or a step left out shorten it"),
    "disk": (size, lambda one: one.disk_bytes, sum, "a smaller base or a step left out saves the most"),
    "memory": (size, lambda one: max(one.peak_ram_bytes, one.peak_vram_bytes), max,
               "a smaller base, shorter rows (max_seq_len_tokens) or a lower rank need less"),
}  # fmt: skip
"""What a plan is held to → how it is said, what a step takes of it, how that adds up, and what lowers it."""


def _priced(deps: TurnDeps, plan: PipelinePlan) -> list[tuple[str, Estimate]]:
    """The steps of a plan that have a price, each with what it takes."""
    from tunesmith.tools.pipeline.forecast import forecast

    return [(one.stage, one.estimate) for one in forecast(deps.ws, plan) if one.estimate]


def held_to(deps: TurnDeps, slots: Slots) -> str:
    """Whether the plan stays within each time, memory or disk that words name, and what takes the most of it; what
    takes the longest, where they ask for that."""
    assert deps.draft is not None
    prices = _priced(deps, deps.draft)
    on_disk = any(match.name == "disk" for match in everyday("asked_of", slots.words))
    told, limits = list[str](), amounts(slots) or [("time", 0.0)] * bool(everyday("longest", slots.words))
    for what, most in limits if prices else ():
        said, of_step, in_all, lowered = _LIMITED["time" if what == "time" else "disk" if on_disk else "memory"]
        takes = in_all(of_step(one) for _, one in prices)
        largest = sorted(prices, key=lambda one: -of_step(one[1]))[:_LONGEST_STEPS]
        steps = ", ".join(f"{stage} {said(of_step(one))}" for stage, one in largest)
        stays = "stays within that" if takes <= most else f"does not stay within that: {lowered}"
        left = machine_for_a_step(deps.store.home).disk_free_bytes - takes
        stays += f"; of the disk it leaves {size(left)} free" if on_disk and what != "time" else ""
        limit, so = (f"{said(most)}: t", f" and {stays}") if most else ("T", "")  # `which takes longest?` sets none
        told.append(f"{limit}he plan takes about {said(takes)}{so}. Most of it is {steps}.")
    return " ".join(told)


def judged(deps: TurnDeps, reading: Reading, edits: Edits | None) -> str:
    """What is said to words that only judge a value, or hold the plan to a time, a memory or a disk; empty for others.
    Nothing is changed by them."""
    slots, label, changes = reading.slots, reading.label, edits is not None and edits.changes
    if label == "plan.set" and edits is not None and edits.denied and everyday("too_much", slots.words):
        return value_and_reason(deps, slots)
    limits = amounts(slots) and not slots.all("card") and not changes
    if limits and label in ("plan.set", "plan.cost", "plan.wait", "remark"):
        return f"{held_to(deps, slots)} It is unchanged, and nothing was started."
    return ""


def to_what(deps: TurnDeps, slots: Slots) -> str:
    """The present value of a setting that is to be another one and was given none; empty: no such one is named."""
    from tunesmith.tools.pipeline.forecast import forecast

    assert deps.draft is not None
    prices = forecast(deps.ws, deps.draft)
    for name in slots.values("field"):
        for price in sorted(prices, key=lambda one: name not in catalog.BY_NAME[one.stage].load().meant_by):
            now = price.decided.get(name)
            if isinstance(now, int | float) and not isinstance(now, bool) and now > 0:
                half = now // 2 or 1 if isinstance(now, int) else now / 2
                less, more = planning.plain(half), planning.plain(now * 2)
                stands = f"{price.stage} {name} is {planning.plain(now)} in the plan, which is unchanged."
                return f"{stands} To what? Such as “{name} {less}” or “{name} {more}”."
    return ""


def imagined(deps: TurnDeps, slots: Slots, edits: Edits) -> TurnAnswer | None:
    """What the plan would take with a change that nobody ordered, or on a card that is named. Raises BadInput."""
    assert deps.draft is not None
    if card := slots.first("card") or slots.first("card_gib"):
        return _on(deps, card_of(f"{slots.first('cards') or 1}x{card}"), edits)
    if edits.unread and edits.changes:
        return None
    if not edits.changes or not (edited := planning.edited_plan(deps, deps.draft, edits))[1]:
        return last_change(deps) if deps.draft_before is not None else None  # `and what does that do to the time?`
    now, then = (whole_price(deps, _priced(deps, plan)) for plan in (deps.draft, edited[0]))
    if edited[0].steps == deps.draft.steps:
        return TurnAnswer(f"The plan has that already ({', '.join(edited[1])}). All of it takes about {now}.")
    return TurnAnswer(
        f"Changed so ({', '.join(edited[1])}) it would take about {then}. As it is it takes about {now}. The plan is "
        f"unchanged; say it as an order to change it."
    )


def whole_price(deps: TurnDeps, prices: Sequence[tuple[str, Estimate]]) -> str:
    """Time, the most memory with its step and what is free, and disk, of a whole plan."""
    if not prices:
        return "what shows when each step is due"
    stage, most = max(prices, key=lambda one: (one[1].peak_vram_bytes, one[1].peak_ram_bytes))
    machine = machine_for_a_step(deps.store.home)
    memory = (
        f"{size(most.peak_vram_bytes)} of {size(machine.vram_free_bytes)} free on the card"
        if most.peak_vram_bytes and machine.vram_free_bytes
        else f"{size(most.peak_ram_bytes)} of {size(machine.memory_free_bytes)} free RAM"
    )
    disk = size(sum(price.disk_bytes for _, price in prices))
    return f"{duration(sum(price.seconds for _, price in prices))}, at most {memory} (in {stage}), and {disk} of disk"


def _on(deps: TurnDeps, card: Card, edits: Edits) -> TurnAnswer:
    """Whether the plan, changed so as far as that was understood, which is said, and with what its base decides there,
    fits another card."""
    from tunesmith.tools.pipeline.fits import facts_here
    from tunesmith.tools.pipeline.forecast import looked_ahead

    assert deps.draft is not None
    edited, changes = planning.edited_plan(deps, deps.draft, edits)
    facts = facts_here(deps.store, vllm=deps.ws.vllm, card=card)
    prices, why_not = looked_ahead(deps.ws, with_arm_of_base(deps.ws, edited, facts=facts), facts)
    how = f"with {', '.join(changes)} " if changes else ""
    verdict = f"the plan {how}does not fit: {why_not}"
    if not why_not:
        most, stage = max((one.estimate.peak_vram_bytes, one.stage) for one in prices if one.estimate)
        needs = f"; {stage} needs the most, about {size(most)} of {size(int(card.free_gib * GIB))}" if most else ""
        verdict = f"the plan {how}fits{needs}"
    return TurnAnswer(f"On {card.name} {verdict}. {card.note + '. ' if card.note else ''}The plan is unchanged.")


def undone(deps: TurnDeps) -> TurnAnswer:
    """The plan as it was before its newest change; said again, the change is back."""
    if deps.draft_before is None:
        return TurnAnswer("Nothing of the plan was changed that I could take back; it waits as it is.")
    takes = planning.takes_now(deps, deps.draft_before)
    return TurnAnswer(f"The plan is as it was before the last change; about {takes} in all. Start it, or change more?")


def last_change(deps: TurnDeps) -> TurnAnswer:
    """What the newest change of the plan changed, value by value, and what all of it takes then and now."""
    assert deps.draft is not None
    if deps.draft_before is None:
        return TurnAnswer("Nothing of the plan was changed yet: it is as it was proposed.")
    old, new = ({_task(s.stage, s.fields): s for s in plan.steps} for plan in (deps.draft_before, deps.draft))
    differ = [
        f"{task} {name} was {_value(old[task], name)}, now {_value(spec, name)}"
        for task, spec in new.items() if task in old
        for name in dict.fromkeys((*old[task].fields, *spec.fields))
        if old[task].fields.get(name) != spec.fields.get(name)
    ]  # fmt: skip
    differ += [f"{task} was not in it" for task in new if task not in old]
    differ += [f"{task} was in it" for task in old if task not in new]
    then, now = (whole_price(deps, _priced(deps, plan)) for plan in (deps.draft_before, deps.draft))
    return TurnAnswer(
        # 8: a line or two
        f"Before the last change of the plan: {listed(differ, 8) or 'no value was another one'}. All of it took about "
        f"{then}. Now it takes about {now}. It is unchanged; “undo that” takes the change back."
    )


def _value(spec: StepSpec, name: str) -> str:
    return planning.plain(spec.fields[name]) if name in spec.fields else "the usual"


def compared(deps: TurnDeps, run_id: str) -> TurnAnswer:
    """What the plan does otherwise than a run before: values, steps that are new, steps that it leaves out."""
    assert deps.draft is not None
    run = find(deps.store, run_id) if run_id else deps.current_run()
    if run is None:
        return TurnAnswer("There is no run yet that the plan could be compared with; it waits unchanged.")
    did = {_task(step.stage, step.request): step for step in deps.store.steps(run.id, status=DONE)}
    plan = {_task(spec.stage, spec.fields): spec for spec in deps.draft.steps_to_run}
    differ = [one for task, spec in plan.items() if task in did for one in _differing(spec, did[task])]
    differences = [
        f"in the plan {listed(differ, 8)}" if differ else "no value that the plan sets is another one",
        # 8 each: a line or two
        f"steps that only the plan has: {listed(new, 8)}" if (new := [t for t in plan if t not in did]) else "",
        f"steps that only the run has: {listed(old, 8)}" if (old := [t for t in did if t not in plan]) else "",
    ]
    text = f"{'; '.join(filter(None, differences))}.{training_beside(deps, _priced(deps, deps.draft), run.id)}"
    return TurnAnswer(f"Against {named(run)}: {text} The plan is unchanged; “as in {run.id}” takes its training over.")


def training_beside(deps: TurnDeps, prices: Sequence[tuple[str, Estimate]], run: str = "") -> str:
    """How long a plan trains beside the newest training, or that of a run, with a space before it; empty where one of
    them is not known."""
    takes = [one.seconds for stage, one in prices if stage == "train"]
    done = [step for step in deps.store.steps(run or None, status=DONE) if step.stage == "train" and step.seconds]
    each = [f"{duration(one)}, that of {step.run} took {duration(step.seconds)}" for one in takes for step in done[-1:]]
    return f" Its training takes about {each[0]}: such a time grows with the rows and the epochs." if each else ""


def with_rows_of(deps: TurnDeps, run_id: str) -> TurnAnswer:
    """The plan with the rows that a run kept in the place of those that it would write or take. Raises NotFound for a
    run without rows."""
    from tunesmith.agent.commands.rows import exported
    from tunesmith.agent.commands.rows_view import review_of

    assert deps.draft is not None
    run = find(deps.store, run_id) if run_id else deps.current_run()
    writing = next((spec for spec in deps.draft.steps if spec.stage == "generate"), None)
    if run is None:
        return TurnAnswer("No run before has rows that this plan could take; it is unchanged.")
    if writing is None:
        return TurnAnswer("The plan has no step that writes rows, in whose place it could take those; it is unchanged.")
    lines = exported(deps.store.rows(review_of(deps.store, run.id).step))
    file = deps.store.home / "exports" / f"{run.id}.jsonl"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    atomic_write(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), mode=0o600)
    fields = {"source": str(file), **{name: writing.fields[name] for name in ("behaviour",) if name in writing.fields}}
    none_written = writing.model_copy(update={"fields": {**writing.fields, "rows": 0, "held_out": 0}})
    import_step = StepSpec(stage="import", fields=plan_file.parse_fields("import", fields))
    others = [spec for spec in deps.draft.steps if spec.stage != "import"]
    left = [str(spec.fields.get("source", "")) for spec in deps.draft.steps if spec.stage == "import"]
    at = others.index(writing)
    plan = deps.draft.with_steps((*others[:at], import_step, none_written, *others[at + 1 :]))
    if refused := _refusal(plan):
        return TurnAnswer(refused)
    takes = planning.takes_now(deps, plan)
    instead = f" in the place of those of {listed(left, 3)}" if any(left) and left != [str(file)] else ""
    return TurnAnswer(
        f"The plan trains on the {len(lines)} rows that {run.id} kept ({file}){instead} and writes none of the "
        f"behaviour; about {takes} in all. Start it, or change more?",
        tool="edit_plan",
        arguments={"rows_of": run.id},
    )


def _refusal(plan: PipelinePlan) -> str:
    """Why a changed plan cannot be carried out; empty for one that can."""
    try:
        plan_file.check_pipeline(plan, have=())
    except BadInput as error:
        return f"{error}; the plan is unchanged."
    return ""


def _task(stage: str, fields: Mapping[str, object]) -> str:
    """A step by its stage and, of a stage with several tasks, which."""
    return f"{stage} {planning.task(stage, fields)}".strip() if stage in catalog.BY_NAME else stage


def _differing(spec: StepSpec, step: Step) -> list[str]:
    parsed = plan_file.parse_fields(spec.stage, spec.fields)
    return [
        f"{spec.stage} {name} {planning.plain(value)} instead of {planning.plain(step.request[name])}"
        for name, value in parsed.items()
        if name in step.request and step.request[name] != value and name not in _PLACES
    ]


_PLACES = ("behaviour", "source", "suites")
"""Fields that say where something lies."""


def added(deps: TurnDeps, slots: Slots) -> TurnAnswer | None:
    """The plan with a step more, at its place in the chain; None where no stage is named. Raises BadInput."""
    assert deps.draft is not None
    stages = [slot for slot in slots.all("stage") if slot.value in catalog.BY_NAME and not slots.negated(slot)]
    asked = list(dict.fromkeys(str(slot.value) for slot in stages))
    ordered = read(slots.sentence)
    tests = "do.evaluate" in ordered.likely[:2] and not (asked and ordered.sure)
    if not (asked or tests):
        return None
    steps = deps.draft.steps
    missing = [one for one in asked if one not in {spec.stage for spec in steps}]
    measuring = [one for one in asked if catalog.BY_NAME[one].load().measures]  # `test it again after quantizing`
    if tests and not (missing or measuring):  # `a test behind merging`
        measuring = ["evaluate"]
    stage = [*missing, *measuring, *asked][0]
    fields = _as_its_like(stage, steps) | {one.field: one.value for one in assigned(slots, (stage,))}
    if arm := _arm_of(stage, steps, slots):
        fields["arm"] = arm
    spec = StepSpec(stage=stage, fields=plan_file.parse_fields(stage, fields))
    have = [_task(one.stage, one.fields) for one in steps]
    if _task(stage, fields) in have:
        like = listed(list(dict.fromkeys(one for one in have if one.split()[0] == stage)), 6)  # a line of them
        where = (
            "" if catalog.BY_NAME[stage].load().measures else ", in its place: it works on what those before it make"
        )
        return TurnAnswer(f"The plan has that already ({like}){where}.")
    at = _place(spec, steps)
    plan = deps.draft.with_steps((*steps[:at], spec, *steps[at:]))
    if refused := _refusal(plan):
        return TurnAnswer(refused)
    takes = planning.takes_now(deps, plan)
    text = f"The plan has {_task(stage, fields)} as step {at + 1} of {len(plan.steps)} now; about {takes} in all. "
    more = [one for one in asked if one != stage and one not in {spec.stage for spec in plan.steps}]
    text += "Start it, or change more?" + "".join(f" ({one} was not put in; ask for it by itself.)" for one in more)
    return TurnAnswer(text, tool="edit_plan", arguments={"added": stage})


def _as_its_like(stage: str, steps: tuple[StepSpec, ...]) -> dict[str, object]:
    """What the plan's last step of a stage was given, without what tells such steps apart: only so are two measurements
    of one kind."""
    apart = catalog.BY_NAME[stage].load().identified_by
    like = next((spec.fields for spec in reversed(steps) if spec.stage == stage), {})
    return {name: value for name, value in like.items() if name not in apart}


def _model_of(spec: StepSpec) -> str:
    """The kind of model that a step makes; empty: none."""
    model = catalog.BY_NAME[spec.stage].makes or ""
    return model if model in _ARMS else ""


_ARMS = ("adapter", "merged", "quantized")


def _arm_of(stage: str, steps: tuple[StepSpec, ...], slots: Slots) -> str:
    """The model that a step is about: the one named; else the last that the plan makes, up to and with the other step
    that is named, and for which it has no such step. Empty for a stage that has no choice."""
    if "arm" not in catalog.BY_NAME[stage].load().request.model_fields:
        return ""
    if arms := slots.values("arm"):
        return str(arms[0])
    if stage == "release":
        return "merged"
    others = [one for one in slots.values("stage") if one != stage]
    end = next((at for at, spec in enumerate(steps) if spec.stage in others), len(steps))
    have = {_task(one.stage, one.fields) for one in steps}
    before = [arm for spec in reversed(steps[:end]) if (arm := _model_of(spec))]
    then = [arm for spec in steps[end : end + 1] if (arm := _model_of(spec))]
    meant = (*before[:1], *then, *before)
    return next((arm for arm in meant if _task(stage, {"arm": arm}) not in have), (*then, *before, "")[0])


def _place(spec: StepSpec, steps: tuple[StepSpec, ...]) -> int:
    """Where a step goes: a measurement behind what it measures, any other before the first that the chain has later."""
    declared, order = catalog.BY_NAME[spec.stage].load(), [*catalog.BY_NAME]
    if declared.measures:
        models = [at for at, one in enumerate(steps) if _model_of(one) == spec.fields.get("arm")]
        return models[-1] + 1 if models else len(steps)
    later = [
        at for at, one in enumerate(steps)
        if order.index(one.stage) > order.index(spec.stage) and not catalog.BY_NAME[one.stage].load().measures
    ]  # fmt: skip
    return later[0] if later else len(steps)
