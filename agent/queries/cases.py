"""Test cases by what became of them, one case arm by arm, and what a suite holds.

A blind case is counted, and not shown before it is opened.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, Context, clip, matching
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Most, Query, RunName
from tunesmith.agent.queries.described import asked_by, cases_of, wanted_of
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.suites.case import Case

Cases = Mapping[str, Case]
Outcome = Literal["failed", "passed", "lost", "gained", "flipped", "error", "any"]
_FEW, _OF_MANY, _SOME, _MOST = 2, 4, 5, 9


class CasesQuery(Query):
    """Test cases by what became of them. lost, gained, flipped: from the other arm to this one."""

    kind: Literal["cases"] = "cases"
    outcome: Outcome = "failed"
    run: RunName = ""
    arm: AnyArm = ""
    other_arm: Annotated[AnyArm, Field(description="Of a flip: the arm before. Of failed: both arms fail it")] = ""
    block: AnyBlock = ""
    label: Annotated[str, Field(description="Only cases of this label, such as billing")] = ""
    most: Most = 0


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

    run: Run
    arm: str
    suite: str
    given: Sequence[EvalResult]
    cases: Cases
    hidden: frozenset[str]
    what: str
    """The cases in words: `target billing cases`."""
    most: int = 0


def answer(query: CasesQuery, context: Context) -> Answer:
    """The cases of an outcome. Raises NotFound where the arm was never measured."""
    store, run = context.store, scores.evaluated_run(context, query.run, arm=query.arm)
    asked = _asked(store, run, query.arm or scores.last_arm(store, run.id), query.block, query.label, query.most)
    if query.outcome in ("lost", "gained", "flipped"):
        return _flips(store, asked, query)
    passed, judged = _passed(asked.given), sum(one.passed is not None for one in asked.given)
    wanted = {"passed": True, "error": None}.get(query.outcome, False)
    chosen = [one for one in asked.given if query.outcome == "any" or one.passed is wanted]
    if query.outcome == "failed" and query.other_arm:
        also = {one.case_id for one in scores.results(store, run.id, query.other_arm) if one.passed is False}
        chosen = [one for one in chosen if one.case_id in also]
        first = f"{len(chosen) or 'None'} of the {len(asked.given)} cases of {run.id} are failed by both {asked.arm} "
        return _listed(f"{first}and {query.other_arm}.", asked, chosen, query.outcome)
    whose = f"In {run.id} the {asked.arm} model"
    if query.outcome == "any":
        first = f"{whose} passes {passed} of {len(asked.given)} {asked.what}; its answers:"
    elif query.outcome == "passed":
        first = f"{whose} passes {passed} of {judged} {asked.what}."
    elif query.outcome == "error":
        of = f"{len(asked.given)} {asked.what} of the {asked.arm} model"
        first = f"In {run.id} {len(chosen) or 'none'} of {of} ended in an error."
    elif not chosen:
        first = f"{whose} fails none of the {judged} {asked.what}: {passed} of {judged} passed."
    else:
        first = f"{whose} fails {len(chosen)} of {judged} {asked.what} (passes {passed} of {judged}):"
    return _listed(first, asked, chosen, query.outcome)


def _asked(store: Store, run: Run, arm: str, block: str, label: str = "", most: int = 0) -> _Asked:
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
    return _Asked(run, arm, suite, labelled or given, cases, hidden_cases(store, run.id), what, most)


def _passed(given: Sequence[EvalResult]) -> int:
    return sum(one.passed is True for one in given)


def _flips(store: Store, asked: _Asked, query: CasesQuery) -> Answer:
    """What flipped between an arm and the one before it, lost cases first."""
    run, arm, other, unmeasured = asked.run, asked.arm, str(query.other_arm), ""
    if not other or not scores.step_of(store, run.id, other, asked.suite):
        unmeasured = f" (the {other} model was not measured)" if other else ""
        other = _before(store, asked, query)
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
        first = f"{len(lost) + len(gained)} {asked.what} of {run.id} flipped from {other} to {arm}, "
        first += f"{len(lost)} lost and {len(gained)} gained: {score}."
        return _listed(first, asked, [*lost, *gained], query.outcome, other=other)
    chosen = gained if query.outcome == "gained" else lost
    what, were = (asked.what.removesuffix("s"), "was") if len(chosen) == 1 else (asked.what, "were")
    first = f"{len(chosen) or 'No'} {what} of {run.id} {were} {query.outcome} from {other} to {arm}: {score}."
    if query.outcome == "gained":
        more = f"{len(lost)} {'was' if len(lost) == 1 else 'were'} lost." if lost else "None was lost."
        return _listed(first, asked, gained, query.outcome, more, other=other)
    more = f"{len(gained) or 'None'} gained. {'' if query.block else scores.retained_sentence(store, run.id, arm)}"
    return _listed(first, asked, lost, query.outcome, more.strip(), other=other)


def _before(store: Store, asked: _Asked, query: CasesQuery) -> str:
    """The arm that a flip is counted from: of what was lost the one before; of what was gained or forgotten, base."""
    since_base = query.outcome == "gained" or (query.block in ("general", "tools") and not query.arm)
    arms = [arm for arm in ARMS[: ARMS.index(asked.arm)] if arm != "prompted"]
    earlier = [arm for arm in arms if scores.step_of(store, asked.run.id, arm, asked.suite)]
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
    return _listed(first, _Asked(one, asked.arm, asked.suite, both, asked.cases, hidden, asked.what), chosen, "gained")


def asked_of_both(store: Store, one: Run, two: Run) -> Answer:
    """How many cases of which block two runs were measured on, and how many are the same."""
    asked = [_asked(store, run, scores.last_arm(store, run.id), "") for run in (one, two)]
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
    asked = _asked(store, run, scores.last_arm(store, run.id), "")
    by_block = Counter(one.block for one in asked.given)
    each = ", ".join(f"{number} {block}" for block, number in by_block.items())
    first = f"{run.id} is measured on {len(asked.given)} cases: {each}."
    if query.block:
        of = f"{by_block[query.block]} cases, of {len(asked.given)} in all ({each})"
        first = f"The {query.block} block of {run.id} has {of}."
    chosen, blind = _open([one for one in asked.given if query.block in ("", one.block)], asked.hidden)
    lines = [first]
    if query.about == "cases" or query.block:
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
    lines, shown = [headline], seen[: asked.most or (_MOST if len(seen) <= _MOST else _OF_MANY)]
    for one in shown:
        lines += _case_lines(one, asked_by(asked.cases.get(one.case_id)), len(shown))
    lines += [f"{len(seen) - len(shown)} more; “show all” lists every one."] if len(seen) > len(shown) else []
    lines += [*blind, *([more] if more else [])]
    ids = tuple(one.case_id for one in seen)
    judged = sum(one.passed is not None for one in asked.given)
    facts = CaseCounts(asked.run.id, asked.arm, outcome, len(chosen), judged, _passed(asked.given), ids[:_MOST], other)
    opening = f"{headline} {listed(ids, 12)}"
    return Answer(tuple(lines), (facts,), lambda: page_of(seen, asked.cases), private=True, open_words=opening)


def _case_lines(one: EvalResult, question: str, among: int) -> list[str]:
    output = given_by(one)
    if among <= _FEW:
        reason = [f"    {clip(reason_of(one), 160)}"] if not one.passed and reason_of(one) else []
        return [f"  {clip(one.case_id, 60)}{quoted(question, 150)}", f"    answered: “{clip(output, 210)}”", *reason]
    if among <= _SOME:
        return [f"  {clip(one.case_id, 50)}{quoted(question, 60)}", f"    answered: “{clip(output, 100)}”"]
    short = clip(one.case_id, 32)
    return [f"  {short}: “{clip(output, max(108 - len(short), 60))}”"]


def quoted(question: str, most: int) -> str:
    """What a case asks, behind its id; empty where that is not known."""
    return f": “{clip(question, most)}”" if question else ""


def given_by(one: EvalResult) -> str:
    """An answer's text, else the calls that it made."""
    calls = [call.get("function") for call in one.tool_calls if isinstance(call, dict)]
    functions = [function for function in calls if isinstance(function, dict)]
    called = "; ".join(f"calls {function.get('name')}, arguments {function.get('arguments')}" for function in functions)
    return one.output or called or "(nothing)"


