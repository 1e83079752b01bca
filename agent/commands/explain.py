"""`tunesmith explain RUN`: the findings of a run with their evidence, and the step that each proposes, priced."""

from __future__ import annotations

from typing import TypedDict

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.memory.errors import TunesmithError
from tunesmith.tools.core.format import duration
from tunesmith.tools.evaluation.findings import Proposal, findings
from tunesmith.tools.pipeline.run_step import price
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


class ProposalShape(TypedDict):
    """A proposed step, as the document shows it."""

    stage: str
    fields: dict[str, object]
    why: str
    estimated_seconds: float | None


class FindingShape(TypedDict):
    """A finding, as the document shows it."""

    kind: str
    says: str
    evidence: dict[str, object]
    next: ProposalShape | None


class Explanation(TypedDict):
    """What `tunesmith explain RUN --json` prints."""

    run: str
    findings: list[FindingShape]


def document(ws: Workspace, run: str) -> Explanation:
    """The findings in the documented shape. Raises NotFound for an unknown run."""
    shapes: list[FindingShape] = [
        {
            "kind": one.kind,
            "says": one.says,
            "evidence": {**one.evidence, **({"cases": list(one.cases)} if one.cases else {})},
            "next": _next(ws, run, one.next) if one.next else None,
        }
        for one in findings(ws.store, run)
    ]
    return {"run": run, "findings": shapes}


def _next(ws: Workspace, run: str, proposal: Proposal) -> ProposalShape:
    return {
        "stage": proposal.stage,
        "fields": dict(proposal.fields),
        "why": proposal.why,
        "estimated_seconds": estimated_seconds(ws, run, proposal),
    }


def estimated_seconds(ws: Workspace, run: str, proposal: Proposal) -> float | None:
    """What a proposed step would take; None where it cannot be priced now."""
    try:
        return price(ws, StepRequest(proposal.stage, dict(proposal.fields), run)).estimate.seconds
    except (TunesmithError, KeyError, TypeError, ValueError):
        return None


def view(explanation: Explanation) -> RenderableType:
    """The same for a terminal."""
    lines: list[RenderableType] = []
    for one in explanation["findings"]:
        lines.append(render.plain(f"{one['kind']}: {one['says']}"))
        if isinstance(cases := one["evidence"].get("cases"), list) and cases:
            lines.append(render.plain(f"  cases: {', '.join(map(str, cases[:12]))}"))
        if proposed := one["next"]:
            fields = " ".join(f"{name}={value}" for name, value in proposed["fields"].items())
            cost = proposed["estimated_seconds"]
            price = f", about {duration(cost)}" if cost is not None else ""
            lines.append(render.plain(f"  next: {proposed['stage']} {fields} ({proposed['why']}{price})"))
    return Group(*lines) if lines else "the records say nothing yet"
