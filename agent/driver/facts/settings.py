"""Settings: the value a step ran with, who chose it and why, what it is when nobody does, and what it was elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts.answer import Answer, Question, cite, clip, find, listed, ordinary
from tunesmith.agent.driver.facts.prices import priced
from tunesmith.agent.driver.understanding.fields import known_fields
from tunesmith.agent.driver.understanding.values import numbers_in, values_named
from tunesmith.memory.errors import BadInput, NotFound, TunesmithError
from tunesmith.memory.records import DONE, FAILED, RUNNING, STOPPED, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.auto import AUTO, as_shown, default_shown
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import StepRequest

_BEGUN = (DONE, RUNNING, FAILED, STOPPED)


def answer(question: Question) -> Answer:
    """A setting of a run, else of the newest run that has it. Raises NotFound."""
    query = question.query
    if not query.field:
        return _defaults(query.stage) if query.text == "default" else _all(question)
    if "," in query.field:
        told = [
            answer(replace(question, query=query.model_copy(update={"field": one}))) for one in query.field.split(",")
        ]
        return Answer(tuple(line for one in told for line in one.lines[: max(1, 6 // len(told))]))
    runs = [find(question.store, query.run)] if query.run else _newest_first(question)
    for run in runs:
        if steps := _having(question.store, run, query.field, query.stage, query.text):
            return _one(question, run, _that_counts(steps))
    return _never(query.field, query.stage, runs[0].id if query.run and runs else "")


def _having(store: Store, run: Run, field: str, stage: str, role: str = "") -> list[Step]:
    """The steps of a run that a setting is asked of."""
    having = [s for s in store.priced_steps(run.id) if field in s.request]
    steps = [s for s in having if stage in ("", s.stage)] or (having if field == "suites" else [])
    if field in ("model", "revision"):  # of the model that is taught, not of the one that writes or talks
        wanted = role if role in ("driver", "teacher") else "base"
        steps = [s for s in steps if s.request.get("role", "base") == wanted] or steps
    if not stage:  # a field that several stages have is asked of the training
        steps = [s for s in steps if s.stage == "train"] or steps
    return steps


def value_in(store: Store, run: Run, field: str, stage: str = "") -> object:
    """A setting as a run used it; None where no step of it has one."""
    steps = _having(store, run, field, stage)
    return _value(_that_counts(steps), field) if steps else None


def _newest_first(question: Question) -> list[Run]:
    runs = ordinary(question.store)
    return [question.current, *(run for run in runs if run.id != question.current.id)] if question.current else runs


def _never(field: str, stage: str, run: str) -> Answer:
    stages = (stage,) if stage in known_fields().get(field, ()) else known_fields().get(field, ())
    if not stages:
        raise NotFound(f"There is no setting {clip(field, 40)}; `/help train` lists those of a stage.")
    where = f"{run} has no step with it" if run else "No step with it was asked for yet"
    return Answer(
        (f"{where}; left alone, {field} is {_usual(stages[0], field)} in {stages[0]}.", _meaning(stages[0], field))
    )


def _one(question: Question, run: Run, step: Step) -> Answer:
    field = question.query.field
    value, default = _value(step, field), _default(step.stage, field)
    ran = "" if step.status in _BEGUN else " (proposed, never run)"
    lines = [f"{field} was {_plain(value)} in {step.stage} ({cite(step)}){ran}."]
    lines.append(f"Why: {why(question.store, run, step, field)}.")
    if question.query.text == "default":
        lines.insert(0, f"Left alone, {field} is {_usual(step.stage, field)} in {step.stage}.")
    elif value != default:
        lines.append(f"Left alone it would have been {_usual(step.stage, field)}.")
    if field == "writer" and (writer := next(iter(question.store.artifacts(run.id, str(value))[-1:]), None)):
        lines.insert(0, f"{clip(writer.meta.get('name', value), 80)} wrote them (the {value} of {run.id}).")
    if question.query.aspect == "best":
        lines.insert(0, _judged(question, run, step, field))
    if resolved := _resolved(question.store, step, field):
        lines.insert(1, resolved)
    if meaning := _meaning(step.stage, field):
        lines.append(meaning)
    lines += [_elsewhere(question.store, run, step, field)]
    if question.draft:
        planned = [s.fields[field] for s in question.draft.steps if s.stage == step.stage and field in s.fields]
        lines += [f"In the plan that is proposed now it is {_plain(planned[0])}."] if planned else []
    return Answer(tuple(line for line in lines if line))


def _judged(question: Question, run: Run, step: Step, field: str) -> str:
    """A value that was asked about, else the run's own, beside the one that the product's rule would choose now."""
    text = question.query.text
    numbers = [number for number, _, _ in numbers_in(text)]
    asked = values_named(text, (step.stage,), text).get(field, numbers[0] if len(numbers) == 1 else None)
    value = _value(step, field) if asked is None else asked
    usual, why_ = _default(step.stage, field), "the default"
    if usual == AUTO:  # chosen by a rule, from the model and the rows
        try:
            plan = priced(question.ws, StepRequest(step.stage, {}, run.id))
        except TunesmithError as error:
            return f"Its rule cannot be asked now ({clip(error, 120)})."
        usual, why_ = plan.request.get(field), clip(plan.reasons.get(field, "by the model and the rows"), 200)
    if not (isinstance(value, int | float) and isinstance(usual, int | float) and usual):
        return f"{field}: {_plain(value)}; the rule would choose {_plain(usual)} ({why_})."
    times = value / usual
    word = "about what" if 0.8 <= times <= 1.25 else f"{times:.2g} times what"
    return f"{_plain(value)} is {word} the rule would choose: {_plain(usual)} ({why_})."


def _meaning(stage: str, field: str) -> str:
    text = catalog.BY_NAME[stage].load().request.model_fields[field].description
    return f"What it is: {text}" if text else ""


def _usual(stage: str, field: str) -> str:
    """The default in words: what `auto` stands for is told with it."""
    default, meaning = _default(stage, field), _meaning(stage, field)
    chosen = re.search(r"\bauto: ([^;.]+)", meaning)
    return f"chosen {chosen[1]}" if default == AUTO and chosen and chosen[1].startswith("by ") else _plain(default)


def _resolved(store: Store, step: Step, field: str) -> str:
    """What a model's name came to: its title, its size and where it is from."""
    made = (
        next((a for a in store.artifacts(step.run) if a.step == step.id), None)
        if field in ("model", "revision")
        else None
    )
    if made is None:
        return ""
    told = [str(made.meta.get("name", ""))]
    if isinstance(parameters := made.meta.get("parameters"), int):
        told.append(f"{parameters:,} parameters")
    if revision := made.meta.get("revision") or made.meta.get("commit"):
        told.append(f"commit {revision}")
    told.append(f"sha256 {made.sha256[:12]}")
    return f"That is {', '.join(one for one in told if one)}." if told[0] else ""


