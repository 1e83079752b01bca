"""A written plan: its steps, the requests that they are checked against, and the file that it is read from."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.auto import readable_value
from tunesmith.tools.core.field_names import our_names
from tunesmith.tools.core.local_paths import FOLDER
from tunesmith.tools.core.stage import Frozen, Request
from tunesmith.tools.core.wrong_values import sentences
from tunesmith.tools.core.yaml_file import read_yaml
from tunesmith.tools.pipeline import catalog


class StepSpec(Frozen):
    """One step of a written plan: the stage, and the fields of its request."""

    stage: str
    fields: dict[str, object] = Field(default_factory=dict)


class PipelinePlan(Frozen):
    """A written plan: what `tunesmith run PLAN.yaml` carries out."""

    name: str = Field(min_length=1)
    goal: str = ""
    steps: tuple[StepSpec, ...] = Field(min_length=1)
    reasons: tuple[str, ...] = ()
    """Why it has the models that nobody named, and what others would cost; a changed base takes them away."""
    arm_by_base: bool = False
    """Whether its base decided what it deploys, so that another base decides that again."""

    @property
    def steps_to_run(self) -> tuple[StepSpec, ...]:
        """The steps as they are carried out: one that tries the settings of a later one takes them over from there."""
        return tuple(_with_shared_settings(spec, self.steps[at:]) for at, spec in enumerate(self.steps))

    def with_steps(self, steps: tuple[StepSpec, ...]) -> PipelinePlan:
        """The plan with other steps; what was said of its models goes where these are others, and what it deploys is
        what somebody said where it has other stages."""
        named, before = ([s.fields["model"] for s in of if "model" in s.fields] for of in (steps, self.steps))
        same = {s.stage for s in steps} == {s.stage for s in self.steps}
        reasons = self.reasons if named == before else ()
        return self.model_copy(update={"steps": steps, "reasons": reasons, "arm_by_base": self.arm_by_base and same})


def _with_shared_settings(spec: StepSpec, after: Sequence[StepSpec]) -> StepSpec:
    if spec.stage not in catalog.BY_NAME:  # told when its request is read
        return spec
    later_stage, names = catalog.BY_NAME[spec.stage].load().tries_settings_of
    fields: Mapping[str, object] = next((later.fields for later in after if later.stage == later_stage), {})
    shared = {name: fields[name] for name in names if name in fields}
    return spec.model_copy(update={"fields": {**shared, **spec.fields}}) if shared else spec


def parse_request(
    stage: str, fields: Mapping[str, object], *, folder: Path | None = None, spelled: Mapping[str, str] | None = None
) -> Request:
    """The frozen request of a stage, its local paths absolute: relative ones start from `folder`, else from here.

    Raises BadInput naming each wrong field, as its user `spelled` it, and the nearest right one.
    """
    _need_known(stage, catalog.ENTRIES)
    model = catalog.ENTRIES[stage].load().request
    given = our_names(fields, model.model_fields, spelled)
    try:
        return model.model_validate(given.fields, context={FOLDER: folder or Path.cwd()})
    except ValidationError as error:
        raise BadInput(f"{stage}: {sentences(error, model, given.typed)}") from None


def parse_fields(
    stage: str, fields: Mapping[str, object], *, folder: Path | None = None, spelled: Mapping[str, str] | None = None
) -> dict[str, object]:
    """The given fields, and no other ones, as the stage's request reads them. Raises BadInput as `parse_request`, and
    for a check, which is no stage of a pipeline."""
    _need_known(stage, catalog.BY_NAME)
    request = parse_request(stage, fields, folder=folder, spelled=spelled)
    return request.model_dump(mode="json", include=set(our_names(fields, type(request).model_fields).fields))


def renamed(stage: str, fields: Mapping[str, object], spelled: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What is said of fields that were given under another program's names: `lora_r is lora_rank here`."""
    _need_known(stage, catalog.BY_NAME)
    return our_names(fields, catalog.BY_NAME[stage].load().request.model_fields, spelled).notes


def settled(plan: PipelinePlan, say: Callable[[str], None]) -> PipelinePlan:
    """The plan with what its fields leave to the network looked up, which is said: each hub model at one commit.

    Raises BadInput where the hub has no such model, or cannot be asked.
    """
    steps = []
    for spec in plan.steps:
        settlement = catalog.BY_NAME[spec.stage].load().settle(spec.fields)
        steps.append(spec.model_copy(update={"fields": {**spec.fields, **settlement.fields}}))
        for sentence in settlement.notes:
            say(sentence)
    return plan.with_steps(tuple(steps))


def same_plan(written: PipelinePlan, stored: PipelinePlan) -> bool:
    """Whether a stored plan was made from the written one: the same but for what was looked up then, as `settled` does,
    and for how `auto` was written."""
    if (written.name, written.goal, len(written.steps)) != (stored.name, stored.goal, len(stored.steps)):
        return False
    return all(_same_step(*pair) for pair in zip(written.steps, stored.steps, strict=True))


