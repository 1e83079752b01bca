"""Settings: the value a step ran with, who set it, what it is where nobody does, and what it was in other runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from tunesmith.agent.queries.answer import Context, clip, find, ordinary
from tunesmith.agent.queries.facts import Fact, Query, Recorded, Result, RunName, StageName
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
BY_DEFAULT = "the default"
_NO_SETTINGS = ("run", "arm", "on")
_MOST_RUNS = 6
"""Others that a value is set beside: older ones had other versions' rules."""


class SettingQuery(Query):
    """Settings by name: value, default, meaning, who set it and why, value in other runs."""

    kind: Literal["setting"] = "setting"
    fields: Annotated[tuple[Recorded, ...], Field(min_length=1)]
    run: RunName = ""
    stage: StageName = ""
    value: Annotated[float | None, Field(description="To be judged by the rule")] = None
    role: Annotated[Literal["base", "teacher", "driver"], Field(description="Of model and revision")] = "base"


class SettingsQuery(Query):
    """Settings of a stage and who set them; else those of the run that are no default."""

    kind: Literal["settings"] = "settings"
    run: RunName = ""
    stage: StageName = ""


def answer(query: SettingQuery, context: Context) -> Result:
    """Each setting of the run that is meant, else of the newest that has one. Raises NotFound for an unknown name."""
    store = context.store
    stages = {field: _stage_with(field, query.stage) for field in query.fields}
    roles = {field: query.role for field in query.fields if field in _MODELS}
    # the bits of a GGUF are others than those of the quantized model
    names = dict.fromkeys([*query.fields, *["tensor_type"] * ("scheme" in query.fields)])
    # a driver is in a run aside
    runs = [find(store, query.run)] if query.run else store.runs() if "driver" in roles.values() else context.runs()
    run, steps = None, {}
    for run in runs:
        if steps := _counting(store, run, names, query.stage, roles):
            break
    if lacking := [role for field, role in roles.items() if role != "base" and field not in steps]:
        based = [step for one in runs for step in store.steps(one.id) if step.stage == "base"]
        there = listed([*dict.fromkeys(str(step.request.get("role", "base")) for step in based)]) or "none"
        raise NotFound(f"There is no {lacking[0]}{f' in {query.run}' if query.run else ''}; the models are: {there}.")
    facts: list[Fact] = [
        _used(context, run, steps[name], name) if run and name in steps else _left_alone(context, stages[name], name)
        for name in names if name in stages or name in steps
    ]  # fmt: skip
    of = {"run": run.id if run and steps else query.run}
    if query.value is not None:
        facts = [{**fact, **_judged(context, of["run"], fact, query.value)} for fact in facts]
    return Result(tuple(facts), of)


def all_settings(query: SettingsQuery, context: Context) -> Result:
    """The settings of a stage, else those of a run. Raises NotFound, naming the stages."""
    stage, store = query.stage, context.store
    if stage and stage not in catalog.BY_NAME:
        raise NotFound(f"There is no stage {clip(stage, 40)}; the stages are {listed([*catalog.BY_NAME])}.")
    run = context.run(query.run, with_stage=stage) if query.run or not stage or context.runs() else None
    every = values(store, run) if run else {}
    known = {name: (step, field) for name, (step, field) in every.items() if stage in ("", step.stage)}
    if not run or not known:
        names = catalog.BY_NAME[stage].load().settable if stage else ()
        usual = tuple({"setting": name, "default": usually(stage, name)} for name in names)
        return Result(usual, {"run": run.id if run else "", "stage": stage, "ran": False})
    steps = context.draft.steps if context.draft else ()
    planned = {f"{spec.stage}.{field}": value for spec in steps for field, value in spec.fields.items()}
    other = {name: of for name, of in known.items() if planned.get(name, _value(*of)) != _value(*of)}
    changed = {name: (s, field) for name, (s, field) in known.items() if _value(s, field) != _default(s.stage, field)}
    shown = {**other, **changed, **(known if stage else {})}
    facts: tuple[Fact, ...] = tuple(
        {"setting": name, "value": _readable(_value(step, field)), "default": usually(step.stage, field),
         **({"in_the_proposed_plan": planned.get(name)} if planned else {}),
         "set_by": set_by(store, run, step, field)[0]}
        for name, (step, field) in shown.items()
    )  # fmt: skip
    left = len(known) - len(shown)
    return Result(facts, {"run": run.id, "stage": stage}, left_out={"defaults": left} if left else {})


