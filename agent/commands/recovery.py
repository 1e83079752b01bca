"""What every start does first: find what died or ended while nobody looked, and tell it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tunesmith.agent.commands import render
from tunesmith.memory.locks import is_locked, lock_file
from tunesmith.memory.records import DONE, RUNNING, WAITING, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog, launcher

_BETWEEN_STEPS_S = 60.0
"""A run that is carried out has a step at work again after less than this; longer only where it waits for a yes."""
_UNWATCHED = 3
"""Of the steps that ended unseen so many have a line of their own: a start is short."""


def recover(store: Store) -> list[str]:
    """Mark what died, end servers that outlived their step, start deployed ones that a boot ended, put runs where they
    stand; a line about each."""
    dead = launcher.reconcile(store)
    lines = [f"{step.stage} ({step.id} of {step.run}) failed: {step.error}" for step in dead]
    store.announce([step.id for step in dead])
    lines += _unwatched([step for step in store.unannounced() if catalog.ENTRIES[step.stage].asks(step.request)])
    for run in store.runs():
        if run.status == RUNNING:
            lines += _resolve_approved(store, run)
    if (store.home / "servers").is_dir():
        from tunesmith.agent.commands.served_models import bring_back, stop_orphans

        lines += bring_back(store)
        lines += [f"stopped an orphaned server: {server}" for server in stop_orphans(store)]
    return lines


def _unwatched(ended: Sequence[Step]) -> list[str]:
    """Steps that ended while nobody looked: the newest and what failed, and how many more there are."""
    listed = [step for step in ended if step is ended[-1] or step.status != DONE][-_UNWATCHED:]
    lines = [f"ended while nobody watched: {render.step_end(step).text.plain}" for step in listed]
    if more := len(ended) - len(listed):
        lines.insert(
            0, f"{more} more step{'s' * (more > 1)} ended while nobody watched; `tunesmith runs show` lists them"
        )
    return lines


def _resolve_approved(store: Store, run: Run) -> list[str]:
    """A run that nobody carries out any more stands where its newest step stands."""
    if is_locked(lock_file(store.home, run.id)):  # another terminal waits at its question
        return []
    steps = store.steps(run.id)
    idle_s = time.time() - max((step.finished_at or step.created_at for step in steps), default=run.created_at)
    if any(step.status == RUNNING for step in steps) or idle_s < _BETWEEN_STEPS_S:
        return []
    if not run.plan.get("steps"):
        store.set_run_status(run.id, steps[-1].status)
        return []
    store.set_run_status(run.id, WAITING)
    return [f"{run.id} ({run.name}) stopped half-way; `tunesmith run --resume {run.id}` goes on with it"]