def reason_of(one: EvalResult) -> str:
    """Why an answer does not pass; empty where it does."""
    if one.error:
        return f"error: {one.error}"
    return next((f"{a.type}: {a.reason}" if a.reason else a.type for a in one.assertions if not a.passed), "")


def verdict_of(one: EvalResult) -> str:
    """What a case came to, in a word."""
    return "error" if one.passed is None else "passes" if one.passed else "fails"


def page_of(chosen: Sequence[EvalResult], cases: Cases) -> RenderableType:
    """Every one of some answers, as a table."""
    rows = [
        [one.case_id, one.block, clip(asked_by(cases.get(one.case_id)), 400), clip(given_by(one), 600),
         verdict_of(one) + (f": {clip(reason_of(one), 160)}" if one.passed is False else "")]
        for one in chosen
    ]  # fmt: skip
    return render.rows_table(["case", "block", "asked", "answered", "verdict"], rows, exact=True)


# One case: what the arms answered, what was wanted, and why that was not enough


class CaseQuery(Query):
    """One test case, by its id or by what it asks: what the arms answered, what was wanted, why it fails."""

    kind: Literal["case"] = "case"
    case: Annotated[str, Field(description="Its id, or words of what it asks")]
    run: RunName = ""
    arm: AnyArm = ""
    about: Literal["answers", "wanted"] = "answers"


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What became of one case, arm by arm; none of its text."""

    run: str
    case: str
    verdicts: Mapping[str, str]


def one_case(query: CaseQuery, context: Context) -> Answer:
    """The case that is meant: of the run that is named, else of the newest that was asked such a one."""
    run = scores.evaluated_run(context, query.run, arm=query.arm)
    others = [] if query.run else [one for one in context.runs() if one.id != run.id]
    for one in [run, *others]:
        if (from_run := _from_run(query, context.store, one)) is not None:
            return from_run
    return Answer((
        f"Nothing of that was measured: no case of {run.id} speaks of “{clip(query.case, 80)}”; “which cases failed” "
        f"lists what there is.",
    ))  # fmt: skip


def _from_run(query: CaseQuery, store: Store, run: Run) -> Answer | None:
    """The answer from one run; None where it was asked no such case.

    Looked for in every suite that the run was measured on, the newest first: by its id, by its very words, then by what
    it speaks of. A blind case is not found.
    """
    hidden = hidden_cases(store, run.id)
    arms = [query.arm] if query.arm else ARMS
    asked: list[tuple[str, set[str], Cases]] = []
    for suite in [artifact.id for artifact in reversed(store.artifacts(run.id, "suite"))] or [""]:
        given = {one.case_id for arm in arms for one in scores.results(store, run.id, arm, suite)}
        asked.append((suite, given - hidden, cases_of(store, run.id, suite)))
    for matches in (_by_id, _by_its_words, _by_content):
        for suite, given, cases in asked:
            if ids := [one for one in matches(query.case, given, cases) if one in given]:
                return _case_answer(query, store, run, suite, ids, cases)
    return None


def _by_id(text: str, given: set[str], cases: Cases) -> list[str]:
    return sorted((case for case in given if case.lower() in text.lower()), key=len, reverse=True)


def _by_its_words(text: str, given: set[str], cases: Cases) -> list[str]:
    return [name for name, case in cases.items() if normal(asked_by(case)) == normal(text)]


def _by_content(text: str, given: set[str], cases: Cases) -> list[str]:
    return matching(text, {name: asked_by(case) for name, case in cases.items()})


def _case_answer(query: CaseQuery, store: Store, run: Run, suite: str, ids: list[str], cases: Cases) -> Answer:
    name = ids[0]
    near = listed([clip(one, 40) for one in ids[:4]])
    if re.fullmatch(r"[a-z]\S*-\d+", query.case) and query.case not in ids:  # an id, and no case's
        return Answer((f"{run.id} asked no case {query.case}, among {len(cases)}. Near it: {near}.",))
    given = list(_given(query, store, run, suite, name))
    if not given:
        return Answer((f"The {query.arm} arm of {run.id} was not asked {clip(name, 60)}.",))
    length = 330 if len(given) == 1 else 170
    lines = [f"{arm} ({verdict_of(one)}): “{clip(given_by(one), length)}”" for arm, one in given]
    wanted = ", ".join(f"{key} {clip(value, 60)}" for key, value in wanted_of(cases.get(name)))
    reason = reason_of(given[-1][1]) if not given[-1][1].passed else ""
    why = [line for line in (wanted and f"  wanted: {wanted}", reason and f"  why: {clip(reason, 200)}") if line]
    lines = [*why, *lines] if query.about == "wanted" else [*lines, *why]
    lines += [f"Near it: {listed([clip(one, 40) for one in ids[1:4]])}."] if len(ids) > 1 else []
    facts = CaseFacts(run.id, name, {arm: verdict_of(one) for arm, one in given})
    return Answer(
        (f"{run.id}, case {clip(name, 60)}{quoted(asked_by(cases.get(name)), 220)}", *lines),
        (facts,),
        lambda: page_of([one for _, one in given], cases),
        private=True,
        open_words=f"case {name} of {run.id}: {', '.join(f'{arm} {word}' for arm, word in facts.verdicts.items())}; "
        f"the texts are on the screen",
    )


def _given(query: CaseQuery, store: Store, run: Run, suite: str, case: str) -> Iterator[tuple[str, EvalResult]]:
    """The answers to a case: of the named arm, else of every one."""
    for arm in [query.arm] if query.arm else scores.arms_measured(store, run.id):
        yield from ((arm, one) for one in scores.results(store, run.id, arm, suite) if one.case_id == case)
