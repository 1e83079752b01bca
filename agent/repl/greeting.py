"""The first lines above the prompt: the card, the newest run with its verdict, what is served, three things to type.

Read from the store by the thread that loads behind the prompt, so that nobody waits for them.
"""

from __future__ import annotations

from pathlib import Path

from tunesmith.agent.queries.answer import clip, ordinary
from tunesmith.memory.records import DONE, WAITING, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import size
from tunesmith.tools.machine.measure import measure_machine

_NAME_CHARACTERS = 24
"""The greeting is one line."""


def greeting(store: Store) -> list[str]:
    """Three lines, each within 80 columns in the usual case."""
    runs = ordinary(store)
    newest = runs[0] if runs else None
    return [f"{_card(store.home)} · {_served(store)}", _newest(store, newest), f"try {', '.join(_to_type(newest))}"]


def _card(home: Path) -> str:
    machine = measure_machine(home)
    cards = [f"{gpu.name}, {size(gpu.total_bytes)}" for gpu in machine.gpus[:1]]
    return cards[0] if cards else f"CPU only, {size(machine.ram_total_bytes)} RAM"


def _served(store: Store) -> str:
    from tunesmith.agent.commands import served_models

    deployed = [line for line in served_models.status(store) if line["role"] == "deployed"]
    if not deployed:
        return "nothing is served"
    state = "down" if deployed[0]["down"] else "served"
    return f"{state}: {clip(deployed[0]['model'], 30)} of {deployed[0]['run']}"


def _newest(store: Store, run: Run | None) -> str:
    if run is None:
        return "no run yet: say what a model should learn"
    measured = [step for step in store.steps(run.id, status=DONE) if step.report.get("claim")]
    verdict = _verdict(store, measured[-1]) if measured else ""
    name = f"newest run: {run.id} ({clip(run.name, _NAME_CHARACTERS)}), {run.status}"
    return f"{name}, {verdict}" if verdict else name


def _verdict(store: Store, step: Step) -> str:
    from tunesmith.tools.evaluation.evidence import evidence_of  # nothing to load for a home without an evaluation

    return evidence_of(store, step.run, step.arm).verdict.word


def _to_type(run: Run | None) -> list[str]:
    """What fits this home: a first run, what goes on with one, or looking at what one came to."""
    if run is None:
        return ["`/demo`", "“I want a model that answers in haiku”", "`/help`"]
    if run.status != DONE:
        return ["“go on”" if run.status == WAITING else "“what failed?”", f"`/run {run.id}`", "`/help`"]
    return ["`/ask …`", f"`/report {run.id}`", f"`/explain {run.id}`"]
