"""What is shown of training rows: the newest ones to be looked at, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.commands.review import Review
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import clip
from tunesmith.tools.data.balance import Suspect, counted, left_out
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.spec import Spec

_CHARACTERS = 160
"""A row takes a few lines of a terminal; review shows it whole."""


def review_of(store: Store, run: str | None = None) -> Review:
    """The newest rows, of a run or of all, to be looked at. Raises NotFound where there are none."""
    if run is not None:
        run = store.run(run).id
    where, values = ("AND run = ?", [run]) if run else ("", [])
    artifacts = store.read(f"SELECT artifact FROM artifacts WHERE kind = 'rows' {where} ORDER BY rowid DESC", *values)
    if not artifacts:
        none = f"run {run} has no rows yet" if run else "no run has rows yet"
        raise NotFound(f"{none}; `tunesmith generate` makes some, `tunesmith rows import FILE` takes yours")
    newest = store.artifact(artifacts[0]["artifact"])
    return Review.of(store, newest, _spec(str(newest.meta.get("behaviour") or "")))


def _spec(behaviour: str | None) -> Spec | None:
    """The behaviour that rows are of; None where they are of none, or its file is gone."""
    try:
        return load_behaviour(behaviour) if behaviour else None
    except BadInput:
        return None


def rows_view(review: Review, page: Sequence[Suspect]) -> RenderableType:
    """The labels' balance, and rows as a table."""
    cells = [
        [s.row.row_id, clip(_flat(s.message), _CHARACTERS), clip(_flat(review.answer(s)), _CHARACTERS),
         clip(s.why, _CHARACTERS)] for s in page
    ]  # fmt: skip
    balance = [
        f"{name}: {', '.join(f'{value} {count}' for value, count in counts.items())}"
        for name, counts in balance_of(review).items()
    ]
    table = render.rows_table(["row", "message", "answer", "why it is shown"], cells, exact=True)
    return Group(table, *(render.plain(line) for line in balance))


def balance_of(review: Review) -> dict[str, dict[str, int]]:
    """Rows that would be trained on by the value of each attribute that the answer shows."""
    rows = [suspect.row for suspect in review.suspects if not left_out(suspect.row)]
    if not review.spec or not rows:
        return {}
    return {a.name: counted(review.spec, a, rows) for a in review.spec.attributes if a.shown}


def document(review: Review, suspect: Suspect) -> dict[str, object]:
    """A row as `--json` prints it."""
    row, mark = suspect.row, review.marks.get(suspect.row.row_id)
    return {
        "row_id": row.row_id, "origin": row.origin, "message": suspect.message, "answer": review.answer(suspect),
        "verdict": kind_of(row), "reason": row.verdict.reason if row.verdict else "",
        "suspicion": round(suspect.score, 3), "why": suspect.why, "mark": mark.decision if mark else None,
    }  # fmt: skip


def of_kind(review: Review, kind: str) -> list[Suspect]:
    """The rows with a verdict; all where none is named. Raises BadInput where no row has it, naming those there are."""
    chosen = [suspect for suspect in review.suspects if kind in ("", kind_of(suspect.row))]
    if review.suspects and not chosen:
        counts = Counter(kind_of(suspect.row) for suspect in review.suspects)
        there = ", ".join(f"{name} {count}" for name, count in counts.most_common() if name)
        what = f"there are: {there}" if there else "they have none before `tunesmith critique`"
        raise BadInput(f"no row has the verdict {kind[:60]!r}; {what}")
    return chosen


def kind_of(row: TrainingRow) -> str:
    """What was decided about a row; empty before critique."""
    return row.verdict.kind if row.verdict else ""


def _flat(text: str) -> str:
    return text.replace("\n", "\\n")
