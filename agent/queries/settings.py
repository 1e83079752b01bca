"""Settings: the value a step ran with, who chose it and why, what it is when nobody does, and what it was elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import Answer, Context, cite, clip, find, named, ordinary
from tunesmith.agent.queries.arguments import Query, Recorded, RunName, StageName
from tunesmith.agent.queries.steps import BEGUN
from tunesmith.memory.errors import BadInput, NotFound, TunesmithError
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import DONE, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.auto import AUTO, readable_default, readable_value
from tunesmith.tools.core.format import listed
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.run_step import price
from tunesmith.tools.pipeline.workspace import StepRequest

_MODELS = ("model", "revision")
"""Fields that the base, the teacher and the driver have each."""
BY_DEFAULT = "nobody chose another value: it is the default"


class SettingQuery(Query):
    """Settings by name, such as lora_rank or writer: the value, who chose it and why; the default; or whether a value
    is sensible, by the product's own rule."""

    kind: Literal["setting"] = "setting"
    fields: Annotated[tuple[Recorded, ...], Field(min_length=1, description="Names of settings")]
    about: Literal["value", "default", "sensible"] = "value"
    run: RunName = ""
    stage: StageName = ""
    value: Annotated[float | None, Field(description="For sensible: the value in question; null: the run's own")] = None
    role: Annotated[
        Literal["base", "teacher", "driver"], Field(description="For model and revision: which model's")
    ] = "base"


