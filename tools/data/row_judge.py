"""A model's word on whether a row does what the behaviour asks for, by the probability of yes against no.

Its word counts only as far as it was tried out: on what a person marked, else on the user's own examples beside answers
that belong to another message. Shown with its agreement and Cohen's kappa, and with whether it wrote the rows itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tunesmith.memory.marks import Mark
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_log import Asker
from tunesmith.tools.data.answers import answer_messages, answer_problem
from tunesmith.tools.data.faults import EXAMPLE, ORDINARY
from tunesmith.tools.data.held_out import text_of
from tunesmith.tools.data.reading import answer_request, judge_request, yes
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.serving.client import ChatRequest

_COUNTS_FROM = 0.4
"""Kappa from which agreement is more than fair; below it nothing is dropped on a judge's word."""
_MARKS_MIN = 10
_CUTS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9, 0.05, 0.95)
"""The middle first: of cuts that part as well, the first is taken."""
_OTHERS = 2
"""Answers of other examples that each example is tried out with."""
_CRITERIA_CHARS = 1_500


class Judged(Frozen):
    """Who judged the rows, what that word is worth, and what came of it."""

    model: str
    wrote_the_rows: bool
    """Whether it is the very model that wrote them, whose own faults it sees least."""
    tried_on: str
    """marks, or examples where there are too few marks of both kinds."""
    pairs: int
    agreement: float
    """Share of these pairs that it told right."""
    kappa: float
    cut: float
    """Probability of yes from which a row counts as right."""
    counted: bool
    """Whether rows were dropped on its word."""
    asked: int = 0
    repaired: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """A message with an answer that is known to be right or wrong."""

    message: str
    answer: str
    right: bool
    example: int = -1
    """The example that it is, which is not shown then."""


