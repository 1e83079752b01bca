"""Typed changes of a plan's steps: a base, a field, a step more or less, rows of a file.

Each returns the changed steps, and raises BadInput for what the plan cannot take, with what it has instead.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DONE
from tunesmith.tools.core import field_names
from tunesmith.tools.core.field_names import ours
from tunesmith.tools.core.format import listed
from tunesmith.tools.core.local_paths import expanded
from tunesmith.tools.core.wrong_values import unknown
from tunesmith.tools.data.held_out import blind_count
from tunesmith.tools.export.deploying import DEPLOYS
from tunesmith.tools.imports.import_rows import is_on_hub
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.model_names import hub_name
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.base_choice import with_arm_of_base
from tunesmith.tools.pipeline.behaviour_plan import Quantizing, deploying
from tunesmith.tools.pipeline.known_cases import refuse_cases
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec, check_pipeline, parse_fields, settled
from tunesmith.tools.pipeline.workspace import Workspace

_NOT_SET = ("role", "rollback", "fresh")
"""Fields that say which step it is, or that only a step by itself takes."""
Steps = tuple[StepSpec, ...]
Check = Callable[[Mapping[str, object], type[BaseModel] | None], None]
"""Raises BadInput for a value of a request that nobody may give, such as a file that its user did not name."""


def task_of(spec: StepSpec) -> str:
    """A step by its stage and, of a stage with several tasks, which: `evaluate merged`."""
    declared = catalog.BY_NAME[spec.stage].load()
    request = declared.request.model_fields
    values = [spec.fields.get(name, request[name].default) for name in declared.identified_by]
    return " ".join((spec.stage, *(value for value in values if isinstance(value, str) and value)))


def model_named(asked: str) -> str:
    """A model as a request names it: OWNER/NAME, a folder, a bundled one also by its own name. Raises BadInput."""
    if asked.startswith(("/", "~", ".")):
        if not (config := Path(asked).expanduser() / "config.json").is_file():
            raise BadInput(f"{config.parent} is no model folder: it has no config.json; name the folder that holds it")
        return str(config.parent)
    if "/" in asked or asked in BUNDLED:
        return asked.removeprefix("hub:")
    words = "-".join(asked.lower().removesuffix("instruct").split()).rstrip("-")
    exact = [name for name, one in BUNDLED.items() if words == one.name.removesuffix("-instruct")]
    family = [name for name, one in BUNDLED.items() if words == one.name.partition("-")[0]]
    if exact or len({BUNDLED[name].name for name in family}) == 1:  # a family of several is no choice of one
        return (exact or family)[0]
    if published := hub_name(asked):
        return published
    raise BadInput(
        f"“{asked}” is no model that can be had: name it as the hub does, OWNER/NAME, or a folder, or “bundled”"
    )


def with_base(steps: Steps, model: str) -> Steps:
    """The steps with another base."""
    bases = [spec for spec in steps if spec.stage == "base" and "role" not in spec.fields]
    if not bases:
        raise BadInput("the plan has no step base")
    return tuple(spec.model_copy(update={"fields": {"model": model}}) if spec in bases else spec for spec in steps)


def without_stage(steps: Steps, stage: str) -> Steps:
    """The steps without a stage; each other one says what is left of it once nothing makes what that one made."""
    kind, left = catalog.BY_NAME[stage].makes, []
    for spec in steps:
        fields = catalog.BY_NAME[spec.stage].load().without(spec.fields, kind)
        if spec.stage != stage and fields is not None:
            left.append(spec.model_copy(update={"fields": dict(fields)}))
    return tuple(left)


def without(steps: Steps, task: str) -> Steps:
    """The steps without a stage, or without that one of its several tasks which is named."""
    stage, _, which = task.partition(" ")
    tasks = {task_of(spec): spec for spec in steps if spec.stage == stage}
    if not tasks:
        raise _lacking(steps, task)
    if len(tasks) == 1 and (not which or task in tasks):
        return without_stage(steps, stage)
    if task not in tasks:
        raise BadInput(f"which step {stage} is left out: {' or '.join(tasks)}?")
    return tuple(spec for spec in steps if spec is not tasks[task])


def with_step(steps: Steps, task: str) -> Steps:
    """The steps with one more at its place in the chain, given what the last of its kind was given."""
    stage, _, arm = task.partition(" ")
    if stage not in catalog.BY_NAME:
        near = difflib.get_close_matches(stage, catalog.BY_NAME, 1) or [*catalog.BY_NAME]
        raise BadInput(f"no stage {stage[:60]!r}; there is {listed(near, 13)}")
    declared = catalog.BY_NAME[stage].load()
    like = next((spec.fields for spec in reversed(steps) if spec.stage == stage), {})
    fields = {name: value for name, value in like.items() if name not in declared.identified_by}
    spec = StepSpec(stage=stage, fields=parse_fields(stage, {**fields, **({"arm": arm} if arm else {})}))
    if task_of(spec) in map(task_of, steps):
        raise BadInput(f"the plan has {task_of(spec)} already")
    at = _place(spec, steps)
    return (*steps[:at], spec, *steps[at:])


def _place(spec: StepSpec, steps: Steps) -> int:
    """Where a step goes: a measurement behind what it measures, any other before the first that the chain has later."""
    order = [*catalog.BY_NAME]
    measures = {name: entry.load().measures for name, entry in catalog.BY_NAME.items()}
    makers = [at for at, one in enumerate(steps) if catalog.BY_NAME[one.stage].makes == spec.fields.get("arm")]
    if measures[spec.stage] and makers:
        return makers[-1] + 1
    behind = (
        at for at, one in enumerate(steps)
        if order.index(one.stage) > order.index(spec.stage) and not measures[one.stage]
    )  # fmt: skip
    return next(behind, len(steps))


def with_setting(steps: Steps, name: str, value: str, check: Check) -> Steps:
    """The steps with a field set: in the stage that is named, else in the first that means it, else wherever it is."""
    stage, _, plain = name.rpartition(".")
    planned = list(dict.fromkeys(spec.stage for spec in steps))
    if stage and stage not in planned:
        raise _lacking(steps, stage)
    known = {one: catalog.BY_NAME[one].load() for one in ([stage] if stage else planned)}
    fields = {one: declared.request.model_fields for one, declared in known.items()}
    having = [one for one in known if ours(plain, fields[one]) in fields[one]]
    if not having:
        names = list(dict.fromkeys(name for of in fields.values() for name in of))
        near = difflib.get_close_matches(plain, names, 1) or field_names.nearly(plain, names) or stage
        where = f"no step of the plan has one; write STAGE.FIELD, of {', '.join(planned)}"
        raise BadInput(unknown(repr(plain[:60]), plain, names) if near else f"unknown field {plain[:60]!r}; {where}")
    alone = [one for one in having if ours(plain, fields[one]) in known[one].meant_by]
    for one in alone[:1] or having:
        steps = with_fields(steps, one, {plain: _listed(fields[one][ours(plain, fields[one])], value)}, check)
    return steps


def _listed(info: FieldInfo, value: str) -> object:
    """A value as a request reads it: of a list its items."""
    return value.split(",") if get_origin(info.annotation) in (tuple, list) else value


def with_fields(steps: Steps, stage: str, given: Mapping[str, object], check: Check) -> Steps:
    """Fields of a stage set; of its several tasks the usual one is meant."""
    declared = catalog.BY_NAME[stage].load()
    tasks, apart = [spec for spec in steps if spec.stage == stage], {*declared.identified_by}
    if not tasks:
        raise _lacking(steps, stage)
    typed = parse_fields(stage, given)
    check(typed, declared.request)
    if {*typed} & {*_NOT_SET} or ({*typed} & apart and len(tasks) > 1):
        raise BadInput(f"{listed([*typed], 4)} says which step {stage} it is; leave one out, or add one")
    if not {*typed} & apart:
        tasks = [spec for spec in tasks if not apart & {*spec.fields}] or tasks
    return tuple(
        spec.model_copy(update={"fields": {**declared.carried_over(spec.fields, typed), **typed}})
        if spec in tasks else spec
        for spec in steps
    )  # fmt: skip


def with_rows_of(steps: Steps, file: str, rows: int) -> Steps:
    """The steps with the rows of a file in the place of those that would be written, and blind cases of so many."""
    writing = next((spec for spec in steps if spec.stage == "generate"), None)
    if writing is None:
        raise BadInput("the plan has no step that writes rows, in whose place it could take those")
    fields = {"source": file, **{name: writing.fields[name] for name in ("behaviour",) if name in writing.fields}}
    new, after = StepSpec(stage="import", fields=parse_fields("import", fields)), list[StepSpec]()
    for spec in (one for one in steps if one.stage != "import"):
        changed: dict[str, object] = {"rows": 0, "held_out": 0} if spec is writing else {}
        if spec.stage == "critique" and spec.fields.get("held_out"):
            changed = {"held_out": min(int(str(spec.fields["held_out"])), blind_count(rows))}
        after += [new] * (spec is writing)
        after.append(spec.model_copy(update={"fields": {**spec.fields, **changed}}))
    return tuple(after)


def _lacking(steps: Steps, task: str) -> BadInput:
    return BadInput(
        f"the plan has no step {task[:60]!r}; its steps are {', '.join(dict.fromkeys(map(task_of, steps)))}"
    )


# By their names


class Changes(BaseModel):
    """What a plan can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(default="", description="As the user named it.")
    rows: int | None = None
    rows_from: str = Field(default="", description="Run or file that they come from.")
    quantize: Quantizing | None = None
    card: str = Field(default="", description="Price it also for: 4090, 24 GB, 2x24.")
    max_hours: float | None = None
    max_disk_gib: float | None = None
    leave_out: tuple[str, ...] = Field(default=(), description="quantize, `evaluate merged` …")
    add: tuple[str, ...] = ()
    settings: str = Field(default="", description="train.lora_rank=8 epochs=2")
    settings_from_run: str = Field(default="", description="Train as this run did.")