class SettingsQuery(Query):
    """All settings of a stage or a run: those used, the defaults of a stage, or those that the user changed by hand."""

    kind: Literal["settings"] = "settings"
    about: Literal["used", "defaults", "by_hand"] = "used"
    run: RunName = ""
    stage: StageName = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a step, or the default of a stage where `step` is empty."""

    field: str
    stage: str
    value: object
    default: object
    run: str = ""
    step: str = ""
    why: str = ""


def answer(query: SettingQuery, context: Context) -> Answer:
    """Each setting of the run that is meant, else of the newest that has it. Raises NotFound."""
    written = [one for one in context.store.newest_of_kind("release") if query.run in ("", one.run)]
    # the bits of a GGUF are others than those of the quantized model
    fields = dict.fromkeys((*query.fields, *["tensor_type"] * bool(written and "scheme" in query.fields)))
    answers = [_answer(query, field, context) for field in fields]
    most = max(1, 6 // len(answers)) if len(answers) > 1 else None  # six lines in all
    lines = tuple(line for one in answers for line in one.lines[:most])
    return Answer(lines, tuple(fact for one in answers for fact in one.data))


def _answer(query: SettingQuery, field: str, context: Context) -> Answer:
    runs = [find(context.store, query.run)] if query.run else context.runs()
    for run in runs:
        if steps := _having(context.store, run, field, query.stage, query.role):
            return _one(query, field, context, run, _that_counts(steps))
    stages = having(field)
    stages = (query.stage,) if query.stage in stages else stages
    if not stages:
        raise NotFound(f"There is no setting {clip(field, 40)}; `/help train` lists those of a stage.")
    stage = "train" if "train" in stages else stages[0]
    planned = _in_the_plan(context, stage, field)
    where = f"{runs[0].id} has no step with it" if query.run else "" if planned else "No step with it was asked for yet"
    usual = _default(stage, field)
    alone = "; ".join(part for part in (where, f"left alone, {field} is {usually(stage, field)} in {stage}.") if part)
    against = f"There is nothing yet to hold {_plain(query.value)} against: the rule needs a base and rows." \
        if query.about == "sensible" and query.value is not None else ""  # fmt: skip
    lines = (against, planned, f"{alone[0].upper()}{alone[1:]}", _meaning(stage, field))
    return Answer(tuple(line for line in lines if line), (Setting(field, stage, usual, usual),))


def _in_the_plan(context: Context, stage: str, field: str) -> str:
    """What the open plan gives a setting; empty where it gives it nothing."""
    steps = context.draft.steps if context.draft else ()
    values = [step.fields[field] for step in steps if step.stage == stage and field in step.fields]
    return f"In the plan that is proposed now {field} is {_plain(values[0])} in {stage}." if values else ""


def having(field: str) -> tuple[str, ...]:
    """The stages that have a setting, in their order."""
    return tuple(entry.name for entry in catalog.STAGES if field in entry.load().request.model_fields)


def value_in(store: Store, run: Run, field: str, stage: str = "") -> object:
    """A setting as a run used it; None where no step of it has one."""
    steps = _having(store, run, field, stage)
    return _value(_that_counts(steps), field) if steps else None


def _having(store: Store, run: Run, field: str, stage: str, role: str = "base") -> list[Step]:
    """The steps of a run that a setting is asked of."""
    all_ = [s for s in store.priced_steps(run.id) if field in s.request]
    steps = [s for s in all_ if stage in ("", s.stage)] or (all_ if field == "suites" else [])
    if field in _MODELS:
        steps = [s for s in steps if s.request.get("role", "base") == role] or steps
    if not stage:  # a field that several stages have is asked of the training
        steps = [s for s in steps if s.stage == "train"] or steps
    return steps


def _one(query: SettingQuery, field: str, context: Context, run: Run, step: Step) -> Answer:
    store = context.store
    value, default = _value(step, field), _default(step.stage, field)
    reason = why(store, run, step, field)
    ran = "" if step.status in BEGUN else " (proposed, never run)"
    lines = [f"{field} was {_plain(value)} in {step.stage} ({cite(step)}){ran}.", _resolved(store, step, field),
             f"Why: {reason}."]  # fmt: skip
    usual = f"{field} is {usually(step.stage, field)} in {step.stage}"
    if query.about == "default":
        lines.insert(0, f"Left alone, {usual}.")
    elif value != default:
        lines.append(f"Left alone it would have been {usually(step.stage, field)}.")
    if field == "writer" and (writer := next(iter(store.artifacts(run.id, str(value))[-1:]), None)):
        lines.insert(0, f"{clip(writer.meta.get('name', value), 80)} wrote them (the {value} of {run.id}).")
    if query.about == "sensible":
        lines.insert(0, _judged(context, run, step, field, query.value))
    lines += [_meaning(step.stage, field), _elsewhere(store, run, step, field)]
    lines.append(_in_the_plan(context, step.stage, field))
    fact = Setting(field, step.stage, value, default, run.id, step.id, reason)
    return Answer(tuple(line for line in lines if line), (fact,))


def _judged(context: Context, run: Run, step: Step, field: str, asked: float | None) -> str:
    """A value that was asked about, else the run's own, beside the one that the product's rule would choose now."""
    value = _value(step, field) if asked is None else asked
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    usual, reason = _default(step.stage, field), "the default"
    if usual == AUTO:  # chosen by a rule, from the model and the rows
        try:
            plan = price(context.ws, StepRequest(step.stage, {}, run.id))
        except TunesmithError as error:
            return f"Its rule cannot be asked now ({clip(error, 120)})."
        usual, reason = plan.request.get(field), clip(plan.reasons.get(field, "by the model and the rows"), 200)
    if not (isinstance(value, int | float) and isinstance(usual, int | float) and usual):
        return f"{field}: {_plain(value)}; the rule would choose {_plain(usual)} ({reason})."
    times = value / usual
    word = "about what" if 0.8 <= times <= 1.25 else f"{times:.2g} times what"  # a quarter more or less does not show
    return f"{_plain(value)} is {word} the rule would choose: {_plain(usual)} ({reason})."


def _meaning(stage: str, field: str) -> str:
    text = catalog.BY_NAME[stage].load().request.model_fields[field].description
    return f"What it is: {text}" if text else ""


def usually(stage: str, field: str) -> str:
    """The default in words: what `auto` stands for is told with it."""
    default, meaning = _default(stage, field), _meaning(stage, field)
    chosen = re.search(r"\bauto: ([^;.]+)", meaning)  # of our own description
    return f"chosen {chosen[1]}" if default == AUTO and chosen and chosen[1].startswith("by ") else _plain(default)


def _resolved(store: Store, step: Step, field: str) -> str:
    """What a model's name came to: its title, its size and where it is from."""
    model = next((a for a in store.artifacts(step.run) if a.step == step.id), None) if field in _MODELS else None
    if model is None or not model.meta.get("name"):
        return ""
    facts = [str(model.meta["name"])]
    if isinstance(parameters := model.meta.get("parameters"), int):
        facts.append(f"{parameters:,} parameters")
    if revision := model.meta.get("revision") or model.meta.get("commit"):
        facts.append(f"commit {revision}")
    return f"That is {', '.join([*facts, f'sha256 {model.sha256[:12]}'])}."


