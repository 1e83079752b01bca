"""The word for what a run may claim, by rule: learned, form only, not learned, or no decision.

"learned" asks for all of this, of the later arm against the base, on the target:

- better than the base (`statistics`: exact test, alpha .05), and at least 80 % passed;
- well above both controls of its own answers (`controls`): 20 points and p < .05 over the answers shuffled among the
  cases, and the same over the best constant answer;
- cases that a person wrote or marked: at least 10, of which 80 % pass. What the writer of the rows wrote, too, shows
  that its rows were learned, and not that people's messages are answered right: that alone is "no decision";
- no over-triggering: at most 10 % of the near misses, or of any other guarded block, lost to the change, and at most
  10 % of ordinary messages answered in the behaviour's form.

An arm that is better than the base and does not beat its controls has shown the form: "form only" says so. Where the
controls pass so much that even an arm which learned the meaning could not stand out, the suite is what is missing, and
what it needs is said; else the meaning was not learned. Everything else that was tested is "not learned".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tunesmith.tools.core.stats import ALPHA
from tunesmith.tools.evaluation.comparison import BETTER, WORSE
from tunesmith.tools.evaluation.controls import Constant, Repeat, Shuffle, Triggers

Word = Literal["learned", "form only", "not learned", "no decision"]
LEARNED: Word = "learned"
FORM_ONLY: Word = "form only"
NOT_LEARNED: Word = "not learned"
NO_CLAIM: Word = "no decision"

LEARNED_RATE = 0.8
"""Pass rate on the target below which nothing counts as learned."""
PEOPLES_CASES = 10
"""Target cases by a person without which nothing counts as learned."""
MEANING_MARGIN = 0.2
"""What an arm's own answers must pass more than any control, as a share of the cases."""
TRIGGER_LIMIT = 0.1
"""Share of ordinary messages that may be answered as if they were of the behaviour's kind."""
_PEOPLE_WANTED = (
    f"look through rows with `tunesmith rows review` (what you mark becomes cases) or write cases, and with "
    f"{PEOPLES_CASES} of your own it can be told whether it was learned"
)
_MORE_ROWS = "look whether the rows' labels are right, then train on more of them, or longer"
_NAMED = 3
_ANSWER_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Counts:
    """One block of a comparison, as far as a claim rests on it."""

    judged: int
    base_passed: int
    passed: int
    verdict: str
    reason: str
    tested: bool
    by_people: tuple[int, int] | None = None
    """Of the judged cases those that a person wrote or marked, passed and in all; None: all of them."""

    @property
    def rate(self) -> float:
        return self.passed / self.judged if self.judged else 0.0

    @property
    def lost(self) -> float:
        """Share of the cases that the change lost, net."""
        return (self.base_passed - self.passed) / self.judged if self.judged else 0.0