@dataclass(slots=True)
class Edited:
    """A plan as its arguments made it."""

    plan: PipelinePlan
    taken: dict[str, object] = field(default_factory=dict)
    """Argument → what was taken of it."""
    not_taken: dict[str, str] = field(default_factory=dict)
    """Argument → why it changed nothing, or which part of it did not."""


@dataclass(frozen=True, slots=True)
class Around:
    """What changes of a plan rest on."""

    ws: Workspace
    check: Check
    kept_rows: Callable[[str], str]
    """Writes the rows that a run kept into a file, and returns its path."""
    say: Callable[[str], None]
    """Is told what was looked up."""


def edited_plan(around: Around, edited: Edited, changes: Changes) -> Edited:
    """The plan with every change that it can take; a hub model at its commit."""
    for name, change in _CHANGES.items():
        value = getattr(changes, name)
        if value is None or value in ("", ()):
            continue
        items = value if isinstance(value, tuple) else settings_in(value) if name == "settings" else (value,)
        if name == "leave_out":  # a task by itself, before the stage that takes it along
            items = sorted(items, key=lambda task: " " not in str(task))
        if len(items) > 1 and not _refusal(around, edited, name, change, items):
            continue  # which may only be possible together
        why = {str(item): _refusal(around, edited, name, change, (item,)) for item in items}
        if refused := [f"{item}: {reason}" if len(items) > 1 else reason for item, reason in why.items() if reason]:
            edited.not_taken[name] = "; ".join(refused)
    return edited


