"""Test cases by what became of them, one of them by its place, and what a suite holds.

A blind case is counted, and not shown before it is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, Context, clip
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Most, Query, Recorded, RunName, TabledQuery
from tunesmith.agent.queries.case import CaseQuery, case_answer, given_by, page_of, quoted, reason_of, verdict_of
from tunesmith.agent.queries.described import asked_by, cases_of, wanted_in_words, wanted_of
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.suites.case import Case

Outcome = Literal["failed", "passed", "lost", "gained", "flipped", "error", "any"]
_FEW, PAIRS, _OF_MANY, _SOME, _MOST = 2, 3, 4, 5, 9
"""Cases that a screen holds: two in full, three with two answers, five with what their checks say, nine without; of
more the first four."""
FLIPS = ("lost", "gained", "flipped")  # counted between two models


class CasesQuery(TabledQuery):
    """Test cases by what became of them. lost, gained, flipped: from the other arm to this one."""

    kind: Literal["cases"] = "cases"
    outcome: Outcome = "failed"
    run: RunName = ""
    arm: AnyArm = ""
    other_arm: Annotated[AnyArm, Field(description="Of a flip: the arm before. Of failed: both arms fail it")] = ""
    block: AnyBlock = ""
    label: Annotated[Recorded, Field(description="Only cases of this label, such as billing")] = ""
    most: Most = 0
    number: Annotated[int, Field(ge=-1, description="Only the one at this place of the list; -1: the last; 0: all")] = 0
    skip: Annotated[int, Field(ge=0, description="So many of the list were shown before")] = 0


class SuiteQuery(Query):
    """What is tested: how many cases of which block, and some of them."""

    kind: Literal["suite"] = "suite"
    run: RunName = ""
    block: AnyBlock = ""
    about: Literal["counts", "cases"] = "counts"


@dataclass(frozen=True, slots=True)
class CaseCounts:
    """How many cases came to what; ids of those that may be seen, no text."""

    run: str
    arm: str
    outcome: str
    chosen: int
    judged: int
    passed: int
    cases: tuple[str, ...]
    other_arm: str = ""


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """What a run was measured on."""

    run: str
    cases: int
    by_block: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The answers that a question is about, and the cases that they answer."""

    store: Store
    run: Run
    arm: str
    suite: str
    given: Sequence[EvalResult]
    cases: Mapping[str, Case]
    hidden: frozenset[str]
    what: str
    """The cases in words: `target billing cases`."""
    most: int = 0
    number: int = 0
    skip: int = 0


def answer(query: CasesQuery, context: Context) -> Answer:
    """The cases of an outcome. Raises NotFound where the arm was never measured."""
    store, run = context.store, scores.evaluated_run(context, query.run, arm=query.arm)
    asked = _asked(store, run, query.arm or scores.last_arm(store, run.id), query.block, query.label)
    asked = replace(asked, most=query.most, number=query.number, skip=query.skip)
    if query.outcome in FLIPS:
        return _flips(asked, query)
    passed, judged = _passed(asked.given), sum(one.passed is not None for one in asked.given)
    wanted = {"passed": True, "error": None}.get(query.outcome, False)
    chosen = [one for one in asked.given if query.outcome == "any" or one.passed is wanted]
    n, whose, more = len(asked.given), f"In {run.id} the {asked.arm} model", ""
    first = {
        "any": f"{whose} passes {passed} of {n} {asked.what}; its answers:",
        "passed": f"{whose} passes {passed} of {judged} {asked.what}.",
        "error": f"In {run.id} {len(chosen) or 'none'} of {n} {asked.what} of the {asked.arm} model ended in an error.",
        "failed": f"{whose} fails {len(chosen)} of {judged} {asked.what} (passes {passed} of {judged}):" if chosen else
                  f"{whose} fails none of the {judged} {asked.what}: {passed} of {judged} passed.",
    }[query.outcome]  # fmt: skip
    if query.outcome == "failed" and query.other_arm:
        also = {one.case_id for one in scores.results(store, run.id, query.other_arm) if one.passed is False}
        chosen = [one for one in chosen if one.case_id in also]
        first = f"{len(chosen) or 'None'} of the {n} cases of {run.id} are failed by both {asked.arm} and "
        first += f"{query.other_arm}."
    elif query.outcome == "failed":
        more = _passed_by_base(asked, chosen)
    return _listed(first, asked, chosen, query.outcome, more, other=query.other_arm)


