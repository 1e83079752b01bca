"""The one verdict on an arm against the base, by rule. Everything that says what was learned reads it.

The first word that applies:

- *no decision*: the two cannot be compared, or fewer than ten cases of people count; what would decide is said.
- *not learned*: no gain, or harm is shown (`harm`) to a guarded block, the near misses or ordinary messages. A loss
  needs no control to be seen, and one that chance explains warns and takes no word away. The target comes first.
- *form only*: a control (`controls`) does as well.
- *learned*: of people's blind cases at least ten, at least 80 % right, and the exact one-sided 90 % lower bound of that
  share (Clopper-Pearson) at least 65 %; every right answer that repeats is met.
- *partly learned*: the rest.

Cases that are alike count once: bound and minimum are taken at the number of independent ones.
Whoever looks at the same cases several times and keeps the best has given chance several tries: at the k-th opening the
bound is at 1 - 0.10 / k. Cases that a person rated count as the suite's do, and no control is needed for them: who
reads the message judges the meaning. Where the suite's own cases cannot tell an arm that learned from one that did
not (even an arm right on 95 % would not beat a control), they do not count, and that is said.

A gain is shown by the exact McNemar test at .05. An arm that reaches 80 % and more of the cases than the base without
that is no proof of no gain: it is *partly learned*.
The rows that the writer of the training rows wrote decide nothing: their share is shown next to people's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunesmith.tools.core.format import count, listed, p_value
from tunesmith.tools.core.stats import ALPHA
from tunesmith.tools.evaluation.comparison import WORSE, Json
from tunesmith.tools.evaluation.control_words import as_good, tells_nothing
from tunesmith.tools.evaluation.controls import AnswerControls, Triggers
from tunesmith.tools.evaluation.harm import HARMED, Harm, of_counts, of_triggers, open_question
from tunesmith.tools.evaluation.peoples_cases import (
    BOUND_ERROR,
    LEARNED_RATE,
    PEOPLES_CASES,
    Pair,
    Paired,
    least_right,
    more_needed,
    reaches,
)

Word = Literal["learned", "partly learned", "form only", "not learned", "no decision"]
LEARNED: Word = "learned"
PARTLY: Word = "partly learned"
FORM_ONLY: Word = "form only"
NOT_LEARNED: Word = "not learned"
UNDECIDED: Word = "no decision"

RULE = 3
"""Version of this rule. A word that an earlier one said stays as it was, with its version."""
ORDINARY = "ordinary messages"
"""Of near misses and the general block together: what is answered in the behaviour's form."""
_NAMED = 3
"""Values that a sentence lists; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A block that must not get worse, counted."""

    judged: int
    base: int
    arm: int
    verdict: str
    bound: float | None = None
    """Lower end of the difference in pass rate, one-sided at 95 %."""
    p_value: float | None = None

    def harm(self, name: str) -> Harm:
        """What is known of a loss."""
        worse = self.verdict == WORSE
        return of_counts(name, self.judged, self.base, self.arm, worse=worse, bound=self.bound, p_value=self.p_value)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a verdict rests on."""

    suite: Sequence[Pair] = ()
    """People's blind cases of the suite that both arms answered."""
    rated: Sequence[Pair] = ()
    """Messages of people whose answers a person judged."""
    controls: AnswerControls = field(default_factory=AnswerControls)
    guarded: Mapping[str, Guarded] = field(default_factory=dict)
    triggers: Triggers | None = None
    refused: str = ""
    """Why the arms cannot be compared."""
    unusable: str = ""
    """Why the suite's cases say nothing: too many errors, assertions of the form alone."""
    writers: Paired | None = None
    """Held-out rows of the writer of the training rows."""
    prompted: tuple[int, int] | None = None
    """Target cases that the prompted base passed, and how many it answered."""
    opening: int = 1
    """Which opening of these cases it is: 1 where no other training was asked them."""
    rate: str = "tunesmith rate"
    """The command that has this very arm's answers rated: ratings of another arm decide nothing here."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word, why, and what would change it."""

    word: Word
    reasons: tuple[str, ...]
    needs: int = 0
    """Further messages of people, rated, after which there is a decision; 0 where they would not be enough, or are."""
    advice: str = ""
    """What to do next; empty where nothing is open."""
    beats: Mapping[str, bool | None] = field(default_factory=dict)
    """base, shuffle, constant, echo, prompted: None where it is not known or not asked."""
    people: Paired | None = None
    """People's cases that count."""
    bound: float = 0.0
    """Lower bound of their share."""
    opening: int = 1
    worse: tuple[str, ...] = ()
    """What the change made worse, whatever the word is: no such model is deployed."""
    harm: Mapping[str, Harm] = field(default_factory=dict)
    """Guarded block, or ordinary messages → what is known of a loss."""
    untested: tuple[str, ...] = ()
    """Right answers that too few cases test."""
    writers: Paired | None = None
    rule: int = RULE

    @property
    def confidence(self) -> float:
        """Of the bound, one-sided."""
        return 1 - BOUND_ERROR / self.opening

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        return f"{self.word}{self.because}"

    @property
    def because(self) -> str:
        """What follows the word: the version of a rule that is not today's, the reasons, what to do."""
        by = f" (by rule {self.rule}; today's is {RULE})" if self.rule != RULE else ""
        return f"{by}: {'; '.join(filter(None, (*self.reasons, self.advice)))}"

    @property
    def threshold(self) -> str:
        """What *learned* takes of people's cases, and how far these are from it; empty where no number would do."""
        people = self.people
        least = least_right(people.cases, self.opening, people.worth) if people and people.cases else None
        if people is None or least is None:
            return ""
        off = people.arm - least
        how_far = "exactly that" if off == 0 else f"{abs(off)} {'more are right' if off > 0 else 'more'}"
        return f"learned takes {least} of {people.cases}, {how_far}"

    def to_json(self) -> Json:
        """The parts of `compare --json` that hold it."""
        people = self.people or Paired(0, 0, 0, 1.0, 1.0)
        return {
            "claim": self.word,
            "claim_rule": self.rule,
            "claim_reasons": list(self.reasons),
            "claim_sentence": self.sentence,
            "beats": dict(self.beats),
            "add": self.advice,
            "people": {
                "passed": people.arm, "base": people.base, "cases": people.cases, "lower_bound": self.bound,
                "confidence": self.confidence, "opening": self.opening, "p_value": people.p_value,
                "mid_p_value": people.mid_p_value, "needed": self.needs, "independent": round(people.worth, 1),
            },
            "writers": {"passed": self.writers.arm, "cases": self.writers.cases} if self.writers else None,
            "worse": list(self.worse),
            "harm": {name: harm.to_json() for name, harm in self.harm.items()},
            "untested": list(self.untested),
        }  # fmt: skip


