"""Settings: the value a step ran with, who set it, what it is where nobody does, and what it was in other runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries.answer import Context, clip, find, ordinary
from tunesmith.agent.queries.arguments import Query, Recorded, RunName, StageName
from tunesmith.agent.queries.facts import Fact, Result
from tunesmith.agent.queries.steps import BEGUN
from tunesmith.memory.errors import BadInput, NotFound, TunesmithError
from tunesmith.memory.json_values import as_object, picked
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
    """Settings by name, such as lora_rank or writer: value, default, meaning, who set it and why, and its value in
    other runs; with a value, also what the product's own rule would choose."""

    kind: Literal["setting"] = "setting"
    fields: Annotated[tuple[Recorded, ...], Field(min_length=1, description="Names of settings")]
    run: RunName = ""
    stage: StageName = ""
    value: Annotated[float | None, Field(description="A value to be judged by the rule")] = None
    role: Annotated[
        Literal["base", "teacher", "driver"], Field(description="For model and revision: which model's")
    ] = "base"


class SettingsQuery(Query):
    """All settings of a stage with their defaults and who set them; without a stage those of the run that differ from
    their defaults."""

    kind: Literal["settings"] = "settings"
    run: RunName = ""
    stage: StageName = ""


def answer(query: SettingQuery, context: Context) -> Result:
    """Each setting of the run that is meant, else of the newest that has one. Raises NotFound for an unknown name."""
    store, roles = context.store, {field: query.role for field in query.fields if field in _MODELS}
    for field in query.fields:
        _stages_with(field, query.stage)
    # the bits of a GGUF are others than those of the quantized model
    names = dict.fromkeys([*query.fields, *["tensor_type"] * ("scheme" in query.fields)])
    # a driver is in a run aside
    runs = [find(store, query.run)] if query.run else store.runs() if "driver" in roles.values() else context.runs()
    asked = (
        (run, {field: _having(store, run, field, query.stage, roles.get(field, "")) for field in names}) for run in runs
    )
    run, steps = next((one for one in asked if any(one[1].values())), (None, {}))
    if any(role != "base" and not steps.get(field) for field, role in roles.items()):
        raise NotFound(_no_model(store, runs, query))
    facts = [
        _used(context, run, _that_counts(steps[field]), field) if run and steps.get(field) else
        _left_alone(context, field, query.stage)
        for field in names if field in query.fields or steps.get(field)
    ]  # fmt: skip
    of = {"run": run.id if run else query.run}
    if query.value is None:
        return Result(tuple(facts), of)
    judged = [_judged(context, of["run"], fact, query.value) for fact in facts]
    return Result(tuple(fact for fact, _ in judged), of, says=tuple(said for _, said in judged if said))


def all_settings(query: SettingsQuery, context: Context) -> Result:
    """The settings of a stage, else those of a run. Raises NotFound, naming the stages."""
    if query.stage and query.stage not in catalog.BY_NAME:
        raise NotFound(f"There is no stage {clip(query.stage, 40)}; the stages are {listed([*catalog.BY_NAME])}.")
    store, stage = context.store, query.stage
    run = context.run(query.run, with_stage=stage) if query.run or context.runs() else None
    known = {name: one for name, one in values(store, run).items() if stage in ("", one["stage"])} if run else {}
    if run is None or not known:
        return _defaults(run, stage)
    chosen = [name for name, one in known.items() if one["value"] != one["default"]]
    shown = [*chosen, *(name for name in known if name not in chosen)] if stage else chosen
    facts = [
        {"setting": name, "value": _readable(one["value"]), "default": one["default_means"],
         "set_by": set_by(store, run, store.step(str(one["step"])), str(one["field"]))[0]}
        for name in shown for one in [known[name]]
    ]  # fmt: skip
    left = len(known) - len(shown)
    return Result(tuple(facts), {"run": run.id, "stage": stage}, left_out={"defaults": left} if left else {})