def _default(stage: str, field: str) -> object:
    return readable_default(catalog.BY_NAME[stage].load().request.model_fields[field])


def _value(step: Step, field: str) -> object:
    """A field as a step was asked for with it; `auto` where an older version wrote 0 for that."""
    known = catalog.ENTRIES[step.stage].load().request.model_fields
    return readable_value(known[field], step.request[field]) if field in known else step.request[field]


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(clip(str(one).rsplit("/runs/", 1)[-1], 160) for one in value) or "none"
    if isinstance(value, bool):  # True is an int, too: first
        return "on" if value else "off"
    return clip(value if value != "" else "empty (as usual)", 120)


def _elsewhere(store: Store, run: Run, step: Step, field: str) -> str:
    """The same setting in the same stage of other runs, in a line."""
    others = []
    for other in ordinary(store)[:6]:  # of the newest: older ones had other versions' rules
        steps = [s for s in store.steps(other.id) if field in s.request and s.stage == step.stage]
        if other.id != run.id and steps:
            others.append(f"{_plain(_value(_that_counts(steps), field))} in {other.id}")
    return f"Elsewhere: {listed(others, 4)}." if others else ""  # a line of them


def _that_counts(steps: Sequence[Step]) -> Step:
    """The newest step that is done, else that was begun, else that was proposed: what was used, as far as any was."""
    done = [step for step in steps if step.status == DONE]
    begun = [step for step in steps if step.status in BEGUN]
    return (done or begun or [*steps])[-1]


# All of a stage or a run


def all_settings(query: SettingsQuery, context: Context) -> Answer:
    """The settings of a stage, or of every stage of a run. Raises NotFound where no step has any."""
    if query.about == "defaults" and query.stage in catalog.BY_NAME:
        return _defaults(query.stage)
    run = context.run(query.run, with_stage=query.stage)
    known = {name: one for name, one in values(context.store, run).items() if query.stage in ("", one.stage)}
    if not known:
        raise NotFound(f"{run.id} has no finished {query.stage or 'step'} whose settings could be told.")
    rows = [[name, _plain(one.value)] for name, one in known.items()]
    if query.about == "by_hand":
        lines = _by_hand(context.store, run)
    elif query.stage:
        each = "; ".join(f"{one.field} {_plain(one.value)}" for one in known.values())
        # Names and values of one stage: ten lines at most.
        lines = [f"{query.stage} of {run.id} ran with: {clip(each, 600)}."]
    else:
        chosen = {name: one for name, one in known.items() if one.value != one.default}
        each = "; ".join(f"{name} {_plain(one.value)}" for name, one in chosen.items())
        lines = [f"{run.id} differs from the defaults in {len(chosen)} settings: {clip(each, 600)}."]
    return Answer(tuple(lines), tuple(known.values()), lambda: render.rows_table(["setting", run.id], rows, exact=True))


def _defaults(stage: str) -> Answer:
    """What the settings of a stage are where nobody says anything."""
    usual = {name: _default(stage, name) for name in catalog.BY_NAME[stage].load().settable}
    each = "; ".join(f"{name} {usually(stage, name)}" for name in usual)
    facts = tuple(Setting(name, stage, value, value) for name, value in usual.items())
    return Answer((f"Left alone, {stage} takes: {clip(each, 500)}.", f"`/help {stage}` lists every field."), facts)


