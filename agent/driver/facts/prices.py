"""What a step would take that nobody has ordered: priced as every step is, by its own plan, and never begun."""

from __future__ import annotations

from tunesmith.agent.driver.facts.answer import Answer, Question, cite, clip
from tunesmith.agent.driver.inherit import inherited
from tunesmith.agent.driver.understanding.orders import Order, factors_named
from tunesmith.agent.driver.understanding.values import values_named
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import DONE, Step
from tunesmith.tools.core.format import duration, size
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline.plan_file import parse_fields
from tunesmith.tools.pipeline.run_step import price
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


def answer(question: Question) -> Answer:
    """The time first, then memory and disk, and what it took before. Raises BadInput where it cannot be priced."""
    query, stage = question.query, question.query.stage
    run = question.run() if query.run or question.current else None
    asked = values_named(query.text, (stage,), query.text)
    factors = {name: by for name, by in factors_named(query.text, stage).items() if name not in asked}
    order = Order(stage, asked, run.id if run else "", True, factors)
    fields = parse_fields(stage, inherited(question.ws, order))
    asked |= {name: fields[name] for name in factors}
    plan = priced(question.ws, StepRequest(stage, fields, run.id if run else ""))
    given = " ".join(f"{name}={value}" for name, value in asked.items())
    before = _before(question, stage, run.id if run else "")
    lines = [
        f"About {duration(plan.estimate.seconds)} for {stage}{f' with {given}' if given else ''} here, peak memory "
        f"{_peak(plan)}, disk {size(plan.estimate.disk_bytes)}.",
        f"As it is it would be refused: {clip(plan.refusals[0], 200)}." if plan.refusals else "",
        f"By {plan.estimate.basis}." if plan.estimate.basis else "",
        f"Before, {stage} took {duration(before.seconds)} ({cite(before)})." if before else "",
        _training_on(question, asked.get("rows"), run.id if run else "") if stage == "generate" else "",
        f"Nothing is begun; “{stage}{f' {given}' if given else ''}” shows the same price and asks.",
    ]
    return Answer(tuple(line for line in lines if line))


def priced(ws: Workspace, request: StepRequest) -> Plan:
    """The plan of a step that is not to be begun. Raises BadInput where it cannot be made now."""
    try:
        return price(ws, request)
    except (KeyError, TypeError, ValueError) as error:  # an older home lacks what today's prices are made of
        raise BadInput(
            f"{request.stage} cannot be priced from these records ({clip(error, 60)} is missing); “{request.stage}” "
            f"tries it and says why"
        ) from None


def _peak(plan: Plan) -> str:
    vram = plan.estimate.peak_vram_bytes
    return f"{size(plan.estimate.peak_ram_bytes)}{f' and {size(vram)} of VRAM' if vram else ''}"


def _before(question: Question, stage: str, run: str) -> Step | None:
    done = [s for s in question.store.steps(run or None, status=DONE) if s.stage == stage]
    return done[-1] if done else None


def _training_on(question: Question, rows: object, run: str) -> str:
    """How long a training on so many rows would take, at the pace of the run's own; empty where there was none."""
    trained, judged = _before(question, "train", run), _before(question, "critique", run)
    before = judged.report.get("train_rows") if judged else None
    if not (trained and trained.seconds and isinstance(rows, int) and isinstance(before, int) and before):
        return ""
    seconds = trained.seconds * rows / before
    return f"Training on {rows:,} rows at the pace of {cite(trained)} ({before} rows): about {duration(seconds)}."
