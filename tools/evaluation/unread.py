"""What passes a suite without a message being read: said before anything is asked of a model, let alone bought.

The controls (`controls`) are made from an arm's answers, and so come after the money. Four answers need no arm: nothing
at all, a refusal, the message itself, and the text that most cases ask for, given to all. Where not even an arm that is
right on every case would beat one of them by the exact test, the cases are likely to be left out of the verdict. An
answer that is not tried here may pass too: nothing said is no praise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tunesmith.tools.core.format import count, visible
from tunesmith.tools.evaluation.controls import (
    MOST_CASES,
    Control,
    control_of,
    form_alone,
    grade_without_models,
    says_it_whole,
)
from tunesmith.tools.evaluation.echo import message_of
from tunesmith.tools.evaluation.peoples_cases import PEOPLES_CASES
from tunesmith.tools.suites.case import NEAR_MISS_BLOCK, PRIMARY_BLOCK, Case, Suite, canonical_json, claimed_cases
from tunesmith.tools.suites.grading import Assertion, Response, asks_model
from tunesmith.tools.suites.grading.javascript import as_json, as_text

NOTHING, REFUSAL, ECHO, CONSTANT = "an empty answer", "a refusal", "the message itself", "one text to everything"
_REFUSES = "I'm sorry, but I can't help with that."
_GUARDS = ("general", "tools")
_TEXTS = ("equals", "contains", "icontains", "starts-with", "contains-any", "contains-all", "icontains-any",
          "icontains-all")  # fmt: skip
_MOST_TEXTS = 5
"""Texts that most cases ask for, each tried as the answer to everything: each grades the whole block once more."""


@dataclass(frozen=True, slots=True)
class Unread:
    """One answer that reads nothing, held against the cases of a block that a person wrote."""

    answer: str
    block: str
    passed: int
    cases: int
    """Cases on which code can tell."""
    text: str = ""
    """What the one text says."""
    in_part: bool = False
    """Whether only a part of a large block was looked at."""
    beatable: bool = True
    """Whether an arm that is right everywhere would beat it, on the target with the near misses; so few cases that none
    can be beaten on them do not count against it."""

    @property
    def says(self) -> str:
        """In words."""
        quoted = f" (“{visible(' '.join(self.text.split()))[:40]}”)" if self.text else ""
        part = " that were looked at" if self.in_part else ""
        return f"{self.answer}{quoted} passes {self.passed} of {self.cases} {self.block} cases{part}"


def unread_answers(cases: Iterable[Case]) -> list[Unread]:
    """What passes of the target, and of the blocks that guard, without being read; nothing for a block without cases.

    Of a block of over `MOST_CASES` cases, so many are looked at, evenly spaced.
    """
    by_block: dict[str, list[Case]] = {}
    for case in cases:
        by_block.setdefault(case.block, []).append(case)
    claimed = claimed_cases(by_block.get(PRIMARY_BLOCK, ()))
    target = _spaced([case for case in claimed if case.of_people and case.tests_meaning])
    near = _spaced(claimed_cases(by_block.get(NEAR_MISS_BLOCK, ())))
    results = _of_target(target, near) if target else []
    for block in _GUARDS:
        if guarding := _spaced(by_block.get(block, ())):
            results += [_of_guard(block, guarding, NOTHING, ""), _of_guard(block, guarding, REFUSAL, _REFUSES)]
    return [replace(one, in_part=len(by_block[one.block]) > MOST_CASES) for one in results]


def _spaced(cases: Sequence[Case]) -> list[Case]:
    size = min(len(cases), MOST_CASES)
    return [cases[number * len(cases) // size] for number in range(size)]


def _of_target(target: Sequence[Case], near: Sequence[Case]) -> list[Unread]:
    whole = [*target, *near]
    results = []
    for answer, texts in ((NOTHING, [""]), (REFUSAL, [_REFUSES]), (CONSTANT, _wanted(target))):
        columns = {text: _verdicts(whole, _always(text)) for text in texts}
        if columns:
            text = max(columns, key=lambda name: sum(verdict is True for verdict in columns[name][: len(target)]))
            results.append(_result(answer, text if answer == CONSTANT else "", target, whole, columns[text]))
    # To a near miss an echo answers as the arm does, for only the target's words are in question.
    asked = [case for case in target if not says_it_whole(case)]
    if asked:
        results.insert(2, _result(ECHO, "", asked, asked, _verdicts(asked, message_of)))
    return results


def _result(
    answer: str, text: str, target: Sequence[Case], whole: Sequence[Case], verdicts: Sequence[bool | None]
) -> Unread:
    alone = _against(target, verdicts[: len(target)])
    all_pass = 0 < alone.cases == alone.passed and not alone.waiting and not any(map(says_it_whole, target))
    few = 2 * alone.passed <= alone.cases < PEOPLES_CASES
    beatable = not all_pass and (few or _against(whole, verdicts).state != "tells nothing")
    return Unread(answer, PRIMARY_BLOCK, alone.passed, alone.cases, text, beatable=beatable)


def _against(cases: Sequence[Case], verdicts: Sequence[bool | None]) -> Control:
    """An arm that is right on every case, against this answer."""
    return control_of("unread", [True] * len(cases), verdicts, [case.cluster for case in cases])


def _of_guard(block: str, cases: Sequence[Case], answer: str, text: str) -> Unread:
    verdicts = _verdicts(cases, _always(text))
    return Unread(answer, block, sum(v is True for v in verdicts), sum(v is not None for v in verdicts))


def _always(text: str) -> Callable[[Case], str]:
    return lambda case: text


def _verdicts(cases: Sequence[Case], says: Callable[[Case], str]) -> list[bool | None]:
    """Each case's verdict; of cases that assert the same, the same text is graded once."""
    known: dict[tuple[str, str], bool | None] = {}
    verdicts = []
    for case in cases:
        asserted = canonical_json([[a.model_dump(mode="json") for a in case.assertions], case.threshold])
        key = asserted, says(case)
        if key not in known:
            known[key] = grade_without_models(case, Response(key[1]))
        verdicts.append(known[key])
    return verdicts


