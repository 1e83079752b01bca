"""Answers that nothing decides: a model writes them, held to the behaviour's rules; and a model's word on rows.

A judge gives the probability of yes against no. Its word counts only as far as it was tried out: on what a person
marked, else on the user's own examples beside answers that belong to another message. It is shown with its agreement
and Cohen's kappa, and with whether it wrote the rows itself.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from tunesmith.memory.marks import Mark
from tunesmith.memory.records import TrainingRow, Verdict
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.stats import cohen_kappa
from tunesmith.tools.core.strict_json import json_value
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.reading import answer_request, judge_request, yes
from tunesmith.tools.data.row_checks import answer_problem
from tunesmith.tools.data.rows import EXAMPLE, ORDINARY
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.synthesis import Written
from tunesmith.tools.serving.client import ChatRequest, assistant, response_format_of, system, user
from tunesmith.tools.serving.requests import Asker
from tunesmith.tools.suites.case import canonical_json

Judge = Callable[[Mapping[str, tuple[str, str]]], dict[str, float]]
"""Name → message and answer, to name → the probability that the answer is right."""
_SHOTS, _SHOT_CHARS = 4, 3_000
"""Examples that a request shows, and their characters: message and answer have to fit into the context with them."""
_SAMPLES, _AT_ONCE = 4, 2
"""Answers to a message at most, and how many are asked for at once: where two agree no more are needed."""
_AGREEING, _EPSILON = 0.25, 1e-4
"""Where a smaller share of the rows has two answers that are the same, answers are prose; a probability that keeps
logarithms finite."""


def write_answers(
    spec: Spec, asker: Asker, written: Sequence[Written], temperature: float, judge: Judge | None = None
) -> list[Written]:
    """The rows with their answers, each the best of four that keep the rules.

    Two are asked for first, one of them greedy, behind other examples. Where they come to the same value that is taken;
    else two more are, and then what most of them come to. Prose is never the same twice: of it the one that the judge
    finds likeliest to be right is taken; without a judge it is asked for again only where no answer keeps the rules. A
    row without one that does says which was broken.
    """
    done = {one.drawn.row_id: one for one in written if one.problem}
    pending = {one.drawn.row_id: one for one in written if not one.problem}
    attempts: dict[str, list[_Answer]] = {row_id: [] for row_id in pending}
    for first in range(0, _SAMPLES, _AT_ONCE):
        for row_id, answers in _answered(spec, asker, pending, first, temperature).items():
            attempts[row_id] += answers
        same = [row_id for row_id, answers in attempts.items() if _agreed(answers, most=True)]
        prose = judge is None and len(same) < _AGREEING * len(attempts)
        sound = {
            row_id for row_id, answers in attempts.items() if prose and any(not answer.problem for answer in answers)
        }
        pending = {row_id: one for row_id, one in pending.items() if row_id not in {*same, *sound}}
    left = [row_id for row_id, answers in attempts.items() if not _agreed(answers)]
    pairs = {
        f"{row_id}/{place}": (one.message, answer.text)
        for one in written
        if (row_id := one.drawn.row_id) in left
        for place, answer in enumerate(attempts[row_id])
        if not answer.problem
    }
    likely = judge(pairs) if judge else {}
    for one in written:
        if not one.problem:
            done[one.drawn.row_id] = _best(one, attempts[one.drawn.row_id], likely)
    return [done[row_id] for row_id in sorted(done)]


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    problem: str
    finish_reason: str | None


def _answered(
    spec: Spec, asker: Asker, pending: Mapping[str, Written], first: int, temperature: float
) -> dict[str, list[_Answer]]:
    """Row → its answers to the next samples."""
    schema = json_schema(spec)  # which holds a server to the behaviour's JSON, where it has one
    # top_k, for top_p sorts the whole vocabulary for every token: 2.7 times as many tokens a second on two cores.
    extra = {"top_k": 60, **({"response_format": response_format_of(schema)} if schema else {})}
    requests = [
        ChatRequest(
            f"a{sample}/{row_id}", asker.model, answer_messages(spec, one.message, turn=one.drawn.order + sample),
            spec.max_tokens, temperature if sample else 0.0, extra=extra,
        )
        for row_id, one in pending.items()
        for sample in range(first, first + _AT_ONCE)
    ]  # fmt: skip
    answers: dict[str, list[_Answer]] = {row_id: [] for row_id in pending}
    for identity, response in asker.ask(requests, "writing answers").items():
        text, cut = response.text.strip(), response.finish_reason == "length"
        problem = "cut off: the answer met the token limit" if cut else answer_problem(spec, text)
        answers[identity.partition("/")[2]].append(_Answer(text, problem, response.finish_reason))
    return answers


def _agreed(answers: Sequence[_Answer], *, most: bool = False) -> list[_Answer]:
    """The answers that come to the value that most do, two at least; none where no two do, or not `most` of all."""
    groups: dict[object, list[_Answer]] = {}
    for answer in answers:
        if not answer.problem:
            groups.setdefault(_value(answer.text), []).append(answer)
    largest = max(groups.values(), key=len, default=[])
    return largest if len(largest) > (len(answers) / 2 if most else 1) else []


def _best(one: Written, answers: Sequence[_Answer], likely: Mapping[str, float]) -> Written:
    """The row with the best of its answers, and whether most of them come to the same.

    Its margin is the log-odds of those that agree against the others, with half a one more, so that it stays finite.
    """
    if not answers:
        return replace(one, problem="empty: there is no answer")
    if alike := _agreed(answers):
        # 0.5: where all agree there are no others, and a share of them has no logarithm
        margin = round(math.log(len(alike) / (len(answers) - len(alike) + 0.5)), 2)
        known = bool(_agreed(answers, most=True))
        return replace(one, answer=alike[0].text, finish_reason=alike[0].finish_reason, agreed=known, margin=margin)
    row_id = one.drawn.row_id
    sound = [(likely.get(f"{row_id}/{n}", 0.0), -n, answer) for n, answer in enumerate(answers) if not answer.problem]
    if not sound:
        return replace(one, answer=answers[0].text, problem=answers[0].problem, finish_reason=answers[0].finish_reason)
    right, _, answer = max(sound)
    odds = round(math.log((right + _EPSILON) / (1 - right + _EPSILON)), 2) if likely else None
    return replace(one, answer=answer.text, finish_reason=answer.finish_reason, agreed=False, margin=odds)


def _value(answer: str) -> object:
    """What two answers are the same by: JSON whatever its layout, text whatever its case, space and last stop."""
    if (value := json_value(answer)) is not None:
        return canonical_json(value)
    return " ".join(unicodedata.normalize("NFKC", answer).casefold().split()).rstrip(".。!")


def answer_messages(spec: Spec, message: str, broken: str = "", turn: int = 0) -> list[dict[str, str]]:
    """Asks for the answer: description as system prompt, examples as turns; `broken` says what went wrong before.

    All answers of a turn have the same beginning, so that a server's prefix cache holds it; the next turn shows the
    next examples, so that all of them are shown in turn.
    """
    count = len(spec.examples)
    start = turn % -(-count // _SHOTS) * _SHOTS
    examples = [spec.examples[(start + n) % count] for n in range(min(_SHOTS, count))]
    sizes = accumulate(len(example.prompt) + len(example.answer) for example in examples)
    shots = examples[: max(1, sum(size <= _SHOT_CHARS for size in sizes))]  # those that fit into a request together
    turns = [turn for shot in shots for turn in (user(shot.prompt), assistant(shot.answer))]
    return [system(instructions(spec, broken)), *turns, user(message)]


def instructions(spec: Spec, broken: str = "") -> str:
    """The behaviour as a system prompt: when, what, never, the labels with their meanings, the rules."""
    sections = [f"When this applies: {spec.when}", f"Answer like this: {spec.what}", f"Never: {spec.never}"]
    for label in spec.labels:
        if label.shown and any(value.means for value in label.values.values()):
            meanings = "\n".join(f"- {name}: {value.means}" for name, value in label.values.items())
            sections.append(f"What the values of {label.name} mean:\n{meanings}")
    if spec.rules:
        sections.append("Every answer keeps these rules:\n" + "\n".join(f"- {rule.says}" for rule in spec.rules))
    return "\n\n".join([*sections, *([f"Take care: {broken}."] if broken else [])])


def json_schema(spec: Spec) -> dict[str, object] | None:
    """One JSON Schema of all is-json rules, for a server that can be held to it; None where the form is not JSON."""
    schemas = [rule.value for rule in spec.rules if rule.type == "is-json" and isinstance(rule.value, Mapping)]
    if not schemas or schemas[0].get("type") != "object":
        return None
    merged = {**schemas[0], "properties": {key: dict(of) for key, of in schemas[0].get("properties", {}).items()}}
    for schema in schemas[1:]:
        for key, of in schema.get("properties", {}).items():
            merged["properties"].setdefault(key, {}).update(of)
    return merged


_COUNTS_FROM = 0.4
"""Kappa from which agreement is more than fair; below it nothing is dropped on a judge's word."""
_MARKS_MIN = 10
"""Agreement on fewer marks is chance."""
_CUTS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9, 0.05, 0.95)
"""The middle first: of cuts that part as well, the first is taken."""
_OTHERS = 2
"""Answers of other examples that each example is tried out with."""
_CRITERIA_CHARS = 1_500
"""Examples, message and answer have to fit into the context with them."""


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
    criterion: str = ""
    """That alone is asked about; empty: all of the behaviour's."""