def _passed_by_base(asked: _Asked, failed: Sequence[EvalResult]) -> str:
    """Which of the cases that an arm fails the base passes; empty for the base, and where it was not asked them."""
    ids = {one.case_id for one in failed}
    of_base = scores.results(asked.store, asked.run.id, "base", asked.suite) if asked.arm != "base" else []
    both = [one for one in of_base if one.case_id in ids]
    passed, blind = _open([one for one in both if one.passed], asked.hidden)
    each = [f": {listed([clip(one.case_id, 40) for one in passed], 4)}"] * bool(passed and not blind)
    return f"Of these the base passes {_passed(both) or 'none'}{''.join(each)}." if both else ""


def _asked(store: Store, run: Run, arm: str, block: str = "", label: str = "") -> _Asked:
    """The answers of an arm on a block, of one label where some case has it. Raises NotFound where there are none."""
    suite = scores.suite_of(store, scores.step_of(store, run.id, arm))
    cases = cases_of(store, run.id, suite)
    given = [one for one in scores.results(store, run.id, arm, suite) if block in ("", one.block)]
    labelled = [
        one for one in given
        if label and (label in dict(wanted_of(cases.get(one.case_id))).values() or label in one.case_id.split("-"))
    ]  # fmt: skip
    if not given:
        raise scores.unmeasured(store, run, arm, block)
    what = " ".join(word for word in (block, label if labelled else "", "cases") if word)
    return _Asked(store, run, arm, suite, labelled or given, cases, hidden_cases(store, run.id), what)


def _passed(given: Sequence[EvalResult]) -> int:
    return sum(one.passed is True for one in given)


def _flips(asked: _Asked, query: CasesQuery) -> Answer:
    """What flipped between an arm and the one before it, lost cases first."""
    store, run, arm, other, unmeasured = asked.store, asked.run, asked.arm, str(query.other_arm), ""
    if other in ("", arm) or not scores.step_of(store, run.id, other, asked.suite):
        unmeasured = f" (the {other} model was not measured)" if other else ""
        other = _before(asked, query)
    before = {one.case_id: one for one in scores.results(store, run.id, other, asked.suite)} if other else {}
    both = [(before[one.case_id], one) for one in asked.given if one.case_id in before]
    pairs = [(a, b) for a, b in both if a.passed is not None and b.passed is not None]
    if not pairs:
        raise NotFound(f"{run.id} has no two arms with answers to the same {asked.what}; evaluate one first.")
    lost = [b for a, b in pairs if a.passed and not b.passed]
    gained = [b for a, b in pairs if b.passed and not a.passed]
    n, was, passed = len(pairs), _passed([a for a, _ in pairs]), _passed([b for _, b in pairs])
    score = f"{other} passes {was} of {n}, {arm} passes {passed} of {n}{unmeasured}"
    if query.outcome == "flipped":
        first = f"{count(len(lost) + len(gained), asked.what.removesuffix('s'))} of {run.id} flipped from {other} to "
        first += f"{arm}, {len(lost)} lost and {len(gained)} gained: {score}."
        return _listed(first, asked, [*lost, *gained], query.outcome, other=other)
    chosen = gained if query.outcome == "gained" else lost
    what, were = (asked.what.removesuffix("s"), "was") if len(chosen) == 1 else (asked.what, "were")
    first = f"{len(chosen) or 'No'} {what} of {run.id} {were} {query.outcome} from {other} to {arm}: {score}."
    more = f"{len(gained) or 'None'} gained. {'' if query.block else scores.retained_sentence(store, run.id, arm)}"
    if query.outcome == "gained":
        more = f"{len(lost)} {'was' if len(lost) == 1 else 'were'} lost." if lost else "None was lost."
    return _listed(first, asked, chosen, query.outcome, more.strip(), other=other)