def _wanted(cases: Sequence[Case]) -> list[str]:
    """The texts that most cases ask for."""
    texts = Counter(text for case in cases for text in dict.fromkeys(_texts_of(case.assertions)))
    return [text for text, _ in texts.most_common(_MOST_TEXTS)]


def _texts_of(assertions: Sequence[Assertion]) -> list[str]:
    texts: list[str] = []
    for one in (inner for top in assertions for inner in (top, *top.children)):
        if one.type in _TEXTS and one.weight > 0 and not asks_model([one]):
            values = one.value if isinstance(one.value, list) and one.type != "equals" else [one.value]
            texts += [as_json(value) if isinstance(value, dict | list) else as_text(value) for value in values]
    return texts


def _has_edges(assertion: Assertion) -> bool:
    wanted = assertion.value
    return assertion.type == "equals" and assertion.weight > 0 and isinstance(wanted, str) and wanted != wanted.strip()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an arm is asked of a suite, which is known again by its digest."""

    sha256: str
    arm: str
    suite: Suite = field(compare=False)


def warnings_before(suite: Suite, arm: str) -> tuple[str, ...]:
    """`suite_warnings` of what an arm is asked of a suite: a plan has them, and many plans tell what fits."""
    return _warnings_before(_Asked(suite.sha256, arm, suite))


@lru_cache(maxsize=8)
def _warnings_before(asked: _Asked) -> tuple[str, ...]:
    return tuple(suite_warnings([case for case in asked.suite.cases if case.asked_of(asked.arm)]))


def suite_warnings(cases: Sequence[Case], results: Sequence[Unread] | None = None) -> list[str]:
    """What is to be said before money is spent; nothing where a model that learned can show it."""
    results, lines = unread_answers(cases) if results is None else results, []
    if unbeaten := [one for one in results if one.block == PRIMARY_BLOCK and not one.beatable]:
        worst = max(unbeaten, key=lambda one: one.passed)
        lines.append(
            f"without reading a message, {worst.says}, and the exact test could not tell a model that is "
            "right on all of them from that: say in each case what its own answer has to hold, write more of them, or "
            "rate answers (`tunesmith rate`)"
        )
    elif same := form_alone(cases):
        lines.append(same)
    if bare := sum(not case.assertions for case in cases):
        lines.append(
            f"{count(bare, 'case')} of {len(cases)} assert nothing, so any answer passes: give each an assert, or in a "
            "CSV file the column __expected"
        )
    if edged := sum(any(_has_edges(one) for one in case.assertions) for case in cases):
        lines.append(
            f"{count(edged, 'case')} can be passed only by an answer that begins or ends with white space: write the "
            "value of equals without it (in YAML |- in place of |)"
        )
    for block in dict.fromkeys(one.block for one in results if one.block in _GUARDS):
        worst = max((one for one in results if one.block == block), key=lambda one: one.passed)
        if worst.cases and 2 * worst.passed >= worst.cases:
            lines.append(f"the {block} block guards little: {worst.says}")
    return lines
