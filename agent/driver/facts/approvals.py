"""What was agreed to and what was refused, by whom, when, at which price, and the words that came with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tunesmith.agent.commands import render
from tunesmith.agent.driver.facts.answer import Answer, Question, clip, day, find, listed, said_of
from tunesmith.agent.driver.understanding.times import window
from tunesmith.tools.core.format import duration
from tunesmith.tools.pipeline import catalog

_SHOWN = 5


def answer(question: Question) -> Answer:
    """The decisions that are asked about, the newest first."""
    query, store = question.query, question.store
    run = find(store, query.run) if query.run else None
    span = window(query.when)
    rows = store.read(
        "SELECT a.*, s.run, s.arm, s.seconds, s.status FROM approvals a JOIN steps s ON s.step = "
        "a.step ORDER BY a.rowid DESC"
    )
    chosen = [
        row
        for row in rows
        if (run is None or row["run"] == run.id)
        and query.stage in ("", row["stage"])
        and query.step in ("", row["step"])
        and (span is None or span[0] <= row["decided_at"] < span[1])
    ]
    if query.aspect == "status":
        return _unasked(question, chosen, run.id if run else "")
    of_kind = [row for row in chosen if query.decision in ("", row["decision"])]
    where = f"{f' in {run.id}' if run else ''}{f' {query.when}' if span else ''}"
    stage = f" of {query.stage}" if query.stage else ""
    if not of_kind:
        what = {"no": "refused", "yes": "approved"}.get(query.decision, "decided")
        return Answer((f"Nothing{stage} was {what}{where}; {len(rows)} plans were decided on in all.",))
    counts = Counter(row["decision"] for row in chosen)
    lines = [f"{_plans(counts['yes'], stage)} approved and {counts['no']} refused{where}."]
    if query.decision:
        lines = [f"{_plans(len(of_kind), stage)} {'approved' if query.decision == 'yes' else 'refused'}{where}:"]
    if query.aspect == "who":
        by = Counter(str(row["decided_by"]) for row in of_kind)
        lines.insert(0, "Decided by " + ", ".join(f"{said_of(name)} ({n})" for name, n in by.most_common(4)) + ".")
    lines += [_line(row) for row in of_kind[:_SHOWN]]
    lines += [f"{len(of_kind) - _SHOWN} more before those."] if len(of_kind) > _SHOWN else []
    table = [
        [
            r["approval"],
            r["run"],
            r["stage"],
            r["decision"],
            said_of(r["decided_by"]),
            clip(r["reason"], 80),
            day(r["decided_at"]),
        ]
        for r in of_kind
    ]
    return Answer(
        tuple(lines),
        lambda: render.rows_table(["approval", "run", "stage", "decision", "by", "reason", "when"], table, exact=True),
    )


def _unasked(question: Question, decided: Sequence[Any], run: str) -> Answer:
    """Whether an expensive step ran that nobody had agreed to."""
    agreed = {row["step"] for row in decided if row["decision"] == "yes"}
    steps = [s for one in question.store.runs() if run in ("", one.id) for s in question.store.steps(one.id)]
    ran = [s for s in steps if s.started_at and catalog.ENTRIES[s.stage].asks(s.request)]
    without = [s for s in ran if s.id not in agreed]
    by = Counter(said_of(row["decided_by"]) for row in decided if row["decision"] == "yes")
    if without:
        return Answer(
            (f"{len(without)} of {len(ran)} expensive steps have no recorded yes: {listed([s.id for s in without])}.",)
        )
    return Answer(
        (
            f"No: each of the {len(ran)} expensive steps that ran had a yes before it began.",
            "Given by " + ", ".join(f"{name} ({n})" for name, n in by.most_common(4)) + ".",
        )
    )


def _plans(count: int, stage: str) -> str:
    return f"{count} plan{stage} was" if count == 1 else f"{count} plans{stage} were"


def _line(row: object) -> str:
    approval = dict(row)  # type: ignore[call-overload]
    try:
        price = duration(float(json.loads(approval["price"]).get("seconds", 0.0)))
    except (ValueError, TypeError):
        price = "no price"
    arm = f" {approval['arm']}" if approval["stage"] == "evaluate" and approval["arm"] else ""
    reason = f": {clip(approval['reason'], 100)}" if approval["reason"] else ""
    verb = "approved" if approval["decision"] == "yes" else "refused"
    return (
        f"  {approval['stage']}{arm} ({approval['step']} of {approval['run']}) {verb} by "
        f"{said_of(approval['decided_by'])} {day(approval['decided_at'])} at about {price}{reason}"
    )