def _defaults(run: Run | None, stage: str) -> Result:
    """What the settings of a stage are where nobody says anything. Raises NotFound where none is named."""
    if not stage:
        of = f"{run.id} has" if run else "No run has"
        raise NotFound(f"{of} {'no' if run else 'a'} finished step; name a stage, such as train, for its defaults.")
    names = catalog.BY_NAME[stage].load().settable
    facts = tuple({"setting": name, "default": usually(stage, name)} for name in names)
    return Result(facts, {"run": run.id if run else "", "stage": stage, "ran": False})


def values(store: Store, run: Run) -> dict[str, Fact]:
    """`stage.field` → field, stage, step, value and default, of the newest finished step of each stage."""
    known: dict[str, Fact] = {}
    for step in store.steps(run.id, status=DONE):
        name = f"{step.stage} {step.arm}" if step.stage == "evaluate" else step.stage
        fields = [field for field in step.request if field not in _NO_SETTINGS]
        known |= {f"{name}.{field}": _valued(step, field) for field in fields}
    return known


def _valued(step: Step, field: str) -> Fact:
    fact = {"field": field, "stage": step.stage, "step": step.id, "value": _value(step, field)}
    if field not in catalog.ENTRIES[step.stage].load().request.model_fields:
        return {**fact, "default": None, "default_means": ""}
    return {**fact, "default": _default(step.stage, field), "default_means": usually(step.stage, field)}


def differing(store: Store, one: Run, two: Run) -> dict[str, tuple[str, str]]:
    """The settings in which two runs differ, with both values; – where a run has none."""
    a, b = ({name: str(_readable(one["value"])) for name, one in values(store, run).items()} for run in (one, two))
    names = dict.fromkeys([*a, *b])
    return {name: (a.get(name, "–"), b.get(name, "–")) for name in names if a.get(name) != b.get(name)}


def value_in(store: Store, run: Run, field: str, stage: str = "") -> object:
    """A setting as a run used it; None where no step of it has one."""
    steps = _having(store, run, field, stage)
    return _value(_that_counts(steps), field) if steps else None


# One setting


def _used(context: Context, run: Run, step: Step, field: str) -> Fact:
    """A setting as a step had it, with who set it."""
    store = context.store
    who, reason = set_by(store, run, step, field)
    return {
        "setting": field, "value": _readable(_value(step, field)), **_model(store, step, field),
        "stage": step.stage, "arm": step.arm, "step": step.id,
        "never_ran": step.status not in BEGUN or None, "set_by": who, "because": reason,
        "default": usually(step.stage, field), "meaning": _meaning(step.stage, field),
        "in_the_proposed_plan": _in_the_plan(context, step.stage, field),
        "in_other_runs": _elsewhere(store, run, step, field),
    }  # fmt: skip


def _left_alone(context: Context, field: str, stage: str) -> Fact:
    """A setting that no step of the run has: what it is where nobody says anything."""
    stages = _stages_with(field, stage)
    of = "train" if "train" in stages else stages[0]
    planned = _in_the_plan(context, of, field)
    return {
        "setting": field, "stage": of, "set_by": "nobody yet", "default": usually(of, field),
        "meaning": _meaning(of, field), "in_the_proposed_plan": planned,
    }  # fmt: skip


def _judged(context: Context, run: str, fact: Fact, asked: float) -> tuple[Fact, str]:
    """A value beside the one that the product's rule would choose now; what refuses that price, if something does."""
    stage, field = str(fact["stage"]), str(fact["setting"])
    rule, reason = _default(stage, field), BY_DEFAULT
    if rule == AUTO:
        try:
            plan = price(context.ws, StepRequest(stage, {}, run))
        except TunesmithError as error:
            return {**fact, "asked_about": asked}, str(error)
        rule, reason = plan.request.get(field), plan.reasons.get(field, "")
    number = isinstance(rule, int | float) and not isinstance(rule, bool) and rule
    times = {"times_the_rule": asked / rule} if number else {}  # type: ignore[operator]
    return {**fact, "asked_about": asked, "rule_chooses": rule, "rule": reason, **times}, ""


