"""Typed changes of a plan's steps: a base, a field, a step more or less, rows of a file.

Each returns the changed steps, and raises BadInput for what the plan cannot take, with what it has instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.field_names import ours
from tunesmith.tools.core.format import listed
from tunesmith.tools.core.stage import Stage
from tunesmith.tools.core.wrong_values import unknown
from tunesmith.tools.data.held_out import blind_count
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.model_names import hub_name
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import StepSpec, parse_fields

_NOT_SET = ("role", "rollback", "fresh")
"""Fields that say which step it is, or that only a step by itself takes."""
Steps = tuple[StepSpec, ...]
Check = Callable[[Mapping[str, object], Stage[Any, Any]], None]
"""Raises BadInput for values that nobody may give."""
Read = Callable[[type[BaseModel]], Mapping[str, object]]


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


def with_setting(steps: Steps, name: str, read: Read, check: Check) -> Steps:
    """The steps with a field set: in the stage that is named, else in the first that means it, else wherever it is.

    `read` gives the field as a request of the stage reads it.
    """
    stage, _, field = name.rpartition(".")
    planned = list(dict.fromkeys(spec.stage for spec in steps))
    if stage and stage not in planned:
        raise _lacking(steps, stage)
    known = {one: catalog.BY_NAME[one].load() for one in ([stage] if stage else planned)}
    fields = {one: declared.request.model_fields for one, declared in known.items()}
    having = [one for one in known if ours(field, fields[one]) in fields[one]]
    if not having:
        raise BadInput(unknown(repr(field[:60]), field, list(dict.fromkeys(n for of in fields.values() for n in of))))
    alone = [one for one in having if ours(field, fields[one]) in known[one].meant_by]
    for one in alone[:1] or having:
        steps = with_fields(steps, one, read(known[one].request), check)
    return steps


def with_fields(steps: Steps, stage: str, given: Mapping[str, object], check: Check) -> Steps:
    """Fields of a stage set; of its several tasks the usual one is meant."""
    declared = catalog.BY_NAME[stage].load()
    tasks, apart = [spec for spec in steps if spec.stage == stage], {*declared.identified_by}
    if not tasks:
        raise _lacking(steps, stage)
    typed = parse_fields(stage, given)
    check(typed, declared)
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