def values(store: Store, run: Run) -> dict[str, tuple[Step, str]]:
    """`stage.field` → the newest finished step of each stage, and the field."""
    named = {(f"{s.stage} {s.arm}" if s.stage == "evaluate" else s.stage): s for s in store.steps(run.id, status=DONE)}
    return {f"{name}.{field}": (step, field) for name, step in named.items() for field in step.request
            if field not in _NO_SETTINGS}  # fmt: skip


def differing(store: Store, one: Run, two: Run) -> dict[str, tuple[str, str]]:
    """The settings in which two runs differ, with both values; – where a run has none."""
    a, b = ({name: str(_readable(_value(*of))) for name, of in values(store, run).items()} for run in (one, two))
    names = dict.fromkeys([*a, *b])
    return {name: (a.get(name, "–"), b.get(name, "–")) for name in names if a.get(name) != b.get(name)}


def value_in(store: Store, run: Run, field: str, stage: str = "") -> object:
    """A setting as a run used it; None where no step of it has one."""
    steps = _counting(store, run, (field,), stage, {})
    return _value(steps[field], field) if steps else None


# One setting


def _used(context: Context, run: Run, step: Step, field: str) -> Fact:
    """A setting as a step had it, with who set it."""
    who, reason = set_by(context.store, run, step, field)
    return {
        "setting": field, "value": _readable(_value(step, field)), **_model(context.store, step, field),
        "stage": step.stage, "arm": step.arm, "step": step.id, "status": step.status, "set_by": who, "because": reason,
        **_usual(context, step.stage, field), "in_other_runs": _elsewhere(context.store, run, step, field),
    }  # fmt: skip


def _left_alone(context: Context, stage: str, field: str) -> Fact:
    """A setting that no step of the run has."""
    return {"setting": field, "stage": stage, "set_by": "nobody yet", **_usual(context, stage, field)}


def _usual(context: Context, stage: str, field: str) -> Fact:
    """What a setting is, what it is where nobody says anything, and what the open plan gives it."""
    steps = context.draft.steps if context.draft else ()
    planned = next((step.fields[field] for step in steps if step.stage == stage and field in step.fields), None)
    return {"default": usually(stage, field), "meaning": _meaning(stage, field), "in_the_proposed_plan": planned}


def _judged(context: Context, run: str, fact: Fact, asked: float) -> Fact:
    """A value beside the one that the product's rule would choose now, or what refuses that price."""
    stage, field = str(fact["stage"]), str(fact["setting"])
    rule, reason = _default(stage, field), BY_DEFAULT
    if rule == AUTO:
        try:
            plan = price(context.ws, StepRequest(stage, {}, run))
        except TunesmithError as error:
            return {"asked_about": asked, "rule": str(error)}
        rule, reason = plan.request.get(field), plan.reasons.get(field, "")
    known = {"asked_about": asked, "rule_chooses": rule, "rule": reason}
    number = isinstance(rule, int | float) and not isinstance(rule, bool) and rule
    return {**known, "times_the_rule": asked / rule} if number else known  # type: ignore[operator]


def _stage_with(field: str, stage: str) -> str:
    """The stage that a setting is asked of: the one that is named, else training, else the first that has it.

    Raises NotFound, naming the nearest settings or the stages that have it.
    """
    every = {entry.name: entry.load().request.model_fields for entry in catalog.STAGES}
    stages = [name for name, fields in every.items() if field in fields]
    if not stages:
        near = difflib.get_close_matches(field, {name for fields in every.values() for name in fields}, 3)
        like = f"the nearest are {listed(near)}" if near else "`/help train` lists those of a stage"
        raise NotFound(f"There is no setting {clip(field, 40)}; {like}.")
    if stage and stage not in stages:
        raise NotFound(f"{clip(stage, 40)} has no setting {field}; these stages have it: {listed(stages)}.")
    return stage or ("train" if "train" in stages else stages[0])


