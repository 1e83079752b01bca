"""The same review as a small page of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tunesmith.agent.commands.local_page import PageServer
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.review import Review
from tunesmith.memory.errors import BadInput
from tunesmith.memory.marks import DECISIONS
from tunesmith.tools.core.format import unspelled, visible

_ROWS_MAX = 2_000
"""The page holds all of them at once; nobody reviews more in a sitting."""


class ReviewServer(PageServer):
    """Serves one review."""

    def __init__(self, review: Review, port: int = 0, say: Callable[[str], None] = lambda line: None) -> None:
        super().__init__("review.html", port, say, reads={"rows": self.rows}, acts={"mark": self.mark})
        self.review = review
        self.suspects = review.suspects[:_ROWS_MAX]
        self.by_id = {suspect.row.row_id: suspect for suspect in self.suspects}

    def rows(self) -> dict[str, object]:
        """What the page shows."""
        marks = self.review.marks
        entries = [
            {"row_id": s.row.row_id, "title": visible(f"{s.row.row_id}: {s.why}"), "message": visible(s.message),
             "answer": visible(self.review.answer(s)),
             "choices": {visible(name): visible(answer) for name, answer in self.review.choices(s).items()},
             "mark": marks[s.row.row_id].decision if s.row.row_id in marks else None}
            for s in self.suspects
        ]  # fmt: skip
        return {"rows": entries, "marks": len(marks)}

    def mark(self, request: dict[str, object]) -> dict[str, object]:
        """Keep a mark that the page sent. Raises BadInput."""
        suspect, decision, answer = (
            self.by_id.get(str(request.get("row_id"))),
            request.get("decision"),
            request.get("answer"),
        )
        if suspect is None:
            raise BadInput("there is no such row here")
        if decision not in DECISIONS or not isinstance(answer, str):
            raise BadInput(f"a mark is one of {', '.join(DECISIONS)}, with an answer")
        answer = unspelled(answer)
        if any("\ud800" <= character <= "\udfff" for character in answer):
            raise BadInput("the answer holds half a character; take it out")
        self.review.mark(suspect, decision, answer)
        return {"marks": len(self.review.marks), "answer": visible(self.review.answer(suspect))}


def serve(review: Review, out: Output, *, port: int = 0) -> None:
    """Serve the page until Ctrl-C."""
    with ReviewServer(review, port, out.say) as server:
        out.say(f"look at {len(server.suspects)} rows in a browser of this machine: {server.url} (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)  # a Ctrl-C waits no longer
