"""A person looks at rows, the most suspicious first, and every mark is kept as it is made.

`Review` is what the terminal and the page have in common; here it is held in the terminal, one key a row.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from tunesmith.agent.commands import render
from tunesmith.agent.commands.keys import LEAVE, keys, line
from tunesmith.agent.commands.output import Output
from tunesmith.memory.errors import BadInput
from tunesmith.memory.marks import Decision, Mark, add_mark, marks_of
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.balance import Suspect, suspects
from tunesmith.tools.data.behaviour import IMPORTED
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.undecided import to_be_trained, unverified_of

_HELP = "k keep · d drop · r relabel · e edit · / search · n next · b back · q leave"
_KEYS = 9
"""Values that have a key each, the digits of a keyboard; of more `r` shows the list."""


@dataclass(slots=True)
class Review:
    """The rows of a step with what a person said of them."""

    store: Store
    run: str
    step: str
    spec: Spec | None
    suspects: list[Suspect]
    unverified: Artifact | None = None
    """The rows, where the share of right ones decides whether they are trained on: they come by chance then."""
    marks: dict[str, Mark] = field(default_factory=dict)
    """Row id → its mark."""
    mark_counts: Counter[str] = field(default_factory=Counter)
    """Decision → marks that were made in this review."""

    @classmethod
    def of(cls, store: Store, artifact: Artifact, spec: Spec | None) -> Review:
        """A review of the rows that a step made, with the marks that there are."""
        by_chance = bool(artifact.meta.get("unverified"))
        in_order = suspects(spec, store.rows(artifact.step), by_chance=by_chance)
        if by_chance:
            trained = to_be_trained(store, artifact)
            # what is trained on first: that counts
            in_order.sort(key=lambda suspect: suspect.row.row_id not in trained)
        review = cls(store, artifact.run, artifact.step, spec, in_order, artifact if by_chance else None)
        known = {mark.message: mark for mark in marks_of(store, review.behaviour)}
        review.marks = {s.row.row_id: known[s.message] for s in review.suspects if s.message in known}
        return review

    @property
    def order(self) -> str:
        """In which the rows come, in words."""
        return "drawn by chance" if self.unverified else "the most suspicious first"

    @property
    def behaviour(self) -> str:
        """What the marks are kept under."""
        return self.spec.name if self.spec else IMPORTED

    def answer(self, suspect: Suspect) -> str:
        """The answer of a row, as a person put it right."""
        mark = self.marks.get(suspect.row.row_id)
        return mark.answer if mark else suspect.answer

    def mark(self, suspect: Suspect, decision: Decision, answer: str = "") -> None:
        """Keep a mark. Raises BadInput for a corrected answer that is empty or breaks a rule of the behaviour."""
        corrected = decision in ("edit", "relabel")
        answer = answer.strip() if corrected else self.answer(suspect)
        if not answer:
            raise BadInput("there is no answer; drop the row, or say the right one")
        if self.spec and corrected and (broken := broken_rule(self.spec.rules, answer)):
            raise BadInput(f"that breaks a rule of the behaviour: {broken.says}")
        row = suspect.row
        mark = Mark(self.behaviour, self.run, self.step, row.row_id, decision, suspect.message, answer, suspect.answer)
        add_mark(self.store, mark)
        self.marks[row.row_id] = mark
        self.mark_counts[decision] += 1

    def choices(self, suspect: Suspect) -> Mapping[str, str]:
        """Label and value → the row's answer with it; empty where the answers have no label."""
        form = form_of(self.spec) if self.spec else None
        records = form.parse(self.answer(suspect)) if form and form.one_record else None
        if not self.spec or not form or not records or form.computes:
            return {}
        labels = [a for a in self.spec.attributes if a.shown and a.plain and a.kind in ("label", "weekday")]
        return {
            f"{a.name}={value}": form.compose([{**records[0], a.name: value}]) for a in labels for value in a.values
        }

    def search(self, words: str, after: int) -> int | None:
        """The place of the next row behind `after` that holds the words, whatever their case; from the first again."""
        wanted, count = words.lower(), len(self.suspects)
        order = [(after + 1 + n) % count for n in range(count)] if count else []
        return next((n for n in order if wanted in _in_words(self.suspects[n], self)), None)

    def ended(self) -> str:
        """Record that the rows were looked at; what was marked, in a line."""
        counts = ", ".join(f"{count} {decision}" for decision, count in sorted(self.mark_counts.items())) or "none"
        self.store.event(
            "rows.reviewed", run=self.run, step=self.step, behaviour=self.behaviour, marks=self.mark_counts
        )
        then = "; critique reads them when it runs next" if self.mark_counts else ""
        lines = [f"marks of {self.behaviour}: {counts}{then}"]
        if (known := unverified_of(self.store, self.unverified)).marked:
            lines.append(known.marks + ("" if known.borne_out else "; that is not enough to train on them unasked"))
        return "\n".join(lines)


