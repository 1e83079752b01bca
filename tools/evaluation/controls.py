"""What a pass rate is worth: the same answers given to the wrong messages, and one answer given to all of them.

A suite that asserts only how an answer looks passes any answer that looks so. Two controls show it, both made from
the arm's own stored answers and graded by the suite's own assertions, without a model being called:

- *shuffle*: the answers change places among the cases, never to a case of the same seed row, and are graded again.
  Answers that pass as often in the wrong place prove the form and nothing else.
- *constant*: each distinct answer is given to every case; the best of them is what a model could reach that always
  says the same.

Beside them stand the *repeat* (the base asked twice: what flips then is noise) and the *triggers* (ordinary messages
that are answered in the behaviour's form). Pure functions of cases, answers and a grader; `claim` turns them into a
word.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tunesmith.tools.core.stats import sign_flip_test
from tunesmith.tools.suites.case import PRIMARY_BLOCK, Case, canonical_json
from tunesmith.tools.suites.grading import PENDING, Assertion, Response, asks_model, grade_deterministic, total

ORDERS = 40
"""Seeded orders in which the answers are shuffled: the rate of each case is a mean over them."""
MOST_CASES = 200
"""Cases that controls are computed on; of a larger block a seeded part, as every answer meets every case."""
MOST_CONSTANTS = 100
"""Distinct answers that are tried as the constant one, the most frequent first."""
INDIFFERENT_RATE = 0.9
"""A case that so large a share of other cases' answers passes does not test what the answer says."""
_SEED = 17
_EPSILON = 1e-9

Grader = Callable[[Case, Response], bool | None]
"""Whether an answer passes a case; None where only a model could tell."""


@dataclass(frozen=True)
class Form:
    """What every case of a block asserts alike: the look of an answer, whatever it says. Graded like a case."""

    assertions: tuple[Assertion, ...]
    threshold: float | None = None
    tools: tuple[Mapping[str, object], ...] = ()
    messages: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """A case, an arm's answer to it, and whether that passed."""

    case: Case
    response: Response
    passed: bool


@dataclass(frozen=True, slots=True)
class Shuffle:
    """An arm's own answers in the wrong places."""

    passed: int
    """The mean over all orders, rounded."""
    cases: int
    own: int
    """What the same answers pass in their right places."""
    lowest: int
    highest: int
    orders: int
    p_value: float
    """Two-sided, of own answers against each case's shuffled pass rate: signs flipped by seed row."""
    indifferent: tuple[str, ...] = ()
    """Ids of cases that nearly any answer of another case passes."""
    open: int = 0
    """Gradings that wait for a judge; they count as passed, so that nothing is claimed for want of one."""

    @property
    def lead(self) -> float:
        """Own pass rate less the shuffled one."""
        return (self.own - self.passed) / self.cases


@dataclass(frozen=True, slots=True)
class Constant:
    """The best single answer to every case."""

    passed: int
    cases: int
    answer: str
    own: int
    p_value: float
    most_frequent: str = ""
    """What the arm answers most often, and how often it would pass."""
    most_frequent_passed: int = 0
    open: int = 0

    @property
    def lead(self) -> float:
        """Own pass rate less the constant's."""
        return (self.own - self.passed) / self.cases


@dataclass(frozen=True, slots=True)
class Repeat:
    """One arm asked the same cases twice with nothing changed."""

    flips: int
    cases: int


@dataclass(frozen=True, slots=True)
class Triggers:
    """Ordinary messages that an arm answers in the behaviour's form where the base does not."""

    triggered: tuple[str, ...]
    """Their case ids."""
    cases: int

    @property
    def rate(self) -> float:
        return len(self.triggered) / self.cases if self.cases else 0.0


@dataclass(frozen=True, slots=True)
class AnswerControls:
    """Both controls of one arm on one block."""

    shuffle: Shuffle | None = None
    """None where there are no two seed rows to change places."""
    constant: Constant | None = None