def _stages_with(field: str, stage: str) -> tuple[str, ...]:
    """The stages that have a setting, in their order, or the one that is named. Raises NotFound where it is none."""
    every = {entry.name: entry.load().request.model_fields for entry in catalog.STAGES}
    stages = tuple(name for name, fields in every.items() if field in fields)
    if not stages:
        near = difflib.get_close_matches(field, {name for fields in every.values() for name in fields}, 3)
        like = f"; the nearest are {listed(near)}" if near else "; `/help train` lists those of a stage"
        raise NotFound(f"There is no setting {clip(field, 40)}{like}.")
    if stage and stage not in stages:
        raise NotFound(f"{clip(stage, 40)} has no setting {field}; these stages have it: {listed([*stages])}.")
    return (stage,) if stage else stages


def _no_model(store: Store, runs: Sequence[Run], query: SettingQuery) -> str:
    """That no model has a role, with the roles that there are."""
    based = [step for run in runs for step in store.steps(run.id) if step.stage == "base"]
    there = listed([*dict.fromkeys(str(step.request.get("role", "base")) for step in based)]) or "none"
    return f"{query.run or 'No run'} has {'no' if query.run else 'a'} {query.role}; the models there are: {there}."


def _having(store: Store, run: Run, field: str, stage: str, role: str = "base") -> list[Step]:
    """The steps of a run that a setting is asked of; where no stage is named and a training has it, the trainings."""
    steps = [step for step in store.priced_steps(run.id) if field in step.request and stage in ("", step.stage)]
    if field in _MODELS:
        steps = [step for step in steps if step.request.get("role", "base") == role]
    return steps if stage else [step for step in steps if step.stage == "train"] or steps


def _that_counts(steps: Sequence[Step]) -> Step:
    """The newest step that is done, else that was begun, else that was proposed: what was used, as far as any was."""
    done = [step for step in steps if step.status == DONE]
    begun = [step for step in steps if step.status in BEGUN]
    return (done or begun or [*steps])[-1]


def _in_the_plan(context: Context, stage: str, field: str) -> object:
    """What the open plan gives a setting; None where it gives it nothing."""
    steps = context.draft.steps if context.draft else ()
    return next((step.fields[field] for step in steps if step.stage == stage and field in step.fields), None)


def _model(store: Store, step: Step, field: str) -> Fact:
    """What the name of a model or a writer came to."""
    if field == "writer":
        writers = store.artifacts(step.run, str(_value(step, field)))[-1:]
        return {"model_name": writers[0].meta.get("name")} if writers else {}
    made = next((a for a in store.artifacts(step.run) if a.step == step.id), None) if field in _MODELS else None
    if made is None:
        return {}
    known = {f"model_{name}": made.meta.get(name) for name in ("name", "parameters", "license")}
    return {**known, "commit": made.meta.get("revision") or made.meta.get("commit"), **picked(made, "sha256")}


def _elsewhere(store: Store, run: Run, step: Step, field: str) -> Mapping[str, object]:
    """Run → the same setting in the same stage there."""
    having = {other.id: [s for s in store.steps(other.id) if field in s.request and s.stage == step.stage]
              for other in ordinary(store)[:_MOST_RUNS] if other.id != run.id}  # fmt: skip
    return {other: _readable(_value(_that_counts(steps), field)) for other, steps in having.items() if steps}


def _meaning(stage: str, field: str) -> str:
    return catalog.BY_NAME[stage].load().request.model_fields[field].description or ""


def usually(stage: str, field: str) -> str:
    """The default as people read it: what `auto` stands for is told with it."""
    default, meaning = _default(stage, field), _meaning(stage, field)
    chosen = re.search(r"\bauto: (by [^;.]+)", meaning) if default == AUTO else None  # of our own description
    return f"chosen {chosen[1]}" if chosen else str(_readable(default))


def _default(stage: str, field: str) -> object:
    return readable_default(catalog.BY_NAME[stage].load().request.model_fields[field])


def _value(step: Step, field: str) -> object:
    """A field as a step was asked for with it; `auto` where an older version wrote 0 for that."""
    known = catalog.ENTRIES[step.stage].load().request.model_fields
    return readable_value(known[field], step.request[field]) if field in known else step.request[field]


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
