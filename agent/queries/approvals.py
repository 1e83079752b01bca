"""What was agreed to and what was refused, by whom, when, at which price, and the words that came with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.agent.commands import render
from tunesmith.agent.queries.answer import (
    Answer,
    Context,
    Query,
    RunName,
    Since,
    StageName,
    StepName,
    Until,
    clip,
    day,
    decided_by,
    find,
    span,
    within,
)
from tunesmith.tools.core.format import count, duration, listed
from tunesmith.tools.pipeline import catalog

_SHOWN = 5
_DECIDED = """SELECT a.*, s.run, s.arm, s.seconds, s.status FROM approvals a JOIN steps s ON s.step = a.step
ORDER BY a.rowid DESC"""


class ApprovalsQuery(Query):
    """What the user agreed to or refused: by whom, when, at which price; or whether anything ran unasked."""

    kind: Literal["approvals"] = "approvals"
    decision: Annotated[
        Literal["any", "yes", "no", "unasked"], Field(description="unasked: expensive steps that ran without a yes")
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
    priced_seconds: float | None


def answer(query: ApprovalsQuery, context: Context) -> Answer:
    """The decisions that are asked about, the newest first."""
    store, run = context.store, find(context.store, query.run).id if query.run else ""
    rows = store.read(_DECIDED)
    chosen = [
        row
        for row in rows
        if run in ("", row["run"])
        and query.stage in ("", row["stage"])
        and query.step in ("", row["step"])
        and within(row["decided_at"], query.since, query.until)
    ]
    if query.decision == "unasked":
        return _unasked(context, chosen, run)
    of_kind = [row for row in chosen if query.decision in ("any", row["decision"])]
    where, of = (
        f"{f' in {run}' if run else ''}{span(query.since, query.until)}",
        f" of {query.stage}" * bool(query.stage),
    )
    if not of_kind:
        what = {"no": "refused", "yes": "approved", "any": "decided"}[query.decision]
        return Answer((f"Nothing{of} was {what}{where}; {len(rows)} plans were decided on in all.",))
    counts = Counter(row["decision"] for row in chosen)
    if query.decision == "any":
        head = f"{_plans(counts['yes'], of)} approved and {counts['no']} refused{where}."
    else:
        head = f"{_plans(len(of_kind), of)} {'approved' if query.decision == 'yes' else 'refused'}{where}:"
    facts = [_fact(row) for row in of_kind]
    by = Counter(one.by for one in facts).most_common(4)
    lines = [head, "Decided by " + ", ".join(f"{name} ({n})" for name, n in by) + ".",
             *(_line(one) for one in facts[:_SHOWN])]  # fmt: skip
    lines += [f"{len(facts) - _SHOWN} more before those."] if len(facts) > _SHOWN else []
    table = [
        [row["approval"], one.run, one.stage, one.decision, one.by, clip(one.reason, 80), day(one.decided_at)]
        for row, one in zip(of_kind, facts, strict=True)
    ]
    columns = ["approval", "run", "stage", "decision", "by", "reason", "when"]
    return Answer(tuple(lines), tuple(facts), lambda: render.rows_table(columns, table, exact=True))


def _unasked(context: Context, decided: Sequence[Any], run: str) -> Answer:
    """Whether an expensive step ran that nobody had agreed to."""
    agreed = {row["step"] for row in decided if row["decision"] == "yes"}
    steps = [s for one in context.store.runs() if run in ("", one.id) for s in context.store.steps(one.id)]
    ran = [s for s in steps if s.started_at and catalog.ENTRIES[s.stage].asks(s.request)]
    without = [s.id for s in ran if s.id not in agreed]
    if without:
        return Answer((f"{len(without)} of {len(ran)} expensive steps have no recorded yes: {listed(without, 8)}.",))
    by = Counter(decided_by(row["decided_by"]) for row in decided if row["decision"] == "yes")
    return Answer((
        f"No: each of the {len(ran)} expensive steps that ran had a yes before it began.",
        "Given by " + ", ".join(f"{name} ({n})" for name, n in by.most_common(4)) + ".",
    ))  # fmt: skip


def _plans(number: int, of_stage: str) -> str:
    return f"{count(number, 'plan')}{of_stage} {'was' if number == 1 else 'were'}"


def _fact(row: Any) -> Approval:
    try:
        seconds: float | None = float(json.loads(row["price"]).get("seconds", 0.0))
    except (ValueError, TypeError):
        seconds = None
    arm = f" {row['arm']}" if row["stage"] == "evaluate" and row["arm"] else ""
    return Approval(
        row["step"], row["run"], f"{row['stage']}{arm}", row["decision"], decided_by(row["decided_by"]),
        row["reason"] or "", row["decided_at"], seconds,
    )  # fmt: skip


def _line(one: Approval) -> str:
    verb = "approved" if one.decision == "yes" else "refused"
    price = "no price" if one.priced_seconds is None else duration(one.priced_seconds)
    reason = f": {clip(one.reason, 100)}" if one.reason else ""
    return f"  {one.stage} ({one.step} of {one.run}) {verb} by {one.by} {day(one.decided_at)} at about {price}{reason}"
