"""Test cases by what became of them, and what a suite holds. A blind case is counted, and not shown before it is
opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context, clip
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Most, Query, Recorded, RunName
from tunesmith.agent.queries.case import case_result
from tunesmith.agent.queries.facts import Fact, Result
from tunesmith.agent.queries.texts import (
    Cases,
    asked_by,
    cases_of,
    labels_in,
    labels_of,
    texts_of,
    verdict_of,
    wanted_of,
)  # fmt: skip
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.evaluation.blind import hidden_cases

Outcome = Literal["failed", "passed", "lost", "gained", "flipped", "error", "any"]
FLIPS = ("lost", "gained", "flipped")  # counted between two models
_WORDS = {"failed": "fails", "passed": "passes", "error": "error"}


class CasesQuery(Query):
    """Test cases by what became of them; lost, gained, flipped: from the other arm."""

    kind: Literal["cases"] = "cases"
    outcome: Outcome = "failed"
    run: RunName = ""
    arm: AnyArm = ""
    other_arm: Annotated[AnyArm, Field(description="Of a flip: the arm before. Else: both arms came to it")] = ""
    block: AnyBlock = ""
    label: Annotated[Recorded, Field(description="Such as billing")] = ""
    most: Most = 0
    number: Annotated[int, Field(ge=-1, description="The one at this place; -1: the last; 0: all")] = 0
    skip: Annotated[int, Field(ge=0, description="Shown before")] = 0


class SuiteQuery(Query):
    """What is tested: cases by block and label, how many are blind, what the open ones ask."""

    kind: Literal["suite"] = "suite"
    run: RunName = ""
    block: AnyBlock = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers of an arm to the cases that are meant."""

    store: Store
    run: Run
    arm: str
    suite: str
    given: Sequence[EvalResult]
    cases: Cases
    hidden: frozenset[str]


def asked_of(store: Store, run: Run, arm: str = "", block: str = "", label: str = "") -> Asked:
    """The answers of an arm, else the last, to the cases of a block or label. Raises NotFound with what there is."""
    arm = arm or scores.last_arm(store, run.id)
    suite = scores.suite_of(store, scores.step_of(store, run.id, arm))
    cases = cases_of(store, run.id, suite)
    given = [one for one in scores.results(store, run.id, arm, suite) if block in ("", one.block)]
    if not given:
        raise scores.unmeasured(store, run, arm, block)
    labelled = [one for one in given if not label or _has(label, one.case_id, cases)]
    if not labelled:
        known = listed(labels_of(store, run.id)) or "none"
        raise NotFound(f"{run.id} has no case of the label {clip(label, 40)}; its labels: {known}.")
    return Asked(store, run, arm, suite, labelled, cases, hidden_cases(store, run.id))


def _has(label: str, case: str, cases: Cases) -> bool:
    wanted = {value.lower() for _, value in wanted_of(cases.get(case))}
    return label.lower() in wanted or label.lower() in case.lower().split("-")


def answer(query: CasesQuery, context: Context) -> Result:
    """The cases of an outcome. Raises NotFound where an arm, block, label or place is not there."""
    store, run = context.store, scores.evaluated_run(context, query.run, arm=query.arm)
    asked = asked_of(store, run, query.arm, query.block, query.label)
    other: str = query.other_arm if query.other_arm != asked.arm else ""
    other = other or (_before(asked, query) if query.outcome in FLIPS else "")
    beside = _beside(asked, other)
    if other and not beside.get(other):
        raise scores.unmeasured(store, run, other, query.block)
    chosen = [one for one in asked.given if _came_to(query.outcome, one, beside.get(other, {}).get(one.case_id), other)]
    chosen.sort(key=lambda one: query.outcome == "flipped" and one.passed is True)  # the lost ones first
    seen = [one for one in chosen if one.case_id not in asked.hidden]
    flips = [one.passed for one in asked.given
             if _came_to("flipped", one, beside.get(other, {}).get(one.case_id), other)]  # fmt: skip
    by_base = {name for name, one in beside.get("base", {}).items() if one.passed}
    of: Fact = {
        "run": run.id, "arm": asked.arm, "outcome": query.outcome, "other_arm": other, "block": query.block,
        "label": query.label, "cases": len(chosen), "out_of": len(asked.given),
        "passed": sum(one.passed is True for one in asked.given),
        **({"lost": flips.count(False), "gained": flips.count(True)} if other else {}),
        **({"base_passes_of_these": sum(one.case_id in by_base for one in chosen)} if beside.get("base") else {}),
    }  # fmt: skip
    if query.number:
        return _at_its_place(asked, query.skip, query.number, seen, of)
    blind, after = len(chosen) - len(seen), seen[query.skip :]
    left_out = {"blind cases": blind, "shown before": len(seen) - len(after)}
    facts = [_fact(one, asked, beside) for one in after]
    texts = [
        {**fact, **texts_of(asked.cases.get(one.case_id), {**_of_case(one, beside, (other,)), asked.arm: one})}
        for one, fact in zip(after, facts, strict=True)
    ]
    known = {name: n for name, n in left_out.items() if n}
    return Result(tuple(facts), of, texts=tuple(texts), most=query.most, left_out=known)