def _before(asked: _Asked, query: CasesQuery) -> str:
    """The arm that a flip is counted from: of what was lost the one before; of what was gained or forgotten, base."""
    since_base = query.outcome == "gained" or (query.block in ("general", "tools") and not query.arm)
    arms = [arm for arm in ARMS[: ARMS.index(asked.arm)] if arm != "prompted"]
    earlier = [arm for arm in arms if scores.step_of(asked.store, asked.run.id, arm, asked.suite)]
    return "" if not earlier else earlier[0] if since_base else earlier[-1]


def passed_and_failed(context: Context, one: Run, two: Run, *, arm: str, block: str) -> Answer:
    """The cases that one run passes and another fails, of those that both were asked. Raises NotFound without any."""
    store = context.store
    asked = _asked(store, one, arm or scores.last_arm(store, one.id), block)
    of_other = {result.case_id: result.passed for result in scores.results(store, two.id, asked.arm)}
    both = [result for result in asked.given if of_other.get(result.case_id) is not None and result.passed is not None]
    if not both:
        raise NotFound(f"{one.id} and {two.id} were asked no case in common with their {asked.arm} models.")
    chosen = [result for result in both if result.passed and not of_other[result.case_id]]
    first = f"{len(chosen) or 'None'} of the {len(both)} cases that both were asked are passed by {one.id}'s "
    first += f"{asked.arm} model and failed by {two.id}'s."
    hidden = asked.hidden | hidden_cases(store, two.id)
    return _listed(first, replace(asked, given=both, hidden=hidden), chosen, "gained")


def asked_of_both(store: Store, one: Run, two: Run) -> Answer:
    """How many cases of which block two runs were measured on, and how many are the same."""
    asked = [_asked(store, run, scores.last_arm(store, run.id)) for run in (one, two)]
    facts = [SuiteFacts(of.run.id, len(of.given), dict(Counter(r.block for r in of.given))) for of in asked]
    each = [
        f"{s.run} on {s.cases} cases ({', '.join(f'{n} {block}' for block, n in s.by_block.items())})" for s in facts
    ]
    known = all(of.cases for of in asked)
    texts = [{r.case_id: known and asked_by(of.cases.get(r.case_id)) for r in of.given} for of in asked]
    first, second = (set(one.items()) for one in texts)
    same = "the same cases" if first == second else f"{count(len(first & second), 'case')} in common"
    if not known:
        same = f"{count(len(first & second), 'name')} of cases in common, whose texts cannot be read any more"
    return Answer((f"Measured {' and '.join(each)}: {same}.",), tuple(facts))


def suite(query: SuiteQuery, context: Context) -> Answer:
    """How many cases of which block a run was measured on, and some of them."""
    store, run = context.store, scores.evaluated_run(context, query.run)
    asked = _asked(store, run, scores.last_arm(store, run.id))
    by_block = Counter(one.block for one in asked.given)
    each = ", ".join(f"{number} {block}" for block, number in by_block.items())
    first = f"{run.id} is measured on {len(asked.given)} cases: {each}."
    if query.block:
        of = f"{by_block[query.block]} cases, of {len(asked.given)} in all ({each})"
        first = f"The {query.block} block of {run.id} has {of}."
    chosen, blind = _open([one for one in asked.given if query.block in ("", one.block)], asked.hidden)
    lines = [first]
    if query.about == "cases" or query.block:
        # A line each: the page has the answers.
        lines += [f"  {clip(one.case_id, 40)}{quoted(asked_by(asked.cases.get(one.case_id)), 70)}"
                  for one in chosen[:4]]  # fmt: skip
        lines += [f"{len(chosen) - 4} more; “show all” lists them with the answers."] if len(chosen) > 4 else []
        lines += blind
    if suites := [one for one in store.artifacts(run.id, "suite") if asked.suite in ("", one.id)]:
        lines.append(f"The suite ({suites[-1].id}) lies in {suites[-1].path}.")
    facts = SuiteFacts(run.id, len(asked.given), dict(by_block))
    return Answer(tuple(lines), (facts,), lambda: page_of(chosen, asked.cases), private=True, open_words=first)


