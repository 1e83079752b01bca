"""What a step would take that nobody has ordered, what it takes over from its run; and what was agreed to and refused,
by whom, when and at which price."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Row
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import (
    Answer,
    Context,
    cite,
    clip,
    day,
    decided_by,
    find,
    shortened,
    span,
    tries_again,
    within,
)
from tunesmith.agent.queries.arguments import Query, RunName, Since, StageName, StepName, Until
from tunesmith.agent.queries.facts import Proposed
from tunesmith.memory.errors import BadInput, TunesmithError
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import DONE, Run, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, listed, size
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.plan_file import parse_fields
from tunesmith.tools.pipeline.run_step import price
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


class PriceQuery(Query):
    """What a step would take that was not ordered: time, memory, disk. Nothing is begun."""

    kind: Literal["price"] = "price"
    stage: StageName
    run: RunName = ""
    values: dict[str, bool | int | float | str] = Field({}, description="Settings that it would have: {rows: 5000}")
    times: dict[str, float] = Field({}, description="Settings as multiples of what they were: {rows: 2} is twice")
    only: Annotated[Literal["", "time", "disk", "memory"], Field(description="Only this of it; empty: all")] = ""


def answer(query: PriceQuery, context: Context) -> Answer:
    """The time first, then memory and disk, and what it took before. Raises BadInput where it cannot be priced."""
    stage = query.stage
    if stage not in catalog.BY_NAME:
        raise BadInput(f"There is no stage {clip(stage, 30)}; they are {', '.join(catalog.BY_NAME)}.")
    run = context.run(query.run).id if query.run or context.current else ""
    asked: dict[str, object] = dict(query.values)
    fields = parse_fields(stage, inherited(context.ws, stage, asked, run, again=True, times=query.times))
    asked |= {name: fields[name] for name in query.times}
    plan = price(context.ws, StepRequest(stage, fields, run))
    given = " ".join(f"{name}={value}" for name, value in asked.items())
    before = _before(context, stage, run)
    cost = plan.estimate
    if query.only:
        memory = size(cost.peak_vram_bytes or cost.peak_ram_bytes) + (" of VRAM" if cost.peak_vram_bytes else " of RAM")
        part = {"time": f"about {duration(cost.seconds)}", "disk": f"about {size(cost.disk_bytes)} of disk"}
        does = f"{stage}{f' with {given}' if given else ''} {'takes' if query.only == 'time' else 'needs'}"
        line = f"{does} {part.get(query.only, f'at most {memory}')} here. Nothing is begun."
        return Answer((line,), proposals=_meant(run, stage, asked, fields))
    vram = f" and {size(cost.peak_vram_bytes)} of VRAM" if cost.peak_vram_bytes else ""
    sizes = quantized_sizes(context.store, find(context.store, run)) if run and stage == "quantize" else ""
    lines = [
        f"About {duration(cost.seconds)} for {stage}{f' with {given}' if given else ''} here, peak memory "
        f"{size(cost.peak_ram_bytes)}{vram}, disk {size(cost.disk_bytes)}.",
        f"By {cost.basis}." if cost.basis else "",
        f"Before, {stage} took {duration(before.seconds)} ({cite(before)})." if before else "",
        f"The model becomes {sizes}." if sizes else "",
        _training_on(context, asked.get("rows"), run) if stage == "generate" else "",
        f"Nothing is begun; “{stage}{f' {given}' if given else ''}” shows the same price and asks.",
    ]
    return Answer(tuple(line for line in lines if line), proposals=_meant(run, stage, asked, fields))


def _meant(run: str, stage: str, asked: Mapping[str, object], fields: Mapping[str, object]) -> tuple[Proposed, ...]:
    """The step whose price was told, for `ok do it`."""
    return (Proposed(run, stage, asked),) if catalog.BY_NAME[stage].asks(fields) else ()


def _before(context: Context, stage: str, run: str) -> Step | None:
    done = [s for s in context.store.steps(run or None, status=DONE) if s.stage == stage]
    return done[-1] if done else None


def _training_on(context: Context, rows: object, run: str) -> str:
    """How long a training on so many rows would take, at the pace of the run's own; empty where there was none."""
    trained, judged = _before(context, "train", run), _before(context, "critique", run)
    before = judged.report.get("train_rows") if judged else None
    if not (trained and trained.seconds and isinstance(rows, int) and isinstance(before, int) and before):
        return ""
    seconds = trained.seconds * rows / before
    return f"Training on {rows:,} rows at the pace of {cite(trained)} ({before} rows): about {duration(seconds)}."