def _default(stage: str, field: str) -> object:
    return default_shown(catalog.BY_NAME[stage].load().request.model_fields[field])


def _value(step: Step, field: str) -> object:
    """A field as a step was asked for with it; `auto` where an older version wrote 0 for that."""
    known = catalog.ENTRIES[step.stage].load().request.model_fields
    return as_shown(known[field], step.request[field]) if field in known else step.request[field]


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(clip(_file_name(one), 160) for one in value) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return clip(value if value != "" else "empty (as usual)", 120)


def _file_name(value: object) -> str:
    return str(value).rsplit("/runs/", 1)[-1]


def _elsewhere(store: Store, run: Run, step: Step, field: str) -> str:
    """The same setting in other stages of the run and in other runs, in a line."""
    others = []
    for other in ordinary(store)[:6]:
        steps = [s for s in store.steps(other.id) if field in s.request and s.stage == step.stage]
        if other.id != run.id and steps:
            others.append(f"{_plain(_value(_that_counts(steps), field))} in {other.id}")
    return f"Elsewhere: {listed(others, 4)}." if others else ""


def _that_counts(steps: Sequence[Step]) -> Step:
    """The newest step that is done, else that was begun, else that was proposed: what was used, as far as any was."""
    begun = [step for step in steps if step.status in _BEGUN]
    return next(iter([step for step in reversed(steps) if step.status == DONE] or begun[-1:] or steps[-1:]))


