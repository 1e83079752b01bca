"""Every kind of question: its request by its kind, all of them as one union, and who answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

from pydantic import Field

from tunesmith.agent.queries import (
    approvals,
    artifacts,
    cases,
    comparisons,
    confusion,
    curves,
    described,
    findings,
    fits,
    machine,
    one_case,
    prices,
    results,
    rows,
    runs,
    serving,
    settings,
    steps,
    trial,
)
from tunesmith.agent.queries.answer import Answer, Context, Query
from tunesmith.agent.queries.approvals import ApprovalsQuery
from tunesmith.agent.queries.artifacts import ArtifactQuery, DiskUseQuery
from tunesmith.agent.queries.cases import CasesQuery, SuiteQuery
from tunesmith.agent.queries.comparisons import AcrossQuery, CompareQuery, CompareRunsQuery
from tunesmith.agent.queries.confusion import ConfusionQuery
from tunesmith.agent.queries.curves import CurveQuery
from tunesmith.agent.queries.described import DescribedQuery
from tunesmith.agent.queries.findings import FindingsQuery
from tunesmith.agent.queries.fits import FitsQuery
from tunesmith.agent.queries.machine import MachineQuery
from tunesmith.agent.queries.one_case import CaseQuery
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.queries.results import ResultQuery
from tunesmith.agent.queries.rows import RowQuery, RowsQuery
from tunesmith.agent.queries.runs import RunQuery, RunsQuery, StepsQuery
from tunesmith.agent.queries.serving import JobsQuery, ServedQuery
from tunesmith.agent.queries.settings import SettingQuery, SettingsQuery
from tunesmith.agent.queries.steps import FigureQuery, StepQuery
from tunesmith.agent.queries.trial import TrialQuery

Request = Annotated[
    RunsQuery | RunQuery | ResultQuery | StepQuery | CasesQuery | FindingsQuery | SettingQuery | JobsQuery
    | MachineQuery | RowsQuery | StepsQuery | CompareQuery | CaseQuery | CompareRunsQuery | FitsQuery | ServedQuery
    | PriceQuery | ArtifactQuery | ApprovalsQuery | CurveQuery | SettingsQuery | SuiteQuery | ConfusionQuery | RowQuery
    | FigureQuery | AcrossQuery | DescribedQuery | DiskUseQuery | TrialQuery,
    Field(discriminator="kind"),
]  # fmt: skip
"""Any of them, told apart by its `kind`; what is asked most comes first, for a driver that has room for few."""

REQUESTS: Mapping[str, type[Query]] = {
    request.model_fields["kind"].default: request for request in get_args(get_args(Request)[0])
}
"""Kind → its request, whose docstring says in a sentence what it answers."""

TOOLS: Mapping[str, str] = {f"read_{kind}": kind for kind in REQUESTS}
"""The tool that answers each kind, wherever a model may ask: the conversation's driver, and `tunesmith mcp`."""

_ANSWERED: Mapping[str, Callable[[Any, Context], Answer]] = {
    "machine": machine.answer, "fits": fits.answer, "price": prices.answer, "jobs": serving.jobs,
    "served": serving.served, "runs": runs.all_runs, "run": runs.one_run, "step": steps.answer,
    "steps": runs.answer, "figure": steps.figure, "result": results.answer, "compare": comparisons.compare,
    "compare_runs": comparisons.compare_runs, "cases": cases.answer, "case": one_case.answer, "suite": cases.suite,
    "confusion": confusion.answer, "findings": findings.answer, "curve": curves.answer, "setting": settings.answer,
    "settings": settings.all_settings, "approvals": approvals.answer, "rows": rows.answer, "row": rows.find_rows,
    "described": described.answer, "artifact": artifacts.answer, "disk_use": artifacts.disk_use,
    "across": comparisons.answer, "trial": trial.answer,
}  # fmt: skip


def tool_of(request: Request) -> str:
    """The tool that answers a request."""
    return f"read_{request.kind}"


def answer(request: Request, context: Context) -> Answer:
    """Answer one question from the store. Raises BadInput or NotFound with what there is instead."""
    return _ANSWERED[request.kind](request, context)
