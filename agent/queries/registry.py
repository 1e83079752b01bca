"""Every kind of question: its request, and who answers it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.agent.queries import (
    artifacts,
    cases,
    comparisons,
    described,
    files,
    findings,
    fits,
    machine,
    prices,
    rows,
    runs,
    scores,
    settings,
    steps,
)
from tunesmith.agent.queries.answer import Context, run_of_base
from tunesmith.agent.queries.facts import Fact, Query, Result
from tunesmith.memory.errors import BadInput
from tunesmith.tools.evaluation.pairing import each_pair_once

_KINDS: tuple[tuple[type[Query], Callable[[Any, Context], Result]], ...] = (
    (runs.RunsQuery, runs.all_runs), (runs.RunQuery, runs.one_run), (scores.ResultQuery, scores.answer),
    (steps.StepQuery, steps.answer), (cases.CasesQuery, cases.answer), (findings.FindingsQuery, findings.answer),
    (settings.SettingQuery, settings.answer), (machine.JobsQuery, machine.jobs), (machine.MachineQuery, machine.answer),
    (rows.RowsQuery, rows.answer), (runs.StepsQuery, runs.answer), (comparisons.CompareQuery, comparisons.compare),
    (cases.CaseQuery, cases.one_case), (comparisons.CompareRunsQuery, comparisons.compare_runs),
    (fits.FitsQuery, fits.answer), (machine.ServedQuery, machine.served), (prices.PriceQuery, prices.answer),
    (artifacts.ArtifactQuery, artifacts.answer), (prices.ApprovalsQuery, prices.approvals),
    (steps.CurveQuery, steps.curve), (settings.SettingsQuery, settings.all_settings),
    (cases.SuiteQuery, cases.suite), (cases.ConfusionQuery, cases.confusion), (rows.RowQuery, rows.find_rows),
    (comparisons.AcrossQuery, comparisons.across),
    (described.DescribedQuery, described.answer), (artifacts.DiskUseQuery, artifacts.disk_use),
    (artifacts.TrialQuery, artifacts.trial), (files.FileQuery, files.answer),
)  # fmt: skip
"""What is asked most comes first, for a driver that has room for few."""

REQUESTS: Mapping[str, type[Query]] = {request.model_fields["kind"].default: request for request, _ in _KINDS}
"""Kind → its request, whose docstring says in a sentence what it answers."""

TOOLS: Mapping[str, str] = {f"read_{kind}": kind for kind in REQUESTS}
"""The tool that answers each kind, wherever a model may ask: the conversation's driver, and `tunesmith mcp`."""


def tool_of(request: Query) -> str:
    """The tool that answers a request."""
    return f"read_{request.kind}"


def ask(request: Query, context: Context, *, strict: bool = True) -> Result:
    """The facts that answer a question. Raises NotFound, with what there is instead, and where `strict` BadInput for an
    argument that the answer does not depend on."""
    request, used = _of_a_run(request, context), set[str]()
    with each_pair_once():
        result = dict(_KINDS)[type(request)](_Watched(request, used), context)
    ignored = [name for name in request.model_fields_set - used - {"kind"} if getattr(request, name) not in (None, "")]
    if ignored and strict:
        raise BadInput(f"{tool_of(request)} takes no {' and no '.join(ignored)} with these arguments; leave it out")
    return result


def _of_a_run(request: Query, context: Context) -> Query:
    """A question of the run that a base's name stands for, where it names one in place of a run. Raises NotFound."""
    name, store = getattr(request, "run", ""), context.store
    if not re.fullmatch(_BASE, name) or any(name in (run.id, run.name) for run in store.runs()):
        return request
    return request.model_copy(update={"run": run_of_base(store, name).id})


_BASE = r"(?i).*\d[bm]\b.*|.*/.*"
"""A name of a model has its size in it, or who published it."""


class _Watched:
    """A request that remembers which of its arguments were read: one that was not has changed nothing."""

    def __init__(self, request: Query, used: set[str]) -> None:
        self._request, self._used = request, used

    @property  # type: ignore[misc]  # it passes for the request
    def __class__(self) -> Any:
        return type(self.__dict__.get("_request", self))  # it may be looked at while it is made, as by a trace

    def __getattr__(self, name: str) -> Any:
        self._used.add(name)
        if name.startswith("model_"):
            self._used.update(self._request.model_fields_set)
        return getattr(self._request, name)


def query_of(fact: Fact) -> Query:
    """The question about the one thing that a fact of a list is of."""
    kind = next((kind for kind in ("case", "artifact", "step", "run") if fact.get(kind)), "jobs")
    return REQUESTS[kind].model_validate({name: fact[name] for name in (kind, "run") if fact.get(name)})