def _by_hand(store: Store, run: Run) -> list[str]:
    """The settings that somebody chose, with what the records say of who it was."""
    reasons = {
        f"{step.stage}.{name} {_plain(value)}": why(store, run, step, name)
        for step in store.steps(run.id, status=DONE)
        for name in step.request
        if name not in ("run", "arm") and (value := _value(step, name)) != _default(step.stage, name)
    }
    mine = [name for name, reason in reasons.items() if reason.startswith("you set it")]
    planned = [name for name, reason in reasons.items() if "written in the plan" in reason]
    each = f": {listed(mine, 8)}" if mine else ""  # a line or two
    first = f"You changed {len(mine) or 'no'} setting{'' if len(mine) == 1 else 's'} of {run.id} by hand{each}."
    return [first, *([f"In its plan stand: {listed(planned, 10)}."] if planned else [])]  # a line or two


def values(store: Store, run: Run) -> dict[str, Setting]:
    """`stage.field` → its value in the newest finished step of each stage."""
    known: dict[str, Setting] = {}
    for step in store.steps(run.id, status=DONE):
        name = f"{step.stage} {step.arm}" if step.stage == "evaluate" else step.stage
        fields = catalog.ENTRIES[step.stage].load().request.model_fields
        known |= {
            f"{name}.{field}": Setting(
                field, step.stage, _value(step, field), _default(step.stage, field) if field in fields else None,
                run.id, step.id,
            )
            for field in step.request if field not in ("run", "arm", "on")
        }  # fmt: skip
    return known


def differing(store: Store, one: Run, two: Run) -> dict[str, tuple[str, str]]:
    """The settings in which two runs differ, with both values."""
    a, b = ({name: _plain(one.value) for name, one in values(store, run).items()} for run in (one, two))
    names = dict.fromkeys([*a, *b])
    return {name: (a.get(name, "–"), b.get(name, "–")) for name in names if a.get(name) != b.get(name)}


# Who chose it


def why(store: Store, run: Run, step: Step, name: str) -> str:
    """Who set a field, as far as the records say."""
    value = _value(step, name)
    if any(re.search(rf"\b{name}=", edit) for edit in _edits_before(store, step)):
        return f"you set it when {step.stage} was priced"
    if any(_as_read(step.stage, fields, name) == value for fields in _planned(run, step.stage, name)):
        return f"it is written in the plan of {named(run)}"
    if reason := as_object(step.plan.get("reasons") or {}).get(name):
        return f"nobody set it; it was chosen by the model and the rows: {clip(reason, 260)}"
    if value == _default(step.stage, name):
        return BY_DEFAULT
    if any(name in fields for fields in _planned(run, "train", name)) and step.stage == "preflight":
        return "a preflight tries what the training after it uses"
    return f"it was given when {step.stage} was asked for"


def _edits_before(store: Store, step: Step) -> list[str]:
    """The edits that led to a step: each declined the plan before it, and the next one of its stage took its place."""
    asked = "SELECT reason FROM approvals WHERE step = ? AND decided_by = 'edit'"
    same_stage = [other.id for other in store.priced_steps(step.run) if other.stage == step.stage]
    reasons: list[str] = []
    for before in reversed(same_stage[: same_stage.index(step.id)]):
        edits = [row["reason"] for row in store.read(asked, before)]
        if not edits:
            break
        reasons += edits
    return reasons


def _planned(run: Run, stage: str, name: str) -> list[dict[str, object]]:
    planned = [as_object(spec.get("fields", {})) for spec in run.planned if spec.get("stage") == stage]
    return [fields for fields in planned if name in fields]


def _as_read(stage: str, fields: Mapping[str, object], name: str) -> object:
    """A planned field as the stage's request reads it: a plan that was changed in words holds `8` as text."""
    from tunesmith.tools.pipeline.plan_file import parse_fields

    try:
        return parse_fields(stage, fields)[name]
    except BadInput:
        return fields[name]
