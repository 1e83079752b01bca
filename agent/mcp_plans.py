"""What another agent may describe and plan: a behaviour, and the whole plan that teaches one, with its prices.

Nobody's words stand behind what an agent says, so that all of it is proposed and no example counts as a person's.
What a plan would look at beside our own records is looked at only after the person's leave.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ValidationError

from tunesmith.agent.commands.places import is_known, may_name_a_place, places
from tunesmith.agent.commands.rows import kept_rows_file
from tunesmith.agent.commands.run_steps import demo_plan
from tunesmith.agent.driver.drafts import Interview
from tunesmith.agent.driver.told import TEXTS, Described, borne_out, parts_of, proposed_anew
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.tools.core.field_names import ours
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.core.yaml_file import dump_yaml
from tunesmith.tools.data.behaviour import described_folder, write_behaviour
from tunesmith.tools.data.description import DescriptionDraft, Example, distinct, missing, slug
from tunesmith.tools.data.proposal import Proposal
from tunesmith.tools.evaluation.judge import judge_comes
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.model_names import is_listed
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.base_choice import plan_here
from tunesmith.tools.pipeline.behaviour_plan import Pace
from tunesmith.tools.pipeline.forecast import forecast
from tunesmith.tools.pipeline.plan_edits import Around, Changes, Edited, edited_plan, settings_in
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace

Json = dict[str, object]
_ON_HUB = "hub:"
"""Before a model that our list knows: to plan it its commit is asked of the hub, which takes leave as well."""


def described(ws: Workspace, told: Described) -> Json:
    """Write down a behaviour that an agent tells; what is missing where it is not whole. Raises BadInput."""
    home, refused = ws.store.home, list[str]()
    try:
        examples = distinct(Example(prompt=one.message, answer=one.answer) for one in told.examples)
        texts = {name: getattr(told, name).strip() for name in TEXTS}
        name = slug(told.name or told.what)
        draft = DescriptionDraft.model_validate({"name": name, **texts, "examples": examples})
    except ValidationError as error:
        raise BadInput(sentence(error.errors()[0], DescriptionDraft)) from None
    proposal = proposed_anew(Proposal(), told, refused)
    behaviour = Interview(
        goal=draft.what, pace="full", quantize="auto", draft=draft, proposal=proposal, driven=True, unstated=True
    )
    if lacking := missing(draft):
        return {"written": False, "missing": list(lacking), "left_out": refused}
    made = borne_out(behaviour)
    spec = made.spec.model_copy(update={"unstated": True})
    folder = write_behaviour(spec, home / "behaviours", judged=judge_comes(home))
    return {
        "written": True,
        "behaviour": folder.name,
        "proposed": [key for key, _ in parts_of(behaviour)],
        "left_out": [*refused, *made.left_out],
        "examples": "unstated: no case that is made of them counts as a person's",
    }


def places_of(ws: Workspace, changes: Changes) -> list[str]:
    """What a plan with these changes would look at beside our own records; nothing is looked at for it."""
    runs = {name for run in ws.store.runs() for name in (run.id, run.name)}
    named = [changes.rows_from] if changes.rows_from and changes.rows_from not in runs else []
    named += [changes.base] if changes.base else []
    for word in settings_in(changes.settings):
        name, _, value = word.partition("=")
        named += (value or word).split(",") if _may_be_a_place(name.rpartition(".")[2]) else []
    return [f"{_ON_HUB}{name}" if is_listed(name) and name not in BUNDLED else name for name in named]


def _may_be_a_place(name: str) -> bool:
    """Whether any stage has a field of that name, also as other programs call it, that may name a place."""
    known = (entry.load().request.model_fields for entry in catalog.STAGES)
    return any(ours(name, of) in of and may_name_a_place(of[ours(name, of)]) for of in known)


def planned(ws: Workspace, behaviour: str, pace: Pace, changes: Changes, allowed: Sequence[str] | None) -> Json:
    """The whole plan that teaches a behaviour of this home, or the bundled one, with its prices, and as a file
    for the person to carry out.

    `allowed` are the places that may be looked at; None: the person said no. Raises BadInput then, and for a behaviour
    that is not there.
    """
    if allowed is None:
        raise BadInput("nobody allowed to look at the places in the changes; leave them out, or ask the person")
    may = {*allowed, *(name.removeprefix(_ON_HUB) for name in allowed)}

    def check(fields: Mapping[str, object], request: type[BaseModel] | None) -> None:
        own = [str(fields[name]) for name in ("model", "source") if fields.get(name) is not None]
        for name in (*own, *(places(request, fields) if request else ())):
            if name not in may and (is_listed(name) or not is_known(name)) and name not in BUNDLED:
                raise BadInput(f"nobody allowed to look at {name[:60]!r}")

    around = Around(ws, check, lambda run: kept_rows_file(ws.store, run), lambda sentence: None)
    edited = edited_plan(around, Edited(_plan(ws, behaviour, pace)), changes)
    prices, file = forecast(ws, edited.plan), _written(ws, edited.plan)
    costs = [price.estimate for price in prices if price.estimate]
    return {
        "behaviour": edited.plan.name,
        "plan": [
            {"stage": spec.stage, "fields": spec.fields, "estimated_seconds": price.estimate and price.estimate.seconds}
            for spec, price in zip(edited.plan.steps, prices, strict=True)
        ],
        "estimated_seconds": sum(cost.seconds for cost in costs),
        "disk_bytes": sum(cost.disk_bytes for cost in costs),
        "a_person_types_for_all_of_it": shlex.join(["tunesmith", "run", str(file)]),
        "lacks": [f"{price.stage}: {lack}" for price in prices for lack in price.lacks],
        "taken": edited.taken,
        "not_taken": {**edited.not_taken, **dict.fromkeys(_only_in_words(changes), "only prices are told here")},
    }


def _written(ws: Workspace, plan: PipelinePlan) -> Path:
    """The plan as a file of its own content: no later plan takes the place of one that a person was told of."""
    text = dump_yaml({"name": plan.name, "steps": [{"stage": one.stage, **one.fields} for one in plan.steps]})
    file = ws.store.home / "plans" / f"{plan.name}-{sha256(text.encode()).hexdigest()[:12]}.yaml"
    atomic_write(file, text)
    return file


def _only_in_words(changes: Changes) -> list[str]:
    return [name for name in ("card", "max_hours", "max_disk_gib") if getattr(changes, name)]


def _plan(ws: Workspace, behaviour: str, pace: Pace) -> PipelinePlan:
    if behaviour in ("demo", BUNDLED_BEHAVIOUR):
        return demo_plan(fast=pace == "fast")
    return plan_here(ws, described_folder(ws.store.home, behaviour), pace)