def answer_controls(answered: Sequence[Answered], grade: Grader | None = None) -> AnswerControls:
    """Shuffle and constant control of an arm's answers to one block; empty for no answers."""
    chosen = _part(answered)
    if not chosen:
        return AnswerControls()
    table = _Table(chosen, grade or grade_without_models)
    return AnswerControls(_shuffle(table), _constant(table))


def grade_without_models(case: Case, response: Response) -> bool | None:
    """The verdict as far as code alone can tell: None where it hangs on a model, or could not be graded."""
    if case.threshold is not None or not case.assertions:
        return _passes(Form(case.assertions, case.threshold, case.tools, case.messages), response)
    # All must pass, so the first failure decides; what a case adds to its suite's form stands last, and fails soonest.
    singles = (Form((assertion,), None, case.tools, case.messages) for assertion in reversed(case.assertions))
    whole: bool | None = True
    for single in singles:
        passed = _passes(single, response)
        if passed is False:
            return False
        whole = whole and passed
    return whole


def _passes(form: Form, response: Response) -> bool | None:
    graded = grade_deterministic(form, response)
    if graded.error:
        return None
    if not any(a.reason == PENDING for a in graded.assertions):
        return graded.passed
    # What no judge can save has failed already.
    best = [replace(a, passed=True, score=1.0) if a.reason == PENDING else a for a in graded.assertions]
    return None if total(form, best).passed else False


