"""Which run a step belongs to, and the status that the step leaves it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import APPROVED, DONE, DRIVER_RUN, RUNNING
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.progress import is_complete
from tunesmith.tools.pipeline.workspace import StepRequest


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a step goes: into `run`, or into a new one called `new_name`, which is opened once the step has a price."""

    run: str
    new_name: str = ""


def place(store: Store, request: StepRequest) -> Placement:
    """The run that is named, else the newest; `base` opens one, for a run has one base.

    Raises NotFound for a run that is not there, BadInput where there is none yet.
    """
    if request.run:
        return Placement(store.run(request.run).id)
    newest = store.newest_run()
    role = request.fields.get("role", "base") if request.stage == "base" else ""
    if role == "driver":
        own = next((run for run in store.runs() if run.name == DRIVER_RUN), None)
        return Placement(own.id) if own else Placement("", DRIVER_RUN)
    opens = request.stage == "inspect" and not newest
    if role == "base":
        opens = not newest or _has_base(store, newest.id)
    if opens:
        named = request.fields.get("model", "bundled" if request.stage == "base" else request.stage)
        return Placement("", Path(str(named)).name)
    if not newest:
        raise BadInput(f"there is no run yet to {request.stage} in; `tunesmith base` opens one")
    return Placement(newest.id)


def _has_base(store: Store, run: str) -> bool:
    at_work = any(step.stage == "base" and step.status in (APPROVED, RUNNING) for step in store.steps(run))
    return at_work or bool(store.artifacts(run, "base"))


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
