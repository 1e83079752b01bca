"""Every kind of question: its request by its kind, and all of them as one union."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import Field, TypeAdapter

from tunesmith.agent.queries.across import AcrossQuery
from tunesmith.agent.queries.approvals import ApprovalsQuery
from tunesmith.agent.queries.artifacts import ArtifactQuery, DiskUseQuery
from tunesmith.agent.queries.base import Query
from tunesmith.agent.queries.cases import CaseQuery, CasesQuery, SuiteQuery
from tunesmith.agent.queries.comparisons import CompareQuery, CompareRunsQuery
from tunesmith.agent.queries.confusion import ConfusionQuery
from tunesmith.agent.queries.curves import CurveQuery
from tunesmith.agent.queries.described import DescribedQuery
from tunesmith.agent.queries.findings import FindingsQuery
from tunesmith.agent.queries.fits import FitsQuery
from tunesmith.agent.queries.machine import MachineQuery
from tunesmith.agent.queries.prices import PriceQuery
from tunesmith.agent.queries.results import ResultQuery
from tunesmith.agent.queries.rows import RowQuery, RowsQuery
from tunesmith.agent.queries.runs import RunQuery, RunsQuery
from tunesmith.agent.queries.serving import JobsQuery, ServedQuery
from tunesmith.agent.queries.settings import SettingQuery, SettingsQuery
from tunesmith.agent.queries.steps import FigureQuery, StepQuery, StepsQuery
from tunesmith.agent.queries.trial import TrialQuery

Request = Annotated[
    MachineQuery | FitsQuery | PriceQuery | JobsQuery | ServedQuery | RunsQuery | RunQuery | StepQuery | StepsQuery
    | FigureQuery | ResultQuery | CompareQuery | CompareRunsQuery | CasesQuery | CaseQuery | SuiteQuery
    | ConfusionQuery | FindingsQuery | CurveQuery | SettingQuery | SettingsQuery | ApprovalsQuery | RowsQuery | RowQuery
    | DescribedQuery | ArtifactQuery | DiskUseQuery | AcrossQuery | TrialQuery,
    Field(discriminator="kind"),
]  # fmt: skip
"""Any of them, told apart by its `kind`."""

ANY_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
"""Reads a request from plain data."""

REQUESTS: Mapping[str, type[Query]] = {
    request.model_fields["kind"].default: request for request in get_args(get_args(Request)[0])
}
"""Kind → its request, whose docstring says in a sentence what it answers."""