def _all(question: Question) -> Answer:
    """The settings of a stage, or of every stage of a run."""
    query, run = question.query, question.run(with_stage=question.query.stage)
    known = values(question.store, run)
    if query.stage:
        known = {name: value for name, value in known.items() if name.split(".")[0].split()[0] == query.stage}
    if not known:
        raise NotFound(f"{run.id} has no finished {query.stage or 'step'} whose settings could be told.")
    rows = [[name, _plain(value)] for name, value in known.items()]

    def page() -> RenderableType:
        return render.rows_table(["setting", run.id], rows, exact=True)

    if query.aspect == "who":
        return _by_hand(question, run)
    if query.stage:
        line = "; ".join(f"{name.partition('.')[2]} {_plain(value)}" for name, value in known.items())
        return Answer((f"{query.stage} of {run.id} ran with: {clip(line, 600)}.",), page)
    chosen = [
        name
        for name, value in known.items()
        if value != _default(name.split(".")[0].split()[0], name.partition(".")[2])
    ]
    line = "; ".join(f"{name} {_plain(known[name])}" for name in chosen)
    return Answer((f"{run.id} differs from the defaults in {len(chosen)} settings: {clip(line, 600)}.",), page)


def _defaults(stage: str) -> Answer:
    """What the settings of a stage are where nobody says anything."""
    names = catalog.BY_NAME[stage].load().settable
    told = "; ".join(f"{name} {_usual(stage, name)}" for name in names)
    return Answer((f"Left alone, {stage} takes: {clip(told, 500)}.", f"`/help {stage}` lists every field."))


def _by_hand(question: Question, run: Run) -> Answer:
    """The settings that somebody chose, with what the records say of who it was."""
    said = {
        f"{step.stage}.{name} {_plain(value)}": why(question.store, run, step, name)
        for step in question.store.steps(run.id, status=DONE)
        for name in step.request
        if name not in ("run", "arm") and (value := _value(step, name)) != _default(step.stage, name)
    }
    mine = [name for name, reason in said.items() if reason.startswith("you set it")]
    planned = [name for name, reason in said.items() if "written in the plan" in reason]
    told = f": {listed(mine, 8)}" if mine else ""
    first = f"You changed {len(mine) or 'no'} setting{'' if len(mine) == 1 else 's'} of {run.id} by hand{told}."
    return Answer((first, *([f"In its plan stand: {listed(planned, 10)}."] if planned else [])))


def values(store: Store, run: Run) -> dict[str, object]:
    """`stage.field` → value of the newest finished step of each stage."""
    settings: dict[str, object] = {}
    for step in store.steps(run.id, status=DONE):
        name = f"{step.stage} {step.arm}" if step.stage == "evaluate" else step.stage
        settings |= {f"{name}.{field}": _value(step, field) for field in step.request if field not in ("run", "arm")}
    return settings


def differing(store: Store, one: Run, two: Run) -> dict[str, tuple[str, str]]:
    """The settings in which two runs differ, with both values."""
    known = [values(store, run) for run in (one, two)]
    return {
        name: (_plain(known[0].get(name, "–")), _plain(known[1].get(name, "–")))
        for name in dict.fromkeys([*known[0], *known[1]])
        if known[0].get(name) != known[1].get(name)
    }


def why(store: Store, run: Run, step: Step, name: str) -> str:
    """Who set a field, as far as the records say."""
    value = _value(step, name)
    if any(re.search(rf"\b{name}=", edit) for edit in _edits_before(store, step)):
        return f"you set it when {step.stage} was priced"
    if any(_as_read(step.stage, fields, name) == value for fields in _planned(run, step.stage, name)):
        return f"it is written in the plan of {run.id} ({clip(run.name, 40)})"
    if reason := (step.plan.get("reasons") or {}).get(name):
        return f"nobody set it; it was chosen by the model and the rows: {clip(reason, 260)}"
    if value == _default(step.stage, name):
        return "nobody chose another value: it is the default"
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
    planned = [spec.get("fields", {}) for spec in run.plan.get("steps", []) if spec.get("stage") == stage]
    return [fields for fields in planned if name in fields]


def _as_read(stage: str, fields: Mapping[str, object], name: str) -> object:
    """A planned field as the stage's request reads it: a plan that was changed in words holds `8` as text."""
    from tunesmith.tools.pipeline.plan_file import parse_fields

    try:
        return parse_fields(stage, fields)[name]
    except BadInput:
        return fields[name]
