"""Which run a step belongs to, and the status that the step leaves it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import APPROVED, CHECK_RUN, DONE, DRIVER_RUN, RUNNING, RunRule
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import parse_request
from tunesmith.tools.pipeline.progress import is_complete
from tunesmith.tools.pipeline.workspace import StepRequest

_ASIDE = {RunRule.DRIVER: DRIVER_RUN, RunRule.CHECKS: CHECK_RUN}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a step goes: into `run`, or into a new one called `new_name`, which is opened once the step has a price."""

    run: str
    new_name: str = ""


def place(store: Store, request: StepRequest) -> Placement:
    """The run that is named, else the one that the stage's own rule says.

    Raises NotFound for a run that is not there, BadInput where there is none yet and the stage opens none.
    """
    if request.run:
        return Placement(store.run(request.run).id)
    entry = catalog.ENTRIES[request.stage]
    parsed = parse_request(request.stage, request.fields)
    newest, rule = store.newest_run(), entry.load().run_rule(parsed)
    if name := _ASIDE.get(rule):
        own = next((run for run in store.runs() if run.name == name), None)
        return Placement(own.id) if own else Placement("", name)
    if rule is RunRule.OWN and (newest is None or _has_artifact(store, newest.id, entry)):
        return Placement("", Path(str(getattr(parsed, "model", request.stage))).name)
    if newest is None:
        opening = next(other.name for other in catalog.STAGES if other.makes and not other.needs)
        raise BadInput(
            f"there is no run yet to {request.stage} in; `tunesmith demo` or `tunesmith teach FILE` goes the whole "
            f"way, and `tunesmith {opening}` opens one for single steps"
        )
    return Placement(newest.id)


def _has_artifact(store: Store, run: str, entry: catalog.Entry) -> bool:
    """Whether a run has what a stage makes, or a step at work on it."""
    at_work = any(step.stage == entry.name and step.status in (APPROVED, RUNNING) for step in store.steps(run))
    return at_work or bool(store.artifacts(run, entry.makes))


def set_run_status(store: Store, run: str, status: str) -> None:
    """Record how a step left its run: as the step ended, unless another one of the run is at work.

    A run that follows a written plan has the status that carrying the plan out gives it; here only a step that
    completed the plan counts, for it may have been carried out by itself.
    """
    if store.steps(run, status=RUNNING) and status != RUNNING:
        return
    if not store.run(run).plan.get("steps"):
        store.set_run_status(run, status)
    elif status == DONE and is_complete(store, run):
        store.set_run_status(run, DONE)
