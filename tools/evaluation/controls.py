"""What a pass rate is worth: the same answers given to the wrong messages, one answer to all, and the message itself.

A suite that asserts only how an answer looks passes any answer that looks so. Three controls show it, all made from the
arm's own stored answers and graded by the suite's own assertions, without a model being called:

- *shuffle*: the answers change places among the cases, never to a case of the same seed row, and are graded again.
- *constant*: each distinct answer is given to every case; the best of them is what always saying the same reaches.
- *echo*: the message's own words in the form of the arm's answers (`echo`).

They are taken over people's target cases and the near misses together, so that a refusal which is always the same, and
a label that is nearly always right, can be told from answering everything so. The arm beats a control by the exact
paired test. The target alone shows more where it can tell: shuffle and constant must be beaten there too wherever an
arm that is right on 95 % would beat them. Where not even that arm could, the cases do not test the meaning: that is
the suite's fault and says nothing of the arm.

A grading that only a judge could give is left out of the pair: who reads the message needs no control.
Next to them stand the *repeat* (the base asked twice: what flips then is noise) and the *triggers* (ordinary messages
that are answered in the behaviour's form). Pure functions of cases, answers and a grader; `verdict` makes the word.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tunesmith.tools.core.stats import ALPHA, mcnemar_clustered, mcnemar_exact
from tunesmith.tools.evaluation.echo import echoed, echoes
from tunesmith.tools.evaluation.values import Answered, Values, values_met
from tunesmith.tools.suites.case import PRIMARY_BLOCK, Case, canonical_json
from tunesmith.tools.suites.grading import PENDING, Assertion, Response, asks_model, grade_deterministic, total

ORDERS = 20
"""Seeded orders in which the answers are shuffled; the arm is better by their median p-value: of one order alone the
p-value would be luck."""
NEARLY_RIGHT = 0.95
"""An arm that is right on so many of the cases would have to beat a control for the control to tell anything."""
MOST_CASES = 200
"""Cases that controls are computed on; of a larger block a seeded part, as every answer meets every case."""
MOST_CONSTANTS = 25
"""Distinct answers that are tried as the constant one, the most frequent first: each is graded on every case, and a
rare answer passes few of them."""
ECHO_SHARE = 0.8
"""An arm that gives the message back in so large a share of its answers is an echo itself."""
_SEED = 17
"""The same answers have the same controls whenever they are looked at."""


@dataclass(frozen=True)
class Form:
    """What every case of a block asserts alike: the look of an answer, whatever it says. Graded like a case."""

    assertions: tuple[Assertion, ...]
    threshold: float | None = None
    tools: tuple[Mapping[str, object], ...] = ()
    messages: tuple[Mapping[str, object], ...] = ()


State = Literal["beaten", "as good", "tells nothing", "left to the judge"]


@dataclass(frozen=True, slots=True)
class Control:
    """A rival made from the arm's own answers, and the exact paired test of the arm against it."""

    name: str
    passed: int
    """What the rival passes; of shuffled answers the median order."""
    own: int
    """What the arm passes of the same cases."""
    cases: int
    """Cases on which code can tell what the rival is worth."""
    p_value: float
    better: bool
    """Whether the arm passes cases that the rival fails more often than the other way round."""
    tells: bool
    """Whether an arm that is right on 95 % of these cases would beat it."""
    waiting: int = 0
    """Gradings that only a judge could give."""
    answer: str = ""
    """The constant answer, or the way to echo."""
    lowest: int = 0
    highest: int = 0
    """Of the shuffled orders."""
    on_target: Control | None = None
    """The same on the target alone."""

    @property
    def beaten(self) -> bool:
        """Whether the arm is better by the exact test."""
        return self.better and self.p_value < ALPHA

    @property
    def state(self) -> State:
        """What it says of the arm."""
        if self.on_target and self.on_target.tells and not self.on_target.beaten:
            return "as good"
        if self.beaten:
            return "beaten"
        if self.tells:
            return "as good"
        return "left to the judge" if self.waiting or not self.cases else "tells nothing"


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
    """All controls of one arm on people's target cases and the near misses."""

    shuffle: Control | None = None
    """None where there are no two seed rows to change places."""
    constant: Control | None = None
    echo: Control | None = None
    """None where every case says the whole right answer, so that nothing else passes."""
    is_echo: bool = False
    """Whether the arm itself gives the messages back."""
    form_alone: bool = False
    """Whether one answer passes the whole target, and no case says its whole right answer: nothing tells them apart."""
    values: Values = field(default_factory=Values)

    @property
    def all(self) -> tuple[Control, ...]:
        """Those that there are."""
        return tuple(one for one in (self.shuffle, self.constant, self.echo) if one)


def answer_controls(
    target: Sequence[Answered],
    near_misses: Sequence[Answered] = (),
    public: Collection[str] | None = None,
) -> AnswerControls:
    """The controls of an arm's answers to the target, near misses among them; right answers are named if `public`."""
    chosen, others = _part(target), _part(near_misses)
    if not chosen:
        return AnswerControls()
    table = _Table([*chosen, *others])
    whole, alone = range(len(chosen) + len(others)), range(len(chosen))
    shuffle, constant = _shuffle(table, whole), _constant(table, whole)
    if others:
        shuffle = shuffle and replace(shuffle, on_target=_shuffle(table, alone))  # the misses might carry it alone
        constant = replace(constant, on_target=_constant(table, alone))
    echo, is_echo = _echo(chosen)
    on_target = constant.on_target or constant
    all_pass = 0 < on_target.cases == on_target.passed and not on_target.waiting
    form_alone = all_pass and not any(says_it_whole(one.case) for one in chosen)
    return AnswerControls(shuffle, constant, echo, is_echo, form_alone, values_met(chosen, public))


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

    def __init__(self, answered: Sequence[Answered]) -> None:
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
        self._asserts = [_what_it_asserts(case) for case in self.cases]
        self._known: dict[tuple[str, str], bool | None] = {}

    def verdict(self, place: int, answer: str) -> bool | None:
        """What the case at `place` says to an answer; its own answer keeps the verdict that was stored."""
        if (place, answer) in self._own:
            return self._own[place, answer]
        if (key := (self._asserts[place], answer)) not in self._known:
            self._known[key] = grade_without_models(self.cases[place], self.answers[answer])
        return self._known[key]