def decide(facts: Facts) -> Verdict:
    """The verdict on these facts."""
    unusable = facts.unusable
    if facts.suite and not unusable and not _lost(Paired.of(facts.suite)):  # to show a loss takes no control
        unusable = tells_nothing(facts.controls)
    suite = () if unusable else facts.suite
    people = Paired.of([*suite, *facts.rated])
    common = _Common(facts, people, bool(suite), unusable)
    if facts.refused:
        return common.verdict(UNDECIDED, (facts.refused,), "evaluate both again under the same settings")
    if people.worth < PEOPLES_CASES:
        return common.undecided()
    worse = worsened(common.harms)
    if not _gains(people):
        return common.verdict(NOT_LEARNED, (common.no_gain(), *worse), people.when_nothing_is_gained)
    if worse:
        reasons = (common.counted(), *worse)
        return common.verdict(NOT_LEARNED, reasons, "add ordinary messages with the base's own answers to the rows")
    if suite and (form := as_good(facts.controls)):
        return common.verdict(FORM_ONLY, form, "look whether the rows' answers fit their messages")
    if common.is_better and not common.unmet and reaches(people.arm, people.cases, facts.opening, people.worth):
        return common.verdict(LEARNED, (common.counted(),), "")
    return common.verdict(PARTLY, (common.counted(), *common.short_of()), "add rows like the cases that fail")


def _lost(people: Paired) -> bool:
    """Whether the arm is worse than the base by the test."""
    return people.arm < people.base and people.p_value < ALPHA


def _gains(people: Paired) -> bool:
    """Whether there is a gain: by the test, or so large a share that a lack of cases is no proof of none."""
    significant = people.arm > people.base and people.p_value < ALPHA
    return significant or (people.arm > people.base and people.rate >= LEARNED_RATE)


def harms_of(facts: Facts) -> dict[str, Harm]:
    """Guarded block, or `ordinary messages` → what is known of a loss."""
    harms = {name: one.harm(name) for name, one in facts.guarded.items()}
    return {**harms, ORDINARY: of_triggers(facts.triggers)} if facts.triggers else harms


def worsened(harms: Mapping[str, Harm]) -> tuple[str, ...]:
    """A line for each harm that is shown."""
    return tuple(harm.line for harm in harms.values() if harm.word == HARMED)


def _p_values(people: Paired) -> str:
    return f"exact {p_value(people.p_value)}, mid-{p_value(people.mid_p_value)}"