def _same_step(written: StepSpec, stored: StepSpec) -> bool:
    if written.stage != stored.stage:
        return False
    declared = catalog.BY_NAME[stored.stage].load()
    known = declared.request.model_fields
    open_ = {name for name in declared.belongs_to if name in stored.fields and name not in written.fields}
    return written.fields == {
        name: readable_value(known[name], value) if name in known else value
        for name, value in stored.fields.items()
        if name not in open_
    }


def _need_known(stage: object, known: Container[str]) -> None:
    if not isinstance(stage, str) or stage not in known:
        raise BadInput(f"no stage {stage!r}; the stages are: {', '.join(catalog.BY_NAME)}")


def load_pipeline(path: Path, say: Callable[[str], None] = lambda text: None) -> PipelinePlan:
    """Read a plan file and check every request and the order of its steps. Raises BadInput.

    Relative paths in it start from the folder that it lies in, wherever tunesmith was started. What is to be said of
    its names goes to `say`.
    """
    document = read_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        raise BadInput(f"{path} is not a plan: it needs `name` and a list `steps`")
    entries = [_entry(path, number, entry) for number, entry in enumerate(document["steps"], 1)]
    if (on := document.pop("on", None)) is not None:
        entries = [(stage, {**place_of(stage, on), **fields}) for stage, fields in entries]
    steps = [_step_spec(path, stage, fields) for stage, fields in entries]
    check_place([stage for stage, _ in entries], on)
    for sentence in dict.fromkeys(one for stage, fields in entries for one in renamed(stage, fields)):
        say(sentence)
    try:
        plan = PipelinePlan.model_validate({**document, "steps": steps})
    except ValidationError as error:
        raise BadInput(f"{path}: {sentences(error, PipelinePlan)}") from None
    check_pipeline(plan, have=())
    return plan


def _entry(path: Path, number: int, entry: object) -> tuple[str, dict[str, object]]:
    """The stage and the fields of a step as they are written."""
    if isinstance(entry, str):
        entry = {"stage": entry}
    if not isinstance(entry, dict) or "stage" not in entry:
        raise BadInput(f"{path}: step {number} names no stage; write `- stage: train`")
    return entry["stage"], {str(name): value for name, value in entry.items() if name != "stage"}


def placed(plan: PipelinePlan, on: str) -> PipelinePlan:
    """The plan with every step that can go there carried out `on` a machine, whatever its steps say; "": as it is.

    Raises BadInput as `check_place`.
    """
    check_place([spec.stage for spec in plan.steps], on)
    if not on:
        return plan
    return plan.with_steps(
        tuple(spec.model_copy(update={"fields": spec.fields | place_of(spec.stage, on)}) for spec in plan.steps)
    )


def check_place(stages: Sequence[str], on: object) -> None:
    """Raises BadInput where none of the stages can be carried out where `on` says; None, "": it says nothing."""
    if on not in (None, "", "here") and stages and not any(place_of(stage, on) for stage in stages):
        stay = ", ".join(dict.fromkeys(stages))
        raise BadInput(f"`on: {on}` is followed nowhere, for {stay} can be done only here; leave `on` out (here, ray)")


def place_of(stage: str, on: object) -> dict[str, object]:
    """What `on` of a whole plan says of a stage: its work is done there where that can be."""
    entry = catalog.BY_NAME.get(str(stage))  # of a file it may be anything
    return {"on": on} if entry and "on" in entry.load().request.model_fields else {}


def _step_spec(path: Path, stage: str, fields: Mapping[str, object]) -> dict[str, object]:
    return {"stage": stage, "fields": parse_fields(stage, fields, folder=path.parent.absolute())}


def check_pipeline(plan: PipelinePlan, *, have: tuple[str, ...]) -> None:
    """Refuse a plan in which a step comes before what it needs. Raises BadInput, naming the step."""
    kinds, measured = set(have), set[str]()
    for number, spec in enumerate(plan.steps, 1):
        request, entry = parse_request(spec.stage, spec.fields), catalog.BY_NAME[spec.stage]
        declared = entry.load()
        subject = declared.works_on(request)
        for kind in (*entry.needed(spec.fields), *([subject] if subject else [])):
            if kind not in kinds:
                raise BadInput(
                    f"step {number} ({spec.stage}) has no {kind} to work on; put `{catalog.maker_of(kind)}` before it"
                )
        if declared.needs_measured and subject and subject not in measured:
            raise BadInput(
                f"step {number}: {spec.stage} serves only what was evaluated, and nothing before it would evaluate the "
                f"{subject} model; leave {spec.stage} out too, or keep that evaluation"
            )
        output_kind = declared.makes(request) or entry.makes
        kinds.add(output_kind)
        measured = (measured | {subject} if declared.measures else measured) - {output_kind}
