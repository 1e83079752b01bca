"""The report of a run: one HTML file that needs nothing else.

Everything in it is read from the store, and every text in it that models or data sets wrote is data: the template
escapes it, `format.visible` spells out what hides, and the page's own policy lets no script run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tunesmith.memory.arms import ARMS
from tunesmith.memory.records import DONE, Artifact, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core import format
from tunesmith.tools.core.plain_file import write_private_text
from tunesmith.tools.evaluation.evidence import Evidence
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.report import process, story
from tunesmith.tools.report.charts import LossChart, loss_chart, share
from tunesmith.tools.report.evaluation import Evaluation, evaluation

_TEMPLATE = "report.html.j2"
_NARROW_SPACE = "\u202f"


def _joined(write: Callable[..., str]) -> Callable[..., str]:
    """A formatter whose numbers keep their units on the same line."""
    return lambda value: write(value).replace(" ", _NARROW_SPACE)


_PLAIN = (
    format.visible, format.clip, format.p_value, format.ratio, format.moment, format.short, format.brief, format.plain,
    format.count, format.listed,
)  # fmt: skip
_FILTERS = {write.__name__: write for write in _PLAIN}
_FILTERS |= {write.__name__: _joined(write) for write in (format.percent, format.duration, format.size)}


@dataclass(frozen=True, slots=True)
class Page:
    """All facts of a report, by the names that the template uses."""

    run: Run
    steps: Sequence[Step]
    verdict: str
    evaluation: Evaluation
    tool_note: Sequence[str]
    controls: Sequence[Evidence]
    """Of every trained arm that was compared with the base."""
    trainings: Sequence[tuple[process.Training, LossChart | None]]
    rows: process.Rows | None
    costs: Sequence[process.StepCost]
    seconds: float
    estimated_seconds: float
    peak_bytes: int
    approvals: Sequence[Mapping[str, object]]
    artifacts: Sequence[Artifact]
    line: Sequence[str]
    audits: Sequence[tuple[Step, Audit]]
    served: process.Served | None
    limits: Sequence[str]


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A page that lies on the disk."""

    path: Path
    verdict: str
    """The headline."""


def write_report(store: Store, run: str, name: str, *, force: bool = False) -> WrittenReport:
    """Write the report of `run` to the file `name`, for its user alone. Raises NotFound for an unknown run, BadInput
    where the file cannot be written, or without `force` is there.

    A run that is half done, failed or empty has a report too; it says what is missing.
    """
    page = gather(store, run)
    return WrittenReport(write_private_text(name, render(page), force=force), page.verdict)


def gather(store: Store, run: str) -> Page:
    """Read everything that a report says."""
    record, steps = store.run(run), store.steps(run)
    evaluated, deployed = evaluation(store, run), process.served(store, run)
    trainings = process.trainings(store, steps)
    costs = process.costs(steps)
    return Page(
        run=record,
        steps=steps,
        verdict=story.verdict(record, steps, evaluated, deployed),
        evaluation=evaluated,
        tool_note=story.tool_note(evaluated),
        controls=[evidence for evidence in evaluated.evidence.values() if evidence.compared],
        trainings=[(t, loss_chart(t.train, t.validation)) for t in trainings],
        rows=process.training_rows(store, run),
        costs=costs,
        seconds=sum(c.step.seconds or 0 for c in costs),
        estimated_seconds=sum(c.step.estimated_seconds for c in costs if c.step.seconds is not None),
        peak_bytes=max((c.peak_bytes or 0 for c in costs), default=0),
        approvals=process.approvals(store, run),
        artifacts=store.artifacts(run),
        line=_line(store, run, evaluated, deployed),
        audits=process.audits(steps),
        served=deployed,
        limits=story.limits(steps, evaluated),
    )


def _line(store: Store, run: str, evaluated: Evaluation, deployed: process.Served | None) -> list[str]:
    """The way from the base to what is served, or to the last model that this run made."""
    if deployed and deployed.this_run:
        return process.ancestry(store, deployed.artifact.id)
    models = [a for a in store.artifacts(run) if a.kind in ("adapter", "merged", "quantized")]
    return process.ancestry(store, models[-1].id) if models else []


def render(page: Page) -> str:
    """The page as HTML. Undefined names in the template are errors, never empty text."""
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    source = files("tunesmith.prompts").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(_FILTERS)
    stages = {step.id: step.stage for step in page.steps}
    finished = {(step.stage, step.arm) for step in page.steps if step.status == DONE}
    environment.globals.update(
        superseded=lambda step: step.status != DONE and (step.stage, step.arm) in finished,
        share=share,
        arm_name=story.arm_name,
        arm_class=lambda arm: arm if arm in ARMS else "other",
        stage_of=lambda step: stages.get(step, ""),
    )
    return environment.from_string(source).render({f.name: getattr(page, f.name) for f in fields(page)})