def _counting(store: Store, run: Run, fields: Iterable[str], stage: str, roles: Mapping[str, str]) -> dict[str, Step]:
    """Field → the step of a run that it is asked of: where no stage is named and a training has it, of trainings the
    newest that is done, else that was begun, else that was proposed."""
    counting = {}
    for field in fields:
        steps = [step for step in store.priced_steps(run.id) if field in step.request and stage in ("", step.stage)]
        if field in _MODELS:
            steps = [step for step in steps if step.request.get("role", "base") == roles.get(field, "base")]
        steps = steps if stage else [step for step in steps if step.stage == "train"] or steps
        if steps:
            counting[field] = max(reversed(steps), key=_how_far)
    return counting


def _how_far(step: Step) -> tuple[bool, bool]:
    return step.status == DONE, step.started_at is not None


def _model(store: Store, step: Step, field: str) -> Fact:
    """What the name of a model or a writer came to."""
    if field == "writer":
        made = store.artifacts(step.run, str(_value(step, field)))
    else:
        made = [one for one in store.artifacts(step.run) if one.step == step.id and field in _MODELS]
    known = ("name", "parameters", "license", "revision")
    return {f"model_{name}": one.meta.get(name) for one in made[-1:] for name in known}


def _elsewhere(store: Store, run: Run, step: Step, field: str) -> Mapping[str, object]:
    """Run → the same setting in the same stage there."""
    others = [other for other in ordinary(store)[:_MOST_RUNS] if other.id != run.id]
    having = {other.id: value_in(store, other, field, step.stage) for other in others}
    return {other: _readable(value) for other, value in having.items() if value is not None}


def usually(stage: str, field: str) -> str:
    """The default as people read it: what `auto` stands for is told with it."""
    default = _default(stage, field)
    chosen = re.search(r"\bauto: (by [^;.]+)", _meaning(stage, field)) if default == AUTO else None  # our own words
    return f"chosen {chosen[1]}" if chosen else "" if default is None else str(_readable(default))


def _info(stage: str, field: str) -> FieldInfo | None:
    """The declaration of a field; None for one that a stage had in an older version."""
    return catalog.ENTRIES[stage].load().request.model_fields.get(field)


def _meaning(stage: str, field: str) -> str:
    info = _info(stage, field)
    return (info.description if info else "") or ""


def _default(stage: str, field: str) -> object:
    info = _info(stage, field)
    return readable_default(info) if info else None


def _value(step: Step, field: str) -> object:
    """A field as a step was asked for with it; `auto` where an older version wrote 0 for that."""
    info = _info(step.stage, field)
    return readable_value(info, step.request[field]) if info else step.request[field]


def _readable(value: object) -> object:
    """A value that a fact can hold: one that is empty says so."""
    if isinstance(value, list | tuple):
        return ", ".join(str(one).rsplit("/runs/", 1)[-1] for one in value) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "empty" if value == "" else value


# Who set it


def set_by(store: Store, run: Run, step: Step, name: str) -> tuple[str, str]:
    """Who set a field, as far as the records say, and the rule's reason where one chose it."""
    value = _value(step, name)
    if any(re.search(rf"\b{name}=", edit) for edit in _edits_before(store, step)):
        return "the user, at the price", ""
    if any(_as_read(step.stage, fields, name) == value for fields in _planned(run, step.stage, name)):
        return "the plan of the run", ""
    if reason := as_object(step.plan.get("reasons") or {}).get(name):
        return "a rule, by the model and the rows", str(reason)
    if value == _default(step.stage, name):
        return BY_DEFAULT, ""
    if step.stage == "preflight" and any(name in fields for fields in _planned(run, "train", name)):
        return "the plan of the training after it", ""
    return "whoever asked for the step", ""


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