def _what_it_asserts(case: Case) -> str:
    """The same for cases that take the same answers, so that an answer is graded once for all of them."""
    asserted = [a.model_dump(mode="json") for a in case.assertions]
    own = case.case_id if asks_model(case.assertions) else ""
    return canonical_json([asserted, case.threshold, list(case.tools), own])


def _part(answered: Sequence[Answered]) -> list[Answered]:
    if len(answered) <= MOST_CASES:
        return list(answered)
    places = sorted(random.Random(_SEED).sample(range(len(answered)), MOST_CASES))
    return [answered[place] for place in places]


def control_of(
    name: str, own: Sequence[bool], rival: Sequence[bool | None], clusters: Sequence[Hashable], answer: str = ""
) -> Control:
    """An arm's verdicts against a rival's on the same cases."""
    known = [(a, b, row) for a, b, row in zip(own, rival, clusters, strict=True) if b is not None]
    net: Counter[Hashable] = Counter()
    for a, b, row in known:
        net[row] += a - b
    wins, losses = (sum(a and not b for a, b, _ in known), sum(b and not a for a, b, _ in known))
    failing, wrong = (
        len({row for _, b, row in known if not b}),
        max(1, math.floor((1 - NEARLY_RIGHT) * len(net) + 1e-9)),  # a share in floats may fall short by a hair
    )
    return Control(
        name=name,
        passed=sum(b for _, b, _ in known),
        own=sum(a for a, _, _ in known),
        cases=len(known),
        # The more cautious of two: cases that were made of one row are no independent ones.
        p_value=max(mcnemar_exact(wins, losses), mcnemar_clustered(net.values())),
        better=wins > losses,
        tells=failing > 2 * wrong and mcnemar_exact(failing - wrong, wrong) < ALPHA,
        waiting=len(own) - len(known),
        answer=answer,
    )


def _shuffle(table: _Table, places: range) -> Control | None:
    """The median of the orders: under no knowledge of the message it is below .05 at most so often (twice the tail)."""
    rng, own, clusters = random.Random(_SEED), table.own[: len(places)], table.clusters[: len(places)]
    orders = []
    for _ in range(ORDERS):
        order = derangement(clusters, rng)
        if order is None:
            return None
        verdicts = [table.verdict(place, table.answer_of[other]) for place, other in enumerate(order)]
        orders.append(control_of("shuffle", own, verdicts, clusters))
    median = ORDERS // 2 - 1
    middle = sorted(orders, key=lambda one: one.p_value if one.better else 1.0)[median]
    tells = sorted((one.tells for one in orders), reverse=True)[median]
    passed, waiting = sorted(one.passed for one in orders), sum(one.waiting for one in orders) / ORDERS
    return replace(
        middle, passed=passed[median], lowest=passed[0], highest=passed[-1], tells=tells, waiting=round(waiting)
    )


def _constant(table: _Table, places: range) -> Control:
    frequent = [name for name, _ in Counter(table.answer_of).most_common(MOST_CONSTANTS)]
    own, clusters = table.own[: len(places)], table.clusters[: len(places)]
    columns = {name: [table.verdict(place, name) for place in places] for name in frequent}
    best = max(frequent, key=lambda name: sum(verdict is True for verdict in columns[name]))  # of equals the usual one
    return control_of("constant", own, columns[best], clusters, table.answers[best].output_text)


def _echo(target: Sequence[Answered]) -> tuple[Control | None, bool]:
    """The best way to echo; to a near miss it answers as the arm does, for only the target's words are in question."""
    asked = [one for one in target if not says_it_whole(one.case)]
    if not asked:
        return None, False
    cases, answers = [one.case for one in asked], [one.response for one in asked]
    ways = {
        name: [grade_without_models(case, response) for case, response in zip(cases, responses, strict=True)]
        for name, responses in echoes(cases, answers).items()
    }
    best = max(ways, key=lambda name: sum(verdict is True for verdict in ways[name]))
    control = control_of("echo", [one.passed for one in asked], ways[best], [case.cluster for case in cases], best)
    return control, echoed(cases, answers) >= ECHO_SHARE * len(asked)


def says_it_whole(case: Case) -> bool:
    """Whether the case says the whole right answer, so that nothing else passes."""
    return any(a.type == "equals" and a.weight > 0 for a in case.assertions)


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
    asserted = (canonical_json([a.model_dump(mode="json") for a in case.assertions]) for case in target)
    first = next(asserted, "")
    differ = len(target) < 2 or any(other != first for other in asserted)
    if differ or asks_model(target[0].assertions):  # a judge reads the question as well
        return ""
    return (
        f"all {len(target)} target cases assert the same, so any answer of that form passes any of them: "
        "the meaning is not tested; say in each case what its own answer has to hold, or add a criterion for the judge"
    )
