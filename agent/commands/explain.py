"""`tunesmith explain RUN`: the findings of a run with their evidence, and the step that each proposes, priced."""

from __future__ import annotations

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.commands.comparison_view import fields_words, lost_and_failing, next_line, verdict_sentence
from tunesmith.agent.commands.layout import Prose, prose
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration
from tunesmith.tools.evaluation.compare import ComparedWithHops, compare_with_hops
from tunesmith.tools.evaluation.findings import Proposal, findings
from tunesmith.tools.evaluation.pairing import Evaluations
from tunesmith.tools.pipeline.run_step import price
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace


def document(ws: Workspace, run: str) -> dict[str, object]:
    """What `tunesmith explain RUN --json` prints. Raises NotFound for an unknown run."""
    entries = [
        {
            "kind": one.kind,
            "says": one.says,
            "evidence": {**one.evidence, **({"cases": list(one.cases)} if one.cases else {})},
            "next": _next(ws, run, one.next) if one.next else None,
        }
        for one in findings(ws.store, run)
    ]
    return {"run": run, "findings": entries}


def _next(ws: Workspace, run: str, proposal: Proposal) -> dict[str, object]:
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
    except TunesmithError:
        return None


def view(ws: Workspace, run: str, *, whole: bool, in_repl: bool) -> RenderableType:
    """The same for a terminal: the verdict first, each finding, five lost and five failing cases, one next step."""
    all_findings = findings(ws.store, run)
    if not all_findings:
        return "the records say nothing yet"
    lines: list[RenderableType] = []
    compared = _against_base(ws.store, run)
    if compared is not None:
        lines += [Prose(verdict_sentence(compared), hang=2), render.comparison_table(compared.whole)]
    word = compared.evidence.verdict.word if compared and compared.evidence else ""
    for one in all_findings:
        if one.kind == word and not whole:
            continue  # it stands above the table
        lines.append(prose(f"- {one.kind}: {one.says}"))
        if one.next is not None and whole:
            cost = estimated_seconds(ws, run, one.next)
            price = f", about {duration(cost)}" if cost is not None else ""
            words = f"{one.next.stage} {fields_words(one.next.fields)}".strip()
            lines.append(prose(f"  {words} ({one.next.why}{price})", hang=4))
    if compared is not None:
        lines += lost_and_failing(ws.store, compared, whole=whole)
    if not whole:
        more = f"/explain {run} --all" if in_repl else f"tunesmith explain {run} --all"
        lines.append(prose(f"`{more}` shows every case, and what each finding proposes"))
    return Group(*lines, next_line(all_findings, run, in_repl=in_repl))


def _against_base(store: Store, run: str) -> ComparedWithHops | None:
    """The last trained arm that was evaluated beside the base; None where none was."""
    arms = [arm for arm in Evaluations.of(store, run).arms if arm not in ("base", "prompted")]
    if not arms:
        return None
    try:
        return compare_with_hops(store, run, "base", arms[-1])
    except TunesmithError:  # a suite that cannot be read any more
        return None