def quantized_sizes(store: Store, run: Run) -> str:
    """How large the quantized model of a run becomes, by each of its formats; empty where its base's shape is not
    recorded."""
    config = next((a.meta["config"] for a in reversed(store.artifacts(run.id, "base")) if "config" in a.meta), None)
    if not isinstance(config, Mapping):
        return ""
    sizes = {scheme.bits: scheme.weight_bytes(config, scheme.group_of(config)) for scheme in SCHEMES.values()}
    return "about " + " or ".join(f"{size(weights)} at {bits} bits" for bits, weights in sorted(sizes.items()))


def cost_of(ws: Workspace, stage: str, run: str, fields: Mapping[str, object]) -> str:
    """The price of a step in a clause, as its run does it; why there is none where it cannot be done as things are."""
    try:
        request = parse_fields(stage, inherited(ws, stage, fields, run, again=True))
        cost = price(ws, StepRequest(stage, request, run)).estimate
    except TunesmithError as error:
        return f"none as things are ({shortened(str(error), 200)})"
    vram = f" and {size(cost.peak_vram_bytes)} of VRAM" if cost.peak_vram_bytes else ""
    return (
        f"about {duration(cost.seconds)}, {size(cost.peak_ram_bytes)} of memory{vram}, {size(cost.disk_bytes)} of disk"
    )


def not_tested(ws: Workspace, run: str, arm: str) -> str:
    """That nobody knows what an untested model lost, and what a test of it takes."""
    return (
        f"The {arm} model of {run} was not tested, so whether something broke on the way to it is not known. “Evaluate "
        f"the {arm} model” tells: {cost_of(ws, 'evaluate', run, {'arm': arm})}; it asks before it starts."
    )


def how_it_goes_on(ws: Workspace, step: Step) -> str:
    """How a step that broke off is taken up, and its price, which is asked about; empty for one that its run has left
    behind."""
    if not (again := tries_again(ws.store, step)):
        return ""
    arm = {"arm": step.request["arm"]} if step.request.get("arm") else {}
    return f"{again} Its price: {cost_of(ws, step.stage, step.run, arm)}; it asks before it starts."


_NEVER = frozenset({"run", "fresh", "rollback", "accept", "port", "arm", "role", "system_prompt"})


def inherited(
    ws: Workspace,
    stage: str,
    asked: Mapping[str, object],
    run_name: str = "",
    *,
    again: bool = False,
    times: Mapping[str, float] | None = None,
) -> dict[str, object]:
    """The fields of a step: what was asked for, and below it what its run has done before; with `again` all of that.

    `times` are fields as a multiple of what they were. Raises NotFound, BadInput.
    """
    times = times or {}
    run = find(ws.store, run_name) if run_name else ws.store.newest_run()
    if run is None or stage in ("base", "merge") or asked.get("rollback"):
        return dict(asked)
    known = ws.store.steps(run.id)
    planned = {spec["stage"]: as_object(spec.get("fields", {})) for spec in run.planned}
    own = _newest(known, stage, str(asked.get("arm", "")))
    declared = catalog.BY_NAME[stage].load()
    names = [name for name in declared.request.model_fields if name not in _NEVER]
    carried = names if again else [name for name in names if name in declared.lasting]
    if own is not None:  # what a rule chose for other values or other rows is chosen anew
        carried = [name for name in carried if name not in as_object(own.plan.get("reasons") or {})]
    fields: dict[str, object] = {}
    for name in carried:
        if own is not None and name in own.request:
            fields[name] = own.request[name]
        elif name in planned.get(stage, {}):
            fields[name] = planned[stage][name]
        elif other := declared.takes_from.get(name):
            newest = _newest(known, other, "")
            if newest is not None and newest.request.get(name):
                fields[name] = newest.request[name]
    if stage == "evaluate" and asked.get("arm", "adapter") != "prompted":
        fields.pop("behaviour", None)
    if stage in ("deploy", "evaluate") and (arm := _last_arm(ws, run.id)):
        fields["arm"] = arm
    fields = declared.carried_over(fields, asked)
    return {**fields, **asked, **_multiplied(stage, times, fields, own)}