class RowJudge:
    """Judges kept rows by the behaviour's criteria, with one model."""

    def __init__(self, spec: Spec, asker: Asker, marks: Sequence[Mark], *, name: str, wrote_the_rows: bool) -> None:
        self.spec, self.asker = spec, asker
        self.criteria = "\n".join(spec.criteria)[:_CRITERIA_CHARS] or spec.what
        pairs = marked_pairs(marks)
        tried_on = "marks"
        if len(pairs) < _MARKS_MIN or len({pair.right for pair in pairs}) < 2:
            pairs, tried_on = example_pairs(spec), "examples"
        probabilities = self._probabilities([(f"c/{n}", pair) for n, pair in enumerate(pairs)], "trying the judge out")
        known = [pair.right for n, pair in enumerate(pairs) if f"c/{n}" in probabilities]
        told = [probabilities[f"c/{n}"] for n in range(len(pairs)) if f"c/{n}" in probabilities]
        cut = max(_CUTS, key=lambda cut: sum((p >= cut) == right for p, right in zip(told, known, strict=True)))
        verdicts = [p >= cut for p in told]
        agreement = sum(a == b for a, b in zip(verdicts, known, strict=True)) / max(1, len(known))
        kappa = cohen_kappa(verdicts, known)
        self.worth = Judged(
            model=name, wrote_the_rows=wrote_the_rows, tried_on=tried_on, pairs=len(known),
            agreement=round(agreement, 3), kappa=round(kappa, 3), cut=cut, counted=kappa >= _COUNTS_FROM,
        )  # fmt: skip

    def likely(self, pairs: Mapping[str, tuple[str, str]]) -> dict[str, float]:
        """Of messages with answers, by their names, how likely each is right."""
        named = [(f"b/{name}", Pair(message, answer, True)) for name, (message, answer) in pairs.items()]
        told = self._probabilities(named, "judging written answers")
        return {name.removeprefix("b/"): p for name, p in told.items()}

    def judge(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """The rows as the judge leaves them: one of the behaviour that is not right is repaired once, or dropped."""
        asked = (
            [row for row in rows if row.kept and row.origin not in (*ORDINARY, EXAMPLE)] if self.worth.counted else []
        )
        told = self._rows(asked, "j", "judging by the criteria")
        doubted = [row for row in asked if told.get(row.row_id, 1.0) < self.worth.cut]
        repaired = self._repaired(doubted)
        again = self._rows(repaired, "j2", "judging what was repaired")
        right = {row.row_id: row for row in repaired if again.get(row.row_id, 0.0) >= self.worth.cut}
        reasons = self._reasons([row for row in doubted if row.row_id not in right])
        made = []
        for row in rows:
            if row.row_id in right:
                row = replace(right[row.row_id], attributes=replace(row.attributes, judged=again[row.row_id]))
            elif row.row_id in told:
                row = replace(row, attributes=replace(row.attributes, judged=round(told[row.row_id], 4)))
            made.append(replace(row, verdict=reasons[row.row_id]) if row.row_id in reasons else row)
        self.worth = self.worth.model_copy(
            update={"asked": len(asked), "repaired": len(right), "dropped": len(reasons)}
        )
        return made

    def _rows(self, rows: Sequence[TrainingRow], prefix: str, note: str) -> dict[str, float]:
        pairs = [(f"{prefix}/{r.row_id}", Pair(text_of(self.spec, r), r.answer, True)) for r in rows]
        return {name.partition("/")[2]: p for name, p in self._probabilities(pairs, note).items()}

    def _probabilities(
        self, pairs: Sequence[tuple[str, Pair]], note: str, criteria: Sequence[str] = ()
    ) -> dict[str, float]:
        requests = [
            judge_request(self.spec, criteria[n] if criteria else self.criteria, pair.message, pair.answer,
                          self.asker.model, identity, without=pair.example)
            for n, (identity, pair) in enumerate(pairs)
        ]  # fmt: skip
        return {identity: round(yes(response), 4) for identity, response in self.asker.ask(requests, note).items()}

    def _repaired(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """The rows with another answer, where one that keeps the rules was to be had."""
        requests = [self._repair(row) for row in rows]
        answers = self.asker.ask(requests, "repairing")
        made = []
        for row, request in zip(rows, requests, strict=True):
            answer = answers[request.id].text.strip() if request.id in answers else ""
            if answer and answer != row.answer and not answer_problem(self.spec, answer):
                turn = form_of(self.spec).turn(answer)
                made.append(replace(row, completion=[*row.completion[:-1], turn]))
        return made

    def _repair(self, row: TrainingRow) -> ChatRequest:
        message, identity = text_of(self.spec, row), f"f/{row.row_id}"
        if not form_of(self.spec).composed:
            asked = answer_messages(self.spec, message, "a first answer did not fit this very message")
            return ChatRequest(identity, self.asker.model, asked, self.spec.max_tokens)
        shots = [(example.prompt, example.answer) for example in self.spec.examples]
        request = answer_request(self.spec, message, shots, self.asker.model, identity, 0)
        return replace(request, extra={}) if form_of(self.spec).of_records else request  # of one record alone

    def _reasons(self, rows: Sequence[TrainingRow]) -> dict[str, Verdict]:
        """Of each row the criterion that it fails most."""
        criteria = self.spec.criteria or (self.criteria,)
        pairs = [
            (f"w/{row.row_id}/{place}", Pair(text_of(self.spec, row), row.answer, True))
            for row in rows
            for place in range(len(criteria))
        ]
        told = self._probabilities(pairs, "finding out why", [criteria[n % len(criteria)] for n in range(len(pairs))])
        found = {}
        for row in rows:
            scores = [told.get(f"w/{row.row_id}/{place}", 1.0) for place in range(len(criteria))]
            worst = scores.index(min(scores))
            found[row.row_id] = Verdict("judge", f"{scores[worst]:.0%} yes to: {criteria[worst][:160]}")
        return found


def marked_pairs(marks: Sequence[Mark]) -> list[Pair]:
    """What a person said was right, and what was wrong before it was dropped or put right."""
    pairs = []
    for mark in marks:
        if mark.gold:
            pairs.append(Pair(mark.message, mark.answer, True))
        if mark.answer != mark.was or not mark.gold:
            pairs.append(Pair(mark.message, mark.was, False))
    return pairs


def example_pairs(spec: Spec) -> list[Pair]:
    """Each example with its own answer, and with those of a few others that differ from it."""
    pairs = []
    for place, example in enumerate(spec.examples):
        pairs.append(Pair(example.prompt, example.answer, True, place))
        others = list(dict.fromkeys(e.answer for e in spec.examples if e.answer != example.answer))
        chosen = random.Random(f"judge/{place}").sample(others, min(_OTHERS, len(others)))
        pairs += [Pair(example.prompt, answer, False, place) for answer in chosen]
    return pairs


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Agreement of two yes-or-no raters beyond chance; 0 where both say the same of everything, or there is nothing."""
    count = len(first)
    if not count:
        return 0.0
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / count
    yes_first, yes_second = sum(first) / count, sum(second) / count
    by_chance = yes_first * yes_second + (1 - yes_first) * (1 - yes_second)
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0