@dataclass(frozen=True, slots=True)
class _Common:
    """What every verdict on the same facts has in common."""

    facts: Facts
    people: Paired
    suite_counts: bool
    unusable: str

    @property
    def harms(self) -> dict[str, Harm]:
        return harms_of(self.facts)

    @property
    def is_better(self) -> bool:
        return self.people.arm > self.people.base and self.people.p_value < ALPHA

    @property
    def unmet(self) -> tuple[str, ...]:
        return self.facts.controls.values.unmet if self.suite_counts else ()

    def verdict(self, word: Word, reasons: tuple[str, ...], advice: str, needs: int = 0) -> Verdict:
        facts, people = self.facts, self.people
        confidence = 1 - BOUND_ERROR / facts.opening
        untested = facts.controls.values.untested if self.suite_counts else ()
        notes = [f"too few cases test {listed(untested, _NAMED)}"] if untested and word in (LEARNED, PARTLY) else []
        if word == LEARNED and not facts.guarded and not facts.triggers:
            notes.append("nothing else was asked, so what it lost elsewhere is not known")
        harms = self.harms
        if word in (LEARNED, PARTLY) and (unsure := open_question(harms)):
            notes.append(unsure)
        if self.unusable and facts.suite and word != UNDECIDED:
            notes.append(f"{count(len(facts.suite), 'case')} of the suite left out: {self.unusable}")
        return Verdict(
            word=word,
            reasons=(*reasons, *notes, *self._writers(), *self._prompt()),
            needs=needs,
            advice=advice,
            beats=self._beats(),
            people=people,
            bound=people.bound(confidence),
            opening=facts.opening,
            worse=worsened(harms),
            harm=harms,
            untested=untested,
            writers=facts.writers,
        )

    def undecided(self) -> Verdict:
        """Fewer than ten cases of people: how many more would decide."""
        facts, people = self.facts, self.people
        more = more_needed(people)
        reasons = [
            f"{count(people.cases, 'case')} of people {'counts' if people.cases == 1 else 'count'}{people.counted}"
        ]
        if self.unusable:
            of = f"the {count(len(facts.suite), 'case')} of people in the suite cannot tell: " if facts.suite else ""
            reasons.append(f"{of}{self.unusable}")
        needed = least_right(PEOPLES_CASES, facts.opening)
        reasons += [f"to be learned, {needed} of {PEOPLES_CASES} must be right"] if needed is not None else []
        other = "" if self.people.cases else ", each rated in two keys"
        are = "is" if more == 1 else "are"
        advice = f"{count(more, 'more case')} of people {are} needed{other}: `{facts.rate}`"
        return self.verdict(UNDECIDED, tuple(reasons), advice, more)

    def counted(self) -> str:
        """People's cases with the bound, and the base's."""
        people, confidence = self.people, 1 - BOUND_ERROR / self.facts.opening
        bound = people.bound(confidence)
        return (
            f"{people.arm} of {people.cases} people's cases right{people.counted}, the base {people.base} "
            f"({_p_values(people)}); at least {bound:.0%} with {100 * confidence:.3g} % confidence"
        )

    def no_gain(self) -> str:
        one = self.people
        why = "worse than the base" if one.arm < one.base else "no gain that chance does not explain"
        return f"{one.arm} of {one.cases} people's cases right, the base {one.base}: {why} ({_p_values(one)})"

    def short_of(self) -> tuple[str, ...]:
        """Which conditions of *learned* are not met."""
        people, opening, lines = self.people, self.facts.opening, []
        least = least_right(people.cases, opening, people.worth)
        if not reaches(people.arm, people.cases, opening, people.worth):
            nth = "" if opening == 1 else f" at the opening number {opening} of these cases"
            lines.append(
                f"learned takes {least} of {people.cases}, {least - people.arm} more{nth}"
                if least is not None
                else f"learned takes more cases than {people.cases}{nth}"
            )
        if not self.is_better:
            lines.append("the gain over the base can be chance")
        if self.unmet:
            lines.append(f"not met in half of its cases: {listed(self.unmet, _NAMED)}")
        return tuple(lines)

    def _beats(self) -> dict[str, bool | None]:
        prompted, controls = self.facts.prompted, self.facts.controls
        known = {
            name: None if one is None or one.state in ("left to the judge", "tells nothing") else one.state == "beaten"
            for name, one in (("shuffle", controls.shuffle), ("constant", controls.constant), ("echo", controls.echo))
        }
        base = self.is_better if self.people.cases else None
        rate = Paired.of(self.facts.suite).rate
        beaten = rate > prompted[0] / prompted[1] if prompted and prompted[1] and self.facts.suite else None
        return {"base": base, **known, "prompted": beaten}

    def _writers(self) -> list[str]:
        rows = self.facts.writers
        return [f"{rows.arm} of {rows.cases} held-out rows of the writer, which decide nothing"] if rows else []

    def _prompt(self) -> list[str]:
        (passed, asked), rate = self.facts.prompted or (0, 0), Paired.of(self.facts.suite).rate
        if not asked or not self.facts.suite or passed / asked < max(LEARNED_RATE, rate):
            return []
        return [f"the prompt alone does as well ({passed} of {asked}): no fine-tune needed"]