def _multiplied(
    stage: str, times: Mapping[str, float], fields: Mapping[str, object], own: Step | None
) -> dict[str, object]:
    """The fields that are to be a multiple of what they were in the run's newest such step. Raises BadInput."""
    multiplied: dict[str, object] = {}
    for name, factor in times.items():
        before = fields.get(name, own.request.get(name) if own else None)
        if not isinstance(before, int | float) or not before:
            raise BadInput(
                f"{name} has no value yet that could be multiplied; say it outright, such as “{stage} with {name}=…”"
            )
        multiplied[name] = round(before * factor) if isinstance(before, int) else before * factor
    return multiplied


def _last_arm(ws: Workspace, run: str) -> str:
    """The arm that stands last in the chain of what the run has made; empty where nothing was tuned yet."""
    kinds = {artifact.kind for artifact in ws.store.artifacts(run)}
    return next((arm for arm in ("quantized", "merged", "adapter") if arm in kinds), "")


def _newest(steps: list[Step], stage: str, arm: str) -> Step | None:
    of_stage = [step for step in steps if step.stage == stage]
    of_arm = [step for step in of_stage if arm and step.arm == arm]
    matching = of_arm or of_stage
    return matching[-1] if matching else None


# Agreed to and refused


_MOST_DECISIONS = 5
"""Lines of an answer: a person asks for the last ones."""
_DECIDED = """SELECT a.*, s.run, s.arm, s.seconds, s.status FROM approvals a JOIN steps s ON s.step = a.step
ORDER BY a.rowid DESC"""


class ApprovalsQuery(Query):
    """What the user agreed to or refused: by whom, when, at which price; what was asked before a price, and the answer;
    or whether anything ran unasked."""

    kind: Literal["approvals"] = "approvals"
    decision: Annotated[
        Literal["any", "yes", "no", "unasked", "asked"],
        Field(description="unasked: expensive steps that ran without a yes. asked: questions before a price"),
    ] = "any"
    run: RunName = ""
    stage: StageName = ""
    step: StepName = ""
    since: Since = None
    until: Until = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A decision about a step's price; the words that came with it are the user's own."""

    step: str
    run: str
    stage: str
    decision: str
    by: str
    reason: str
    decided_at: float
    priced_seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A yes or a no to what was asked before a price."""

    stage: str
    run: str
    answer: str
    question: str
    at: float


def approvals(query: ApprovalsQuery, context: Context) -> Answer:
    """The decisions that are asked about, the newest first."""
    store, run = context.store, find(context.store, query.run).id if query.run else ""
    rows = store.read(_DECIDED)
    of_it = {"run": run, "stage": query.stage, "step": query.step}
    chosen = [row for row in rows if within(row["decided_at"], query.since, query.until)
              and all(asked in ("", row[name]) for name, asked in of_it.items())]  # fmt: skip
    if query.decision == "unasked":
        return _unasked(context, chosen, run)
    if query.decision == "asked":
        return _questions(store, query, run)
    of_kind = [row for row in chosen if query.decision in ("any", row["decision"])]
    where, of = (
        f"{f' in {run}' if run else ''}{span(query.since, query.until)}",
        f" of {query.stage}" * bool(query.stage),
    )
    what = _DECISIONS.get(query.decision, "decided")
    if not of_kind:
        first = f"Nothing{of} was {what}{where}; {len(rows)} plans were decided on in all"
        return Answer(
            (f"{first}{', the newest:' if rows else '.'}", *(_line(_fact(row)) for row in rows[:_MOST_DECISIONS]))
        )
    counts = Counter(row["decision"] for row in chosen)
    head = f"{_plans(len(of_kind), of)} {what}{where}:"
    if query.decision == "any":
        head = f"{_plans(counts['yes'], of)} approved and {counts['no']} refused{where}."
    facts = [_fact(row) for row in of_kind]
    # nearly all of them: at a terminal, in a script, by another agent
    by = Counter(one.by for one in facts).most_common(4)
    lines = [head, "Decided by " + ", ".join(f"{name} ({n})" for name, n in by) + ".",
             *(_line(one) for one in facts[:_MOST_DECISIONS])]  # fmt: skip
    lines += [f"{len(facts) - _MOST_DECISIONS} more before those."] if len(facts) > _MOST_DECISIONS else []
    others = {"yes": "no", "no": "yes"}.get(query.decision, "")
    lines += [_also(others, [_fact(row) for row in chosen if row["decision"] == others])] if others else []
    table = [
        [row["approval"], one.run, one.stage, one.decision, one.by, clip(one.reason, 80), day(one.decided_at)]
        for row, one in zip(of_kind, facts, strict=True)
    ]
    columns = ["approval", "run", "stage", "decision", "by", "reason", "when"]
    return Answer(tuple(lines), tuple(facts), lambda: render.rows_table(columns, table, exact=True))