class RowJudge:
    """Judges kept rows by the behaviour's criteria, with one model."""

    def __init__(self, spec: Spec, asker: Asker, marks: Sequence[Mark], *, name: str, wrote_the_rows: bool) -> None:
        """Tries the judge out at once: `worth` says what its word is worth, and where yes begins."""
        self.spec, self.asker = spec, asker
        self.criteria = "\n".join(spec.criteria)[:_CRITERIA_CHARS] or spec.what
        pairs = marked_pairs(marks)
        basis = "marks"
        if len(pairs) < _MARKS_MIN or len({pair.right for pair in pairs}) < 2:
            pairs, basis = example_pairs(spec), "examples"
        probabilities = self._probabilities([(f"c/{n}", pair) for n, pair in enumerate(pairs)], "trying the judge out")
        known = [pair.right for n, pair in enumerate(pairs) if f"c/{n}" in probabilities]
        scores = [probabilities[f"c/{n}"] for n in range(len(pairs)) if f"c/{n}" in probabilities]
        # the most marks on their right side
        cut = max(_CUTS, key=lambda cut: sum((p >= cut) == right for p, right in zip(scores, known, strict=True)))
        verdicts = [p >= cut for p in scores]
        agreement = sum(a == b for a, b in zip(verdicts, known, strict=True)) / max(1, len(known))
        kappa = cohen_kappa(verdicts, known)
        self.worth = Judged(
            model=name, wrote_the_rows=wrote_the_rows, tried_on=basis, pairs=len(known),
            agreement=round(agreement, 3), kappa=round(kappa, 3), cut=cut, counted=kappa >= _COUNTS_FROM,
        )  # fmt: skip

    def likely(
        self, pairs: Mapping[str, tuple[str, str]], prefix: str = "b", note: str = "judging written answers"
    ) -> dict[str, float]:
        """Of messages with answers, by their names, how likely each is right."""
        named = [(f"{prefix}/{name}", Pair(message, answer, True)) for name, (message, answer) in pairs.items()]
        return {name.removeprefix(f"{prefix}/"): p for name, p in self._probabilities(named, note).items()}

    def judge(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """The rows as the judge leaves them: one of the behaviour that is not right is repaired once, or dropped."""
        asked = (
            [row for row in rows if row.usable and row.origin not in (*ORDINARY, EXAMPLE)] if self.worth.counted else []
        )
        likely = self._rows(asked, "j", "judging by the criteria")
        doubted = [row for row in asked if likely.get(row.row_id, 1.0) < self.worth.cut]
        repaired = self._repaired(doubted)
        again = self._rows(repaired, "j2", "judging what was repaired")
        right = {row.row_id: row for row in repaired if again.get(row.row_id, 0.0) >= self.worth.cut}
        reasons = self._reasons([row for row in doubted if row.row_id not in right])
        judged = []
        for row in rows:
            if row.row_id in right:
                row = replace(right[row.row_id], attributes=replace(row.attributes, judged=again[row.row_id]))
            elif row.row_id in likely:
                row = replace(row, attributes=replace(row.attributes, judged=round(likely[row.row_id], 4)))
            judged.append(replace(row, verdict=reasons[row.row_id]) if row.row_id in reasons else row)
        self.worth = self.worth.model_copy(
            update={"asked": len(asked), "repaired": len(right), "dropped": len(reasons)}
        )
        return judged

    def _rows(self, rows: Sequence[TrainingRow], prefix: str, note: str) -> dict[str, float]:
        return self.likely({row.row_id: (self.spec.text_of(row.prompt), row.answer) for row in rows}, prefix, note)

    def _probabilities(self, pairs: Sequence[tuple[str, Pair]], note: str) -> dict[str, float]:
        """By the pairs' names, how likely each answer is right."""
        requests = [
            judge_request(self.spec, pair.criterion or self.criteria, pair.message, pair.answer, self.asker.model,
                          identity, without=pair.example)
            for identity, pair in pairs
        ]  # fmt: skip
        return {identity: round(yes(response), 4) for identity, response in self.asker.ask(requests, note).items()}

    def _repaired(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """The rows with another answer, where one that keeps the rules was to be had."""
        requests = [self._repair(row) for row in rows]
        answers = self.asker.ask(requests, "repairing")
        repaired = []
        for row, request in zip(rows, requests, strict=True):
            answer = answers[request.id].text.strip() if request.id in answers else ""
            if answer and answer != row.answer and not answer_problem(self.spec, answer):
                turn = form_of(self.spec).turn(answer)
                repaired.append(replace(row, completion=[*row.completion[:-1], turn]))
        return repaired

    def _repair(self, row: TrainingRow) -> ChatRequest:
        message, identity = self.spec.text_of(row.prompt), f"f/{row.row_id}"
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
            (f"w/{row.row_id}/{n}", Pair(self.spec.text_of(row.prompt), row.answer, True, criterion=criterion))
            for row in rows
            for n, criterion in enumerate(criteria)
        ]
        likely = self._probabilities(pairs, "finding out why")
        verdicts = {}
        for row in rows:
            scores = [likely.get(f"w/{row.row_id}/{n}", 1.0) for n in range(len(criteria))]
            worst = scores.index(min(scores))
            verdicts[row.row_id] = Verdict("judge", f"{scores[worst]:.0%} yes to: {criteria[worst][:160]}")
        return verdicts


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
        # by the place: the same ones whenever it is asked
        chosen = random.Random(f"judge/{place}").sample(others, min(_OTHERS, len(others)))
        pairs += [Pair(example.prompt, answer, False, place) for answer in chosen]
    return pairs