def settings_in(settings: str) -> Sequence[str]:
    """The words `STAGE.FIELD=VALUE` of some settings."""
    try:
        return shlex.split(settings)
    except ValueError:  # an open quote: its field says what is wrong
        return settings.split()


_Change = Callable[[Around, Steps, str], Steps]


def _refusal(around: Around, edited: Edited, name: str, change: _Change, items: Sequence[object]) -> str:
    """Take items of an argument, all or none; why they cannot be taken, empty where they are."""
    plan, steps = edited.plan, edited.plan.steps
    try:
        for item in items:
            steps = change(around, steps, str(item))
        after = settled(plan.with_steps(steps), around.say)
        if _models(after) != _models(plan):
            after = with_arm_of_base(around.ws, after)
        check_pipeline(after, have=())
    except BadInput as error:
        return str(error)
    if _deployed(after) != _deployed(plan) and not after.arm_by_base:
        after = after.model_copy(update={"reasons": tuple(one for one in after.reasons if not one.startswith(DEPLOYS))})
    edited.plan = after
    edited.taken[name] = " ".join(filter(None, (str(edited.taken.get(name, "")), *map(str, items))))
    return ""


def _models(plan: PipelinePlan) -> list[object]:
    return [spec.fields["model"] for spec in plan.steps if "model" in spec.fields]


def _deployed(plan: PipelinePlan) -> list[object]:
    return [spec.fields.get("arm") for spec in plan.steps if spec.stage == "deploy"]


def _quantized(around: Around, steps: Steps, said: str) -> Steps:
    if said == "yes":
        return deploying(steps, "quantized")
    quantizing = catalog.maker_of("quantized")
    return without_stage(deploying(steps, "adapter"), quantizing) if said == "no" else steps


def _with_setting(around: Around, steps: Steps, word: str) -> Steps:
    name, equals, value = word.partition("=")
    if not equals:
        raise BadInput(f"{name[:60]} has no value; write {name[:60]}=VALUE")
    return with_setting(steps, name, value, around.check)


def _with_settings_of(around: Around, steps: Steps, run: str) -> Steps:
    store = around.ws.store
    trained = [step for step in store.steps(store.run(run).id, status=DONE) if step.stage == "train"]
    if not trained:
        raise BadInput(f"{run} has no finished training whose settings could be taken")
    had, names = trained[-1].request, catalog.BY_NAME["train"].load().settable
    return with_fields(steps, "train", {name: had[name] for name in names if name in had}, around.check)


def _with_rows_from(around: Around, steps: Steps, named: str) -> Steps:
    """Rows of a run, or of a file; a test case among them is refused."""
    run = next((run for run in around.ws.store.runs() if named in (run.id, run.name)), None)
    if run is None:
        around.check({"source": named}, None)
    file = around.kept_rows(run.id) if run else named if is_on_hub(named) else str(expanded(named).absolute())
    return with_rows_of(steps, file, refuse_cases(around.ws.store, file))


def base_named(asked: str, check: Check) -> str:
    """A base that somebody may name, as a request names it. Raises BadInput."""
    check({"model": asked}, None)
    return model_named(asked)


_CHANGES: Mapping[str, _Change] = {
    "base": lambda around, steps, named: with_base(steps, base_named(named, around.check)),
    "quantize": _quantized,
    "leave_out": lambda around, steps, task: without(steps, task),
    "add": lambda around, steps, task: with_step(steps, task),
    "rows": lambda around, steps, rows: with_fields(steps, "generate", {"rows": rows}, around.check),
    "rows_from": _with_rows_from,
    "settings_from_run": _with_settings_of,
    "settings": _with_setting,
}
"""Argument → what it does to the steps, in the order in which they are taken."""