_DECISIONS = {"no": "refused", "yes": "approved"}


def _also(decision: str, facts: Sequence[Approval]) -> str:
    """What was refused, beside what was agreed to; and the other way round."""
    each = listed([f"{one.stage} ({one.step} of {one.run})" for one in facts], _MOST_DECISIONS)
    what = _DECISIONS[decision]
    return f"{what[0].upper()}{what[1:]}: {each}." if facts else f"None of these was {what}."


def _questions(store: Store, query: ApprovalsQuery, run: str) -> Answer:
    """What was asked before a price, such as whether to train on rows that nothing has checked, and what was said."""
    rows = store.read(
        "SELECT run, at, data FROM events WHERE event = 'question.answered' AND ? IN ('', run) ORDER BY rowid DESC", run
    )
    every = [(row, json.loads(row["data"])) for row in rows if within(row["at"], query.since, query.until)]
    # A question about a stage's work may have been put before the price of the one in front of it.
    asked = [(row, data) for row, data in every if query.stage in ("", data["stage"])]
    stage = query.stage if asked or not every else ""
    asked = asked or every
    where = f"{f' of {stage}' if stage else ''}{f' in {run}' if run else ''}{span(query.since, query.until)}"
    if not asked:
        return Answer((f"Nothing{where} was asked before a price, so there was nothing to answer.",))
    facts = tuple(
        Reply(data["stage"], row["run"] or "", data["answer"], data["text"], row["at"]) for row, data in asked
    )
    lines = [
        f"  {one.stage}{f' in {one.run}' if one.run else ''}, {day(one.at)}: you said {one.answer} to: "
        f"{clip(one.question, 300)}"
        for one in facts[:_MOST_DECISIONS]
    ]
    return Answer(
        (f"{count(len(facts), 'question')}{where} {'was' if len(facts) == 1 else 'were'} answered:", *lines), facts
    )


def _unasked(context: Context, decided: Sequence[Row], run: str) -> Answer:
    """Whether an expensive step ran that nobody had agreed to."""
    agreed = {row["step"] for row in decided if row["decision"] == "yes"}
    steps = [s for one in context.store.runs() if run in ("", one.id) for s in context.store.steps(one.id)]
    ran = [s for s in steps if s.started_at and catalog.ENTRIES[s.stage].asks(s.request)]
    without = [s.id for s in ran if s.id not in agreed]
    if without:
        # a line or two
        return Answer((f"{len(without)} of {len(ran)} expensive steps have no recorded yes: {listed(without, 8)}.",))
    by = Counter(decided_by(row["decided_by"]) for row in decided if row["decision"] == "yes")
    return Answer((
        f"No: each of the {len(ran)} expensive steps that ran had a yes before it began.",
        "Given by " + ", ".join(f"{name} ({n})" for name, n in by.most_common(4)) + ".",
        "Nothing expensive starts without a yes, at its price or beforehand; what runs goes on without its terminal.",
    ))  # fmt: skip


def _plans(number: int, of_stage: str) -> str:
    return f"{count(number, 'plan')}{of_stage} {'was' if number == 1 else 'were'}"


def _fact(row: Row) -> Approval:
    seconds = float(json.loads(row["price"]).get("seconds", 0.0))
    arm = f" {row['arm']}" if row["stage"] == "evaluate" and row["arm"] else ""
    return Approval(
        row["step"], row["run"], f"{row['stage']}{arm}", row["decision"], decided_by(row["decided_by"]),
        row["reason"] or "", row["decided_at"], seconds,
    )  # fmt: skip


def _line(one: Approval) -> str:
    verb = _DECISIONS["yes" if one.decision == "yes" else "no"]
    reason = f": {clip(one.reason, 100)}" if one.reason else ""
    by = f"{verb} by {one.by} {day(one.decided_at)}, priced {duration(one.priced_seconds)}{reason}"
    return f"  {one.stage} ({one.step} of {one.run}) {by}"