Beside = Mapping[str, Mapping[str, EvalResult]]
"""Arm → its answers by case, to the same suite."""


def _beside(asked: Asked, other: str) -> Beside:
    arms = dict.fromkeys(arm for arm in ("base", other) if arm and arm != asked.arm)
    return {arm: {r.case_id: r for r in scores.results(asked.store, asked.run.id, arm, asked.suite)} for arm in arms}


def _came_to(outcome: str, one: EvalResult, before: EvalResult | None, other: str) -> bool:
    if outcome in FLIPS:
        flipped = before is not None and {before.passed, one.passed} == {True, False}
        return flipped and (outcome == "flipped" or one.passed is (outcome == "gained"))
    both = [one, *([before] if before else [])]
    return (not other or before is not None) and all(_WORDS.get(outcome) in (None, verdict_of(each)) for each in both)


def _before(asked: Asked, query: CasesQuery) -> str:
    """The arm that a flip is counted from: of what was lost the one before; of what was gained or forgotten, base."""
    since_base = query.outcome == "gained" or (query.block in ("general", "tools") and not query.arm)
    arms = [arm for arm in ARMS[: ARMS.index(asked.arm)] if arm != "prompted"]
    earlier = [arm for arm in arms if scores.step_of(asked.store, asked.run.id, arm, asked.suite)]
    if not earlier:
        raise NotFound(f"{asked.run.id} has no two arms with answers to the same cases; evaluate one first.")
    return earlier[0] if since_base else earlier[-1]


def _of_case(one: EvalResult, beside: Beside, arms: Iterable[str]) -> Mapping[str, EvalResult]:
    """What some of the other arms answered to the case of an answer."""
    return {arm: beside[arm][one.case_id] for arm in arms if one.case_id in beside.get(arm, {})}


def _fact(one: EvalResult, asked: Asked, beside: Beside) -> Fact:
    of_arms = {**_of_case(one, beside, beside), asked.arm: one}
    return {
        "case": one.case_id, "block": one.block, **{arm: verdict_of(given) for arm, given in of_arms.items()},
        "answer_cut_off": one.finish_reason == scores.CUT_OFF or None,
    }  # fmt: skip


def _at_its_place(asked: Asked, skip: int, number: int, seen: Sequence[EvalResult], of: Fact) -> Result:
    """One case of a list, as every arm answered it."""
    place = skip + number if number > 0 else len(seen)
    if not 0 < place <= len(seen):
        raise NotFound(f"There is no number {place} among {count(len(seen), 'case')} that can be shown.")
    found = case_result(asked.store, asked.run, seen[place - 1].case_id, asked.suite)
    return replace(found, of={**found.of, "outcome": of["outcome"], "number": place, "among": len(seen)})


def suite(query: SuiteQuery, context: Context) -> Result:
    """What a run was measured on, block by block. Raises NotFound without a measurement."""
    store, run = context.store, scores.evaluated_run(context, query.run)
    asked = asked_of(store, run, block=query.block)
    cases = Counter(one.block for one in asked.given)
    blind = Counter(one.block for one in asked.given if one.case_id in asked.hidden)
    seen = [one for one in asked.given if one.case_id not in asked.hidden]
    wanted = Counter(pair for one in seen for pair in wanted_of(asked.cases.get(one.case_id)))
    labels = labels_in([asked.cases[one.case_id] for one in seen if one.case_id in asked.cases])
    files = [one for one in store.artifacts(run.id, "suite") if asked.suite in ("", one.id)]
    return Result(
        (
            *({"block": block, "cases": n, "blind_cases": blind[block]} for block, n in cases.items()),
            *({"label": label, "of": key, "open_cases": wanted[key, label]} for key in labels for label in labels[key]),
        ),
        {"run": run.id, "suite": asked.suite, "cases": len(asked.given), "block": query.block,
         "file": str(files[-1].path) if files else ""},
        texts=tuple({"case": r.case_id, "block": r.block, "asked": asked_by(asked.cases.get(r.case_id))} for r in seen),
        left_out={"blind cases": len(asked.given) - len(seen)} if len(seen) < len(asked.given) else {},
    )  # fmt: skip
