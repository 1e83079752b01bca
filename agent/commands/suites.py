"""`suite check`, `suite grade`: no store, no run, no served model, and nothing loaded that only these would need."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from tunesmith.agent.commands import render
from tunesmith.agent.commands.output import Output
from tunesmith.memory.arms import ARMS
from tunesmith.tools.core.format import one_line
from tunesmith.tools.suites.case import PRIMARY_BLOCK, Case

if TYPE_CHECKING:
    from tunesmith.tools.evaluation.unread import Unread
    from tunesmith.tools.suites.loading import CheckedCase, CheckedSuite


def suite(args: argparse.Namespace, out: Output) -> int:
    """`suite check` and `suite grade`: no store, no served model."""
    from tunesmith.tools.evaluation import unread
    from tunesmith.tools.suites import loading, stored_outputs
    from tunesmith.tools.suites.grading.embedding import local_embedder

    if args.action == "check":
        read = loading.load_suites([Path(name) for name in args.files], models=("judge", "embedder"))
        checked, results = loading.checked_suite(read), unread.unread_answers(read.cases)
        # in one line with the others
        rows = [[c.case_id, c.block, ", ".join(c.assertions), one_line(c.message)[:60]] for c in checked.cases]
        document = {**asdict(checked), "unread": [asdict(one) for one in results]}
        table = render.rows_table(["case", "block", "assertions", "message"], rows, optional=["message"])
        out.document(document, Group(table, _explained(checked, read.cases, results)))
        return 0
    outputs = Path(args.outputs) if args.outputs is not None else None
    with local_embedder() as embedder:
        suite_ = stored_outputs.grade_outputs(Path(args.file), outputs, embedder=embedder)
    verdicts: list[list[object]] = [
        [
            graded.case.case_id,
            "pass" if graded.grade.passed else "fail",
            round(graded.grade.score, 3),
            graded.why_failed,
        ]
        for graded in suite_.cases
    ]
    out.document(suite_.to_json(), render.rows_table(["case", "verdict", "score", "reason"], verdicts))
    return 0


def _explained(checked: CheckedSuite, cases: Sequence[Case], results: Sequence[Unread]) -> Text:
    """What a suite asks for and measures, in a few lines."""
    blocks = ", ".join(f"{count} {block}" for block, count in checked.blocks.items())
    lines = [
        f"{len(checked.cases)} cases ({blocks}), {checked.requests} requests an arm",
        *_clustered(checked),
        *_unread(cases, results),
        "assertions: " + (", ".join(f"{count} {kind}" for kind, count in checked.types.items()) or "none"),
        *(f"{kind} asks {_ROLES[role]}" for kind, role in checked.asks.items()),
        *([_ENGLISH] if {"is-refusal", "not-is-refusal"} & checked.types.keys() else []),
        *_restricted(checked.cases),
        *([f"tools offered: {', '.join(checked.tools)}"] if checked.tools else []),
        *([f"metrics: {', '.join(checked.metrics)}"] if checked.metrics else []),
        f"sha256 {checked.sha256}",
    ]
    return Text("\n".join(lines))


def _unread(cases: Sequence[Case], results: Sequence[Unread]) -> list[str]:
    """What passes without a message being read, and what that means."""
    from tunesmith.tools.evaluation.unread import suite_warnings

    passing = [one.says for one in results if one.block == PRIMARY_BLOCK and one.passed]
    notes = [f"without reading a message, {', '.join(passing)}"] if passing else []
    return suite_warnings(cases, results) or notes


def _clustered(checked: CheckedSuite) -> list[str]:
    """Which blocks hold several cases that one answer, or one row, decides."""
    return [
        f"{checked.blocks[block]} {block} cases count as {rows} in a comparison: the others ask the very same as one "
        "of these (a var that the prompt does not name changes no question), or share its metadata.seed_row"
        for block, rows in checked.seed_rows.items()
        if rows < checked.blocks[block]
    ]


def _restricted(cases: Sequence[CheckedCase]) -> list[str]:
    """Which arms are asked what, where the suite's providers name arms."""
    counts = Counter(", ".join(case.arms) for case in cases if set(case.arms) < set(ARMS))
    return [f"{count} cases are asked only of the arms {arms}" for arms, count in counts.items()]


_ENGLISH = "is-refusal knows English refusals alone; for another language ask a judge (llm-rubric)"
_ROLES = {
    "judge": "a judge: a served model that reads the answers (baseline and evaluate serve one)",
    "embedder": "an embedding model",
}