def _open(chosen: Sequence[EvalResult], hidden: frozenset[str]) -> tuple[list[EvalResult], list[str]]:
    """The answers to cases that may be seen, and a line about the others."""
    seen = [one for one in chosen if one.case_id not in hidden]
    blind = len(chosen) - len(seen)
    return seen, [f"{count(blind, 'blind case')} more, unseen before `compare --open-blind`."] * bool(blind)


def _listed(
    headline: str, asked: _Asked, chosen: Sequence[EvalResult], outcome: str, more: str = "", *, other: str = ""
) -> Answer:
    """The headline, and the cases below it: the fewer they are, the more of each."""
    seen, blind = _open(chosen, asked.hidden)
    if asked.number:
        return _at_its_place(headline.rstrip(":."), asked, seen, other)
    few = asked.most or (PAIRS if other else _MOST if len(seen) <= _MOST else _OF_MANY)
    lines, visible = [headline], seen[asked.skip : asked.skip + few]
    if asked.skip:
        lines.append(f"Numbers {asked.skip + 1} to {asked.skip + len(visible)} of {len(seen)}:" if visible
                     else f"All {len(seen)} that may be seen were shown; “show all” lists them again.")  # fmt: skip
    given = scores.results(asked.store, asked.run.id, other, asked.suite) if other else ()
    before = {one.case_id: one for one in given}
    for one in visible:
        beside = [(other, before[one.case_id])] if one.case_id in before else []
        lines += _case_lines(asked, [*beside, (asked.arm, one)], len(visible))
    until = min(asked.skip + few, len(seen))
    lines += [f"{len(seen) - until} more; “show all” lists every one."] if until < len(seen) else []
    lines += [*blind, *([more] if more else [])]
    ids = tuple(one.case_id for one in seen)
    judged = sum(one.passed is not None for one in asked.given)
    facts = CaseCounts(asked.run.id, asked.arm, outcome, len(chosen), judged, _passed(asked.given), ids[:_MOST], other)
    opening = f"{headline} {listed(ids, 12)}"  # as many as a driver reads and a screen line or two holds
    return Answer(
        tuple(lines), (facts,), lambda: page_of(seen, asked.cases), private=True, open_words=opening, until=until
    )


def _at_its_place(headline: str, asked: _Asked, seen: Sequence[EvalResult], other: str) -> Answer:
    """One case of a list, with all that is known of it."""
    place = asked.skip + asked.number if asked.number > 0 else len(seen)
    if not 0 < place <= len(seen):
        return Answer((f"There is no number {place} among {count(len(seen), 'case')} that can be shown. {headline}.",))
    case, arm = seen[place - 1].case_id, "" if other else asked.arm
    query = CaseQuery.model_validate({"case": case, "run": asked.run.id, "arm": arm})
    of_case = case_answer(query, asked.store, asked.run, asked.suite, [case], asked.cases)
    words = f"{place} of {len(seen)}: {of_case.open_words}"
    lines = (f"{place} of {len(seen)}: {of_case.lines[0]}", *of_case.lines[1:])
    return replace(of_case, lines=lines, open_words=words, until=place)


def _case_lines(asked: _Asked, given: Sequence[tuple[str, EvalResult]], among: int) -> list[str]:
    """A case with what it asks, what each of some arms answered, and of a failure what was wanted and what the check
    says. The fewer cases there are, the more of each: an answer is to stay on a screen."""
    newest, few = given[-1][1], among <= _FEW
    case = asked.cases.get(newest.case_id)
    wanted = wanted_in_words(case) if any(not one.passed for _, one in given) else ""
    reason = reason_of(newest) if not newest.passed else ""
    notes = [f"wanted: {clip(wanted, 100)}"] * bool(wanted)
    notes += [clip(reason, 160 if few else 60)] * bool(reason and (among <= _SOME or not notes))
    named = [f"{arm} {verdict_of(one)}" for arm, one in given] if len(given) > 1 else ["answered"]
    told = [f"{who}: “{clip(given_by(one), 210 if few else 100)}”" for who, (_, one) in zip(named, given, strict=True)]
    told = [*told, *notes] if few else [*told[:-1], "; ".join([told[-1], *notes])]
    question = quoted(asked_by(case), 150 if few else 100)
    return [f"  {clip(newest.case_id, 50)}{question}", *(f"    {line}" for line in told)]
