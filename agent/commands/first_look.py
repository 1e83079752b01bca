"""Before written rows are trained on for the first time, a person sees the most suspicious of them and the balance.

Shown where the yes to critique is asked for, so that what is marked counts at once. Nobody has to look: that nobody
did is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.agent.commands import render
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.review import Review, in_terminal
from tunesmith.agent.commands.rows_view import balance_of, document, review_of, rows_view
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.data.balance import SHOWN_FIRST
from tunesmith.tools.data.rows import is_persons
from tunesmith.tools.pipeline.workspace import Approver, Decision, Edited

_STAGE = "critique"
_ASKED = "look through them now, one key a row? [y, or Enter to go on] "


class Marked(Edited):
    """Rows were marked, so that the step is planned anew with the marks."""

    def __init__(self, marks: int) -> None:
        super().__init__({})
        self.args = (f"{marks} rows were marked",)


@dataclass(slots=True)
class FirstLook:
    """An approver that shows the rows before they are judged, and then asks the one that it stands before."""

    approver: Approver
    store: Store
    out: Output
    ask: Callable[[str], str] | None = None
    """Offers to look through them at once; None: they are shown, and how to look through them is told."""

    def __call__(self, plan: Plan, step: str) -> Decision:
        """As the approver; raises Marked where rows were marked just now."""
        if plan.stage == _STAGE:
            self._show(plan.run)
        return self.approver(plan, step)

    def _show(self, run: str) -> None:
        try:
            review = review_of(self.store, run)
        except NotFound:  # no rows yet
            return
        written = [suspect for suspect in review.suspects if not is_persons(suspect.row)]  # some others will be blind
        if not written or self._was_seen(review.step):
            return
        sample = written[:SHOWN_FIRST]
        self.out.say(f"{len(sample)} of {len(written)} rows, {review.order}, before any is trained on:")
        self.out.console.print(rows_view(review, sample))
        rows = [document(review, suspect) for suspect in sample]
        self.out.emit("rows.shown", run=run, step=review.step, rows=rows, balance=balance_of(review))
        self.store.event("rows.shown", run=run, step=review.step, behaviour=review.behaviour, rows=len(sample))
        self._look(review, len(sample))

    def _was_seen(self, step: str) -> bool:
        query = "SELECT 1 FROM events WHERE step = ? AND event IN ('rows.shown', 'rows.reviewed') LIMIT 1"
        return bool(self.store.read(query, step))

    def _look(self, review: Review, most: int) -> None:
        try:
            answer = self.ask(_ASKED).strip().lower() if self.ask else ""
        except EOFError:  # looking is offered, never asked for: the price's own question comes next
            answer = ""
        if answer not in ("y", "yes"):
            by = "the person at the terminal" if self.ask else "shown, nobody was asked to look through them"
            self.store.event("rows.review_skipped", run=review.run, step=review.step, reason=by)
            self.out.say(f"`tunesmith rows review --run {review.run}` looks through them at any time")
            return
        _look(review, self.out, most)


def look_through(store: Store, out: Output, run: str) -> None:
    """Have a person at the terminal mark rows of a run. Raises Marked where they did."""
    _look(review_of(store, run), out, SHOWN_FIRST)


def _look(review: Review, out: Output, most: int) -> None:
    in_terminal(review, out, most)
    out.console.print(render.plain(review.ended()))
    if review.mark_counts:
        raise Marked(review.mark_counts.total())
