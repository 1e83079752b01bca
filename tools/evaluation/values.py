"""Right answers that repeat: whether an arm meets each of them, or only the frequent ones.

A model that always says the majority's label is right nearly always where the others are rare. What is right of a case
is read from its assertions alone, place by place: the text that must be equalled, a field of the JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Response, asks_model

VALUE_CASES = 3
"""Cases that a right answer must have for it to count alone; a rarer one is named as untested."""
_HIDDEN = "one that only blind cases have"


@dataclass(frozen=True, slots=True)
class Answered:
    """A case, an arm's answer to it, and whether that passed."""

    case: Case
    response: Response
    passed: bool


@dataclass(frozen=True, slots=True)
class Values:
    """Right answers that several cases share: which of them the arm does not meet, and which too few cases test."""

    unmet: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()


def values_met(target: Sequence[Answered], public: Collection[str] | None = None) -> Values:
    """Values that the cases assert at one place, where they repeat: each with three cases is met in half of them.

    Rarer ones are untested one by one; of several, none at all being met tells enough. A value that is not `public`,
    since only blind cases hold it, is not named; None: all are.
    """
    unmet: list[str] = []
    untested: list[str] = []

    def named(value: str) -> str:
        return value if public is None or value in public else _HIDDEN

    for groups in _asserted(target).values():
        common = {value: passes for value, passes in groups.items() if len(passes) >= VALUE_CASES}
        if len(groups) < 2 or 2 * sum(map(len, common.values())) < len(target):
            continue
        rare = {value: passes for value, passes in groups.items() if value not in common}
        unmet += [f"{named(value)} ({sum(p)} of {len(p)})" for value, p in common.items() if 2 * sum(p) < len(p)]
        passes = [passed for one in rare.values() for passed in one]
        if len(passes) > 1 and not any(passes):
            unmet.append(f"{', '.join(dict.fromkeys(map(named, list(rare)[:VALUE_CASES])))} (0 of {len(passes)})")
        untested += map(named, rare)
    if len({one.response.output_text for one in target}) == 1 and not all(one.passed for one in target):
        unmet.append("it answers all of them alike")
    return Values(tuple(dict.fromkeys(unmet)), tuple(dict.fromkeys(untested)))


def asserted_values(cases: Iterable[Case]) -> frozenset[str]:
    """Every value that these cases assert somewhere."""
    return frozenset(value for case in cases for a in case.assertions for _, value in _leaves(a.value, ()))


def _asserted(target: Sequence[Answered]) -> dict[tuple[object, ...], dict[str, list[bool]]]:
    """Place in a case's assertions → value asserted there → whether each case with it passed."""
    places: dict[tuple[object, ...], dict[str, list[bool]]] = {}
    for one in target:
        for number, assertion in enumerate(one.case.assertions):
            if not asks_model([assertion]) and assertion.weight > 0:
                for path, value in _leaves(assertion.value, (number, assertion.type)):
                    places.setdefault(path, {}).setdefault(value, []).append(one.passed)
    return places


def _leaves(value: object, path: tuple[object, ...]) -> Iterable[tuple[tuple[object, ...], str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, number))
    elif value is not None:
        yield path, str(value)