@dataclass(frozen=True, slots=True)
class Controls:
    """What a pass rate on the target is held against; None where it was not, or cannot be, measured."""

    shuffle: Shuffle | None = None
    constant: Constant | None = None
    prompted: tuple[int, int] | None = None
    """Cases that the prompted base passed, and how many it answered."""
    repeat: Repeat | None = None
    triggers: Triggers | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The word, why, which rivals the arm beats, and what would have to be added."""

    word: Word
    reasons: tuple[str, ...]
    beats: Mapping[str, bool | None] = field(default_factory=dict)
    """base, shuffle, constant, prompted: None where it is not known."""
    add: str = ""
    """What the suite or the rows need before more can be shown; empty where they need nothing."""
    meaning_tested: bool = True
    """Whether an arm that learned the meaning could stand out from the controls on this suite."""

    @property
    def sentence(self) -> str:
        """The claim in one line."""
        form = "the meaning was not" if self.meaning_tested else "the suite does not test the meaning"
        sentences = {
            FORM_ONLY: f"the form was learned{',' if self.meaning_tested else ';'} {form}",
            LEARNED: "learned",
            NOT_LEARNED: "not learned",
            NO_CLAIM: "no decision",
        }[self.word]
        return f"{sentences}: {'; '.join(self.reasons)}{f'; {self.add}' if self.add else ''}"


def claim_of(target: Counts | None, guarded: Mapping[str, Counts], controls: Controls, refused: str = "") -> Claim:
    """What may be claimed of an arm against the base. `refused` is why the two cannot be compared."""
    if refused:
        return Claim(NO_CLAIM, (refused,))
    if target is None or not target.judged:
        return Claim(NO_CLAIM, ("no target case was answered by both",), add="write target cases")
    beats = _beats(target, controls)
    if not target.tested:
        return Claim(NO_CLAIM, (target.reason,), beats)
    if target.verdict != BETTER:
        return _no_gain(target, beats)
    if form := _form_reasons(controls, beats):
        tested = _meaning_tested(controls)
        return Claim(FORM_ONLY, form, beats, _MORE_ROWS if tested else _what_to_add(controls), tested)
    if target.rate < LEARNED_RATE:
        return Claim(NOT_LEARNED, (f"{_of(target)}, under {LEARNED_RATE:.0%}: learned in part at most",), beats)
    if lost := _over_trigger(guarded, controls.triggers):
        return Claim(NOT_LEARNED, lost, beats, "add near misses, with the base's ordinary answers, to the rows")
    if target.by_people is None:
        return Claim(LEARNED, (_of(target), *_beaten(controls)), beats)
    passed, judged = target.by_people
    if judged < PEOPLES_CASES:
        reasons = (
            f"{_of(target)}: its rows were learned",
            *_beaten(controls),
            f"{judged or 'none'} of these cases are a person's, the others are the work of the writer of the rows",
        )
        return Claim(NO_CLAIM, reasons, beats, _PEOPLE_WANTED)
    if passed < LEARNED_RATE * judged:
        line = f"{_of(target)}, but of the {judged} that are a person's only {passed}"
        return Claim(NOT_LEARNED, (line,), beats, "add rows in the manner of the cases that fail")
    return Claim(LEARNED, (_of(target), f"{passed} of the {judged} that are a person's", *_beaten(controls)), beats)


def _no_gain(target: Counts, beats: Mapping[str, bool | None]) -> Claim:
    line = f"{_of(target)}, the base {target.base_passed}"
    if target.verdict == WORSE:
        return Claim(NOT_LEARNED, (f"{line}: worse than the base",), beats)
    if target.rate < LEARNED_RATE:
        return Claim(NOT_LEARNED, (f"{line}: no gain that chance does not explain",), beats)
    return Claim(NO_CLAIM, (f"{line}: too few cases to win for a gain to show",), beats, "write harder cases")


def _beats(target: Counts, controls: Controls) -> dict[str, bool | None]:
    prompted = controls.prompted
    return {
        "base": target.tested and target.verdict == BETTER,
        "shuffle": _well_above(controls.shuffle),
        "constant": _well_above(controls.constant),
        "prompted": target.rate > prompted[0] / prompted[1] if prompted and prompted[1] else None,
    }


def _well_above(control: Shuffle | Constant | None) -> bool | None:
    if control is None:
        return None
    return control.lead >= MEANING_MARGIN - 1e-9 and control.p_value < ALPHA


def _meaning_tested(controls: Controls) -> bool:
    """Whether LEARNED_RATE of the cases would be well above every control: then the suite is not at fault."""
    known = (controls.shuffle, controls.constant) if controls.constant else (controls.shuffle,)
    most = LEARNED_RATE - MEANING_MARGIN + 1e-9
    return all(one is not None and not one.open and one.passed <= most * one.cases for one in known)


def _form_reasons(controls: Controls, beats: Mapping[str, bool | None]) -> tuple[str, ...]:
    """Why the target shows no more than the form; a control that could not be computed shows nothing either."""
    shuffle, constant = controls.shuffle, controls.constant
    reasons = []
    if shuffle is None:
        reasons.append("all target cases come from one message, so answers cannot change places")
    elif not beats["shuffle"]:
        reasons.append(
            f"its own answers pass {shuffle.own} of {shuffle.cases}, shuffled among the cases {shuffle.passed} "
            f"({shuffle.lowest} to {shuffle.highest})"
        )
    if constant is not None and not beats["constant"]:
        answer = " ".join(constant.answer.split())[:_ANSWER_CHARACTERS]
        reasons.append(f"one answer to everything, “{answer}”, passes {constant.passed} of {constant.cases}")
    return tuple(reasons)


def _what_to_add(controls: Controls) -> str:
    shuffle = controls.shuffle
    if shuffle and shuffle.open:
        return f"{shuffle.open} of the shuffled gradings wait for a judge: evaluate with one"
    if shuffle and shuffle.indifferent:
        named = ", ".join(shuffle.indifferent[:_NAMED]) + (" …" if len(shuffle.indifferent) > _NAMED else "")
        return (
            f"say in {len(shuffle.indifferent)} cases what this very answer has to hold ({named}): the right value of "
            "a field, a word that only this message asks for, or a criterion for the judge"
        )
    return "add cases whose right answers differ: of each value several, the rare ones too"


def _over_trigger(guarded: Mapping[str, Counts], triggers: Triggers | None) -> tuple[str, ...]:
    reasons = [
        f"{name}: {counts.base_passed} → {counts.passed} of {counts.judged} passed, over {TRIGGER_LIMIT:.0%} lost"
        for name, counts in guarded.items()
        if counts.lost > TRIGGER_LIMIT or counts.verdict == WORSE
    ]
    if triggers and triggers.rate > TRIGGER_LIMIT:
        reasons.append(
            f"{len(triggers.triggered)} of {triggers.cases} ordinary messages are answered in the behaviour's form"
        )
    return tuple(reasons)


def _beaten(controls: Controls) -> list[str]:
    reasons = []
    if controls.shuffle:
        reasons.append(f"shuffled among the cases its answers pass {controls.shuffle.passed}")
    if controls.constant:
        reasons.append(f"the best constant answer {controls.constant.passed}")
    return reasons


def _of(target: Counts) -> str:
    return f"{target.passed} of {target.judged} target cases pass"