def _in_words(suspect: Suspect, review: Review) -> str:
    return f"{suspect.row.row_id}\n{suspect.message}\n{review.answer(suspect)}\n{suspect.why}".lower()


@dataclass(slots=True)
class TerminalReview:
    """A review at a terminal: where it is, and how it reads keys and lines."""

    review: Review
    key: Callable[[], str]
    line: Callable[[str], str]
    say: Callable[[str], None]
    most: int = 0
    """Rows to look at; 0: all."""
    place: int = 0
    words: str = ""

    def go(self) -> None:
        """Until the rows or the person's patience end."""
        while 0 <= self.place < (self.most or len(self.review.suspects)):
            suspect = self.review.suspects[self.place]
            self._show(suspect)
            if (pressed := self.key()) in LEAVE:
                break
            try:
                self._press(pressed, suspect)
            except BadInput as error:
                self.say(f"  {error}; nothing was changed")

    def _show(self, suspect: Suspect) -> None:
        mark = self.review.marks.get(suspect.row.row_id)
        marked = f" (marked: {mark.decision})" if mark else ""
        at = f"[{self.place + 1} of {self.most or len(self.review.suspects)}]"
        self.say(f"\n{at} {suspect.row.row_id}: {suspect.why}{marked}")
        self.say(f"  > {suspect.message}\n  < {self.review.answer(suspect)}")
        if keys := self._keys(suspect):
            self.say(f"  right is: {' · '.join(f'{key} {choice}' for key, (choice, _) in keys.items())}")
        self.say(f"  {_HELP}")

    def _keys(self, suspect: Suspect) -> dict[str, tuple[str, str]]:
        """Key → a label's value, or several labels' each with its name, and the answer with it; empty for too many."""
        choices = self.review.choices(suspect)
        one = len({choice.partition("=")[0] for choice in choices}) == 1
        named = [(choice.partition("=")[2] if one else choice, answer) for choice, answer in choices.items()]
        return {str(key): choice for key, choice in enumerate(named, 1)} if len(named) <= _KEYS else {}

    def _press(self, pressed: str, suspect: Suspect) -> None:
        if choice := self._keys(suspect).get(pressed):
            self._mark(suspect, "keep" if choice[1] == self.review.answer(suspect) else "relabel", choice[1])
        elif pressed in ("k", "d"):
            self._mark(suspect, "keep" if pressed == "k" else "drop")
        elif pressed == "e":
            answer = self.line("the right answer (\\n for a new line): ").replace("\\n", "\n")
            self._mark(suspect, "edit", answer)
        elif pressed == "r":
            self._relabel(suspect)
        elif pressed == "/":
            self._search()
        elif pressed == "b":
            self.place = max(0, self.place - 1)
        elif pressed in ("n", " ", "\r", "\n"):
            self.place += 1
        else:
            self.say(f"  {pressed!r} is no key here; {_HELP}")

    def _mark(self, suspect: Suspect, decision: Decision, answer: str = "") -> None:
        self.review.mark(suspect, decision, answer)
        self.place += 1

    def _relabel(self, suspect: Suspect) -> None:
        if not (choices := self.review.choices(suspect)):
            raise BadInput("this answer has no label; e edits the whole of it")
        self.say("  " + "  ".join(f"{n} {choice}" for n, choice in enumerate(choices, 1)))
        number = self.line("number: ").strip()
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= len(choices):
            raise BadInput(f"{number!r} is none of 1 to {len(choices)}")
        self._mark(suspect, "relabel", list(choices.values())[int(number) - 1])

    def _search(self) -> None:
        self.words = self.line("search: ").strip() or self.words
        if (hit := self.review.search(self.words, self.place)) is None:
            raise BadInput(f"no row holds {self.words!r}")
        self.place, self.most = hit, 0


def in_terminal(review: Review, out: Output, most: int = 0) -> None:
    """Hold a review in the terminal, from the first row without a mark on; `most` rows, or all of them.

    Where there is no terminal, each line of stdin is a key or what was asked for.
    """
    out.say(f"{len(review.suspects)} rows of {review.run}, {review.order}; every mark is kept as it is made")
    unmarked = next((n for n, suspect in enumerate(review.suspects) if suspect.row.row_id not in review.marks), 0)
    most = min(unmarked + most, len(review.suspects)) if most else 0
    with keys() if sys.stdin.isatty() else nullcontext(_first_of_line) as key:
        TerminalReview(review, key, line, lambda text: out.console.print(render.plain(text)), most, unmarked).go()


def _first_of_line() -> str:
    """A key where no terminal is: the first character of a line."""
    return sys.stdin.readline().lstrip(" \t\r")[:1].lower()