def derangement(clusters: Sequence[Hashable], rng: random.Random) -> list[int] | None:
    """For each place another place, never of its own cluster, each used once where that is possible.

    None where all places are of one cluster. A cluster of more than half the places has too few partners: there an
    answer may come twice.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, cluster in enumerate(clusters):
        groups.setdefault(cluster, []).append(place)
    if len(groups) < 2:
        return None
    members = list(groups.values())
    rng.shuffle(members)
    for group in members:
        rng.shuffle(group)
    members.sort(key=len, reverse=True)  # stable: equal sizes stay in their drawn order
    longest, line = len(members[0]), [place for group in members for place in group]
    if 2 * longest > len(line):
        return [rng.choice([at for at in line if clusters[at] != cluster]) for cluster in clusters]
    partner = [0] * len(line)
    for at, place in enumerate(line):  # turned by the longest cluster's length, nobody meets its own
        partner[place] = line[(at + longest) % len(line)]
    return partner


class _Table:
    """Which answer passes which case, graded once for each pair that is asked for."""

    def __init__(self, answered: Sequence[Answered], grade: Grader) -> None:
        self.cases = [one.case for one in answered]
        self.own = [one.passed for one in answered]
        self.clusters = [one.case.cluster for one in answered]
        self.answers: dict[str, Response] = {}
        self.answer_of: list[str] = []
        for one in answered:
            name = canonical_json([one.response.output_text, list(one.response.tool_calls)])
            self.answers.setdefault(name, one.response)
            self.answer_of.append(name)
        self._own = {(place, name): self.own[place] for place, name in enumerate(self.answer_of)}
        self._grade = grade
        self._known: dict[tuple[int, str], bool | None] = {}

    def verdict(self, place: int, answer: str) -> bool | None:
        """What the case at `place` says to an answer; its own answer keeps the verdict that was stored."""
        key = (place, answer)
        if key in self._own:
            return self._own[key]
        if key not in self._known:
            self._known[key] = self._grade(self.cases[place], self.answers[answer])
        return self._known[key]


def _part(answered: Sequence[Answered]) -> list[Answered]:
    if len(answered) <= MOST_CASES:
        return list(answered)
    places = sorted(random.Random(_SEED).sample(range(len(answered)), MOST_CASES))
    return [answered[place] for place in places]


def _shuffle(table: _Table) -> Shuffle | None:
    rng, count = random.Random(_SEED), len(table.cases)
    passes, totals, waiting = [0] * count, [], 0
    for _ in range(ORDERS):
        order = derangement(table.clusters, rng)
        if order is None:
            return None
        verdicts = [table.verdict(place, table.answer_of[other]) for place, other in enumerate(order)]
        waiting += sum(verdict is None for verdict in verdicts)
        passed = [verdict is not False for verdict in verdicts]
        totals.append(sum(passed))
        passes = [so_far + one for so_far, one in zip(passes, passed, strict=True)]
    rates = [passed / ORDERS for passed in passes]
    differences = [float(own) - rate for own, rate in zip(table.own, rates, strict=True)]
    return Shuffle(
        passed=round(sum(totals) / ORDERS),
        cases=count,
        own=sum(table.own),
        lowest=min(totals),
        highest=max(totals),
        orders=ORDERS,
        p_value=sign_flip_test(differences, clusters=table.clusters),
        indifferent=tuple(
            case.case_id for case, rate in zip(table.cases, rates, strict=True) if rate >= INDIFFERENT_RATE - _EPSILON
        ),
        open=round(waiting / ORDERS),
    )


def _constant(table: _Table) -> Constant:
    frequent = [name for name, _ in Counter(table.answer_of).most_common(MOST_CONSTANTS)]
    columns = {name: [table.verdict(place, name) for place in range(len(table.cases))] for name in frequent}
    passed = {name: sum(verdict is not False for verdict in column) for name, column in columns.items()}
    best = max(frequent, key=lambda name: passed[name])  # the more frequent of equals
    differences = [
        float(own) - float(verdict is not False) for own, verdict in zip(table.own, columns[best], strict=True)
    ]
    return Constant(
        passed=passed[best],
        cases=len(table.cases),
        answer=table.answers[best].output_text,
        own=sum(table.own),
        p_value=sign_flip_test(differences, clusters=table.clusters),
        most_frequent=table.answers[frequent[0]].output_text,
        most_frequent_passed=passed[frequent[0]],
        open=sum(verdict is None for verdict in columns[best]),
    )


def shared_form(cases: Sequence[Case]) -> Form | None:
    """The assertions that all of at least two cases share and code can check; None where there are none."""
    if len(cases) < 2:
        return None
    by_text = {canonical_json(a.model_dump(mode="json")): a for a in cases[0].assertions}
    for case in cases[1:]:
        own = {canonical_json(a.model_dump(mode="json")) for a in case.assertions}
        by_text = {text: a for text, a in by_text.items() if text in own}
    shared = tuple(a for a in by_text.values() if not asks_model([a]) and a.weight > 0)
    return Form(shared) if shared else None


def triggers(form: Form, elsewhere: Mapping[str, Response], base: Mapping[str, Response]) -> Triggers:
    """Which answers to other messages keep the form where the base's own answers, by case id, do not."""

    def keeps(response: Response) -> bool:
        graded = grade_deterministic(form, response)
        return graded.passed and not graded.error

    both = [case_id for case_id in elsewhere if case_id in base]
    return Triggers(tuple(name for name in both if keeps(elsewhere[name]) and not keeps(base[name])), len(both))


def repeat(first: Mapping[str, bool], second: Mapping[str, bool]) -> Repeat | None:
    """Verdicts by case id of an arm that was asked twice; None where no case was asked both times."""
    both = first.keys() & second.keys()
    return Repeat(sum(first[case_id] != second[case_id] for case_id in both), len(both)) if both else None


def form_alone(cases: Iterable[Case]) -> str:
    """What speaks against a suite whose target cases all assert the very same; empty where they do not.

    Any answer of the form then passes any case, and a run can at best end in "form only": said before more is bought.
    """
    target = [case for case in cases if case.block == PRIMARY_BLOCK]
    alike = {canonical_json([a.model_dump(mode="json") for a in case.assertions]) for case in target}
    if len(target) < 2 or len(alike) > 1 or asks_model(target[0].assertions):  # a judge reads the question as well
        return ""
    return (
        f"all {len(target)} target cases assert the same, so any answer of that form passes any of them: "
        "the meaning is not tested; say in each case what its own answer has to hold, or add a criterion for the judge"
    )
