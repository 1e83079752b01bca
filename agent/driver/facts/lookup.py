"""One question, one answer: the module that knows each kind of fact."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunesmith.agent.driver.facts import (
    across,
    advice,
    approvals,
    artifacts,
    cases,
    confusion,
    described,
    feasibility,
    machine,
    prices,
    results,
    rows,
    runs,
    serving,
    settings,
    steps,
    trial,
)
from tunesmith.agent.driver.facts.answer import Answer, Question
from tunesmith.agent.driver.understanding.query import Kind

_BY_KIND: Mapping[Kind, Callable[[Question], Answer]] = {
    "machine": machine.answer,
    "fits": feasibility.answer,
    "runs": runs.all_runs,
    "run": runs.one_run,
    "step": steps.answer,
    "result": results.answer,
    "cases": cases.answer,
    "compare": results.compare,
    "setting": settings.answer,
    "approvals": approvals.answer,
    "rows": rows.answer,
    "curve": artifacts.curve,
    "artifact": artifacts.answer,
    "served": serving.served,
    "jobs": serving.jobs,
    "findings": advice.answer,
    "described": described.answer,
    "price": prices.answer,
    "across": across.answer,
    "confusion": confusion.answer,
    "trial": trial.answer,
}


def answer(question: Question) -> Answer:
    """Answer one question from the store. Raises BadInput or NotFound with what there is instead."""
    return _BY_KIND[question.query.kind](question)
