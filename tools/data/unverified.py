"""Rows whose labels nothing has read back: what is known of them, and what a person is asked before any is trained on.

The writer drew a label and wrote a message for it; a reader that cannot tell the label even in the user's examples has
checked none of that. What a person marks of such rows decides; else a person has to say that they are trained on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.marks import marks_in
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import PlanQuestion
from tunesmith.tools.core.stats import lower_bound, pass_rate_interval
from tunesmith.tools.data.balance import chosen
from tunesmith.tools.data.behaviour import load_behaviour

UnverifiedRows = Annotated[
    bool, Field(description="Go on with generated rows although nothing could check what they say of a label.")
]
ACCEPTED = "unverified_rows"
"""The field of a request, and what a data set records, that say: a person wants them trained on all the same."""
MARKS_LEAST, SHARE_LEAST = 15, 0.8
"""From so many marks on they decide: the lower bound of the share of right rows has to lie above this."""
_CONFIDENCE = 0.9
_MARKS_ASKED = 20


@dataclass(frozen=True, slots=True)
class Unverified:
    """What is known of the rows that a run generated; `names` is empty where all was read back, or none was written."""

    run: str = ""
    behaviour: str = ""
    """Its folder."""
    names: tuple[str, ...] = ()
    """What the answers say and no reader could tell."""
    read_right: int = 0
    """Of the user's `examples`, so many were read right."""
    examples: int = 0
    rows: int = 0
    """Those that would be trained on."""
    marked_right: int = 0
    """Of the `marked` rows, so many were kept as they are by a person."""
    marked: int = 0
    judged: str = ""
    """The command that judges the rows anew by later marks, where they were judged already."""
    accepted: bool = False
    """Whether a person said already that they are trained on all the same."""

    @property
    def borne_out(self) -> bool:
        """Whether people's marks show that the rows are right."""
        if self.marked < MARKS_LEAST:
            return False
        every = self.marked == self.rows  # and what was wrong is dropped or put right
        return every or lower_bound(self.marked_right, self.marked, _CONFIDENCE) > SHARE_LEAST

    def stop(self, *, accepted: bool) -> tuple[tuple[str, ...], tuple[PlanQuestion, ...]]:
        """The refusal to train on them, and the question instead of it; both empty where nothing stands against it."""
        if not self.names or self.borne_out or accepted or self.accepted:
            return (), ()
        text = f"{self}. Rows of your own or a stronger writer would help.\nTrain on these rows all the same?"
        question = PlanQuestion(text=text, yes={ACCEPTED: True}, needs_person=True, rows_of=self.run)
        return (f"{self}; {self._remedies}",), (question,)

    def notes(self, *, accepted: bool) -> tuple[str, ...]:
        """What a plan says of them once they may be trained on."""
        if not self.names:
            return ()
        if self.borne_out:
            return (self.marks,)
        return (str(self),) if accepted or self.accepted else ()

    def __str__(self) -> str:
        told = f"; {self.marks}" if self.marked else ""
        return (
            f"{', '.join(self.names)}: {self._reading}, so that nothing reliable has checked what the rows of "
            f"{self.run} say of it{told}. A model learns what its rows say, the wrong ones too"
        )

    @property
    def _reading(self) -> str:
        if not self.examples:
            return "the reader could not tell it in your examples"
        return f"the reader was right in {self.read_right} of your {self.examples} examples"

    @property
    def marks(self) -> str:
        """What people's marks came to, with the interval of the share of right rows."""
        low, high = pass_rate_interval(self.marked_right, self.marked)
        return (
            f"a person marked {self.marked} of them and found {self.marked_right} right "
            f"({100 * low:.0f} to {100 * high:.0f} %)"
        )

    @property
    def _asked(self) -> str:
        """How many marks would be enough: of twenty how many right ones, or how many more if all of these are right."""

        def enough(right: int, marked: int) -> bool:
            return lower_bound(right, marked, _CONFIDENCE) > SHARE_LEAST

        if not self.marked:
            right = next(n for n in range(_MARKS_ASKED + 1) if n == _MARKS_ASKED or enough(n, _MARKS_ASKED))
            return f"{_MARKS_ASKED} of them ({right} right are enough)"
        left = max(1, self.rows - self.marked)
        first = max(1, MARKS_LEAST - self.marked)
        more = next((n for n in range(first, left) if enough(self.marked_right + n, self.marked + n)), left)
        return f"{more} more of them (enough if all of these are right)"

    @property
    def _remedies(self) -> str:
        run = self.run
        judged = f"`{self.judged}`, " if self.judged else ""
        return (
            f"what helps: mark {self._asked}, one key each (`tunesmith rows review --run {run}`, {judged}"
            f"then `tunesmith resume {run}`), bring rows of your own (`tunesmith teach "
            f"{self.behaviour} --rows mine.jsonl`), let a stronger model write (`tunesmith teach {self.behaviour} "
            f"--writer MODEL`), or go on all the same: `tunesmith resume {run}` asks that in a terminal, and a request "
            f"says it with {ACCEPTED}=true"
        )


ALL_CHECKED = Unverified()


def unverified_of(store: Store, made: Artifact | None) -> Unverified:
    """What is known of rows, or of those that a data set was made of; marks as they are now."""
    dataset = made if made is not None and made.kind == "dataset" else None
    rows = store.ancestor(dataset, "rows") if dataset else made
    names = tuple(rows.meta.get("unverified") or ()) if rows else ()
    if rows is None or not names:
        return ALL_CHECKED
    trained = to_be_trained(store, rows)
    marks = [mark for mark in marks_in(store, rows.step) if mark.row_id in trained]
    right, examples = _reading_of(rows, names)
    return Unverified(
        run=rows.run,
        behaviour=str(rows.meta["behaviour"]),
        names=names,
        read_right=right,
        examples=examples,
        rows=len(trained),
        marked_right=sum(mark.gold and mark.answer == mark.was for mark in marks),
        marked=len(marks),
        judged=_critique_of(store, dataset) if dataset else "",
        accepted=bool(dataset and dataset.meta.get(ACCEPTED)),
    )


def to_be_trained(store: Store, rows: Artifact) -> frozenset[str]:
    """The ids of the rows of a generate step that are trained on as far as its records tell.

    Raises BadInput for a behaviour that cannot be read.
    """
    spec = load_behaviour(str(rows.meta["behaviour"]))
    return chosen(spec, store.rows(rows.step), int(str(rows.meta.get("asked", 0))))


def _critique_of(store: Store, dataset: Artifact) -> str:
    """As it was asked for, so that as many rows become cases again."""
    held_out = int(str(store.step(dataset.step).request.get("held_out", 0)))
    return f"tunesmith critique --run {dataset.run}" + (f" --held-out {held_out}" if held_out else "")


def _reading_of(rows: Artifact, names: tuple[str, ...]) -> tuple[int, int]:
    """Of the user's examples, how many the reader read right of what it reads worst, and how many there are; 0 and 0
    where no record says it."""
    try:
        trust = json.loads((rows.path / "reader.json").read_text())["trust"]
        examples = len(load_behaviour(str(rows.meta["behaviour"])).examples)
    except (OSError, ValueError, KeyError, BadInput):
        return 0, 0
    return round(min(trust["labels"].get(name, trust["answers"]) for name in names) * examples), examples
