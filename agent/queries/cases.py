"""Test cases: which failed, were lost or gained; one with its answers; what is tested; what is taken for what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context, cite, clip, matching
from tunesmith.agent.queries.facts import AnyArm, AnyBlock, Fact, Most, Query, Recorded, Result, RunName
from tunesmith.agent.queries.texts import (
    Cases,
    asked_by,
    cases_of,
    given_in,
    json_of,
    labels_in,
    labels_of,
    texts_of,
    verdict_of,
    wanted_of,
)  # fmt: skip
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, listed
from tunesmith.tools.core.similarity import normal
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.suites.case import PRIMARY_BLOCK

Outcome = Literal["failed", "passed", "lost", "gained", "flipped", "error", "any"]
FLIPS = ("lost", "gained", "flipped")  # counted between two models
_NEAR = 4
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


# One case


class CaseQuery(Query):
    """One test case: which arms pass it, what was answered and wanted."""

    kind: Literal["case"] = "case"
    case: Annotated[str, Field(description="Its id, or words")]
    run: RunName = ""
    arm: AnyArm = ""


def one_case(query: CaseQuery, context: Context) -> Result:
    """The case that is meant: of the run that is named, else of the newest that was asked such a one.

    An id is taken by the letter. Raises NotFound with the nearest ids; a blind case is not found.
    """
    store, run = context.store, scores.evaluated_run(context, query.run, arm=query.arm)
    others = [] if query.run else [one for one in context.runs() if one.id != run.id]
    for one in [run, *others]:
        for suite in [made.id for made in reversed(store.artifacts(one.id, "suite"))] or [""]:
            open_ids = _answered(store, one.id, suite, query.arm) - hidden_cases(store, one.id)
            ids, by = _found(query.case, open_ids, cases_of(store, one.id, suite))
            if ids:
                return case_result(store, one, ids[0], suite, arm=query.arm, found_by=by, near=ids[1:_NEAR])
    known = _answered(store, run.id, "", query.arm) - hidden_cases(store, run.id)
    near = listed(get_close_matches(query.case, sorted(known), _NEAR, 0.5)) or "none"
    raise NotFound(
        f"{run.id} asked no case {clip(query.case, 60)} that may be seen, among {len(known)}; near it: {near}."
    )


def _answered(store: Store, run: str, suite: str, arm: str) -> set[str]:
    """The cases that an arm, or any, answered."""
    arms = [arm] if arm else ARMS
    return {one.case_id for name in arms for one in scores.results(store, run, name, suite)}


def _found(text: str, ids: Collection[str], cases: Cases) -> tuple[list[str], str]:
    """The open cases that some words mean, the likeliest first, and by what they were found."""
    known = {one.lower(): one for one in ids}
    if exact := known.get(text.lower()):
        return [exact], "id"
    if re.fullmatch(r"\S*[-_/\d]\S*", text):  # it has the shape of an id, and is none
        return [], ""
    if named := [one for low, one in known.items() if re.search(rf"(?<![\w-]){re.escape(low)}(?![\w-])", text.lower())]:
        return sorted(named, key=len, reverse=True), "id"
    asked = {name: asked_by(cases.get(name)) for name in ids}
    same = [name for name, words in asked.items() if words and normal(words) == normal(text)]
    return same or matching(text, asked), "its words" if same else "likeness"


def case_result(
    store: Store, run: Run, case: str, suite: str = "", *, arm: str = "", found_by: str = "", near: Collection[str] = ()
) -> Result:
    """An open case as the named arm answered it, else as every one did."""
    given = {
        name: one
        for name in ([arm] if arm else scores.arms_measured(store, run.id))
        for one in scores.results(store, run.id, name, suite)
        if one.case_id == case
    }
    facts: list[Fact] = [
        {"arm": name, "verdict": verdict_of(one), "answer_cut_off": one.finish_reason == scores.CUT_OFF or None,
         "answer_tokens": one.completion_tokens, "answer_seconds": one.latency_ms / 1000,
         "step": scores.step_of(store, run.id, name, suite)}
        for name, one in given.items()
    ]  # fmt: skip
    of = {"run": run.id, "case": case, "block": next(iter(given.values())).block, "found_by": found_by, "near": [*near]}
    return Result(tuple(facts), of, texts=(texts_of(cases_of(store, run.id, suite).get(case), given),))


# Which values are taken for which: by an arm in its answers, or by the reader of written rows


Counts = Counter[tuple[str, str, str]]
"""(key, the right value, the one that was given) → how often."""
_NO_LABEL = "no label"


class ConfusionQuery(Query):
    """Which labels a model, or the reader of rows, takes for which; which checks fail."""

    kind: Literal["confusion"] = "confusion"
    about: Literal["labels", "reader"] = "labels"
    run: RunName = ""
    arm: AnyArm = ""
    block: AnyBlock = ""


class _Trust(BaseModel):
    labels: dict[str, float] = {}


class _Read(BaseModel):
    """What the reader read, as the result of `generate` keeps it."""

    reader: _Trust = _Trust()
    """Label → share of the user's examples that it reads right."""
    read: dict[str, dict[str, dict[str, int]]] = {}
    """Label → as drawn → as read → how often."""


def confusion(query: ConfusionQuery, context: Context) -> Result:
    """What was mixed up, and which checks failed. Raises NotFound where nothing was measured, or no row was written."""
    if query.about == "reader":
        return _of_reader(query, context)
    run, block = scores.evaluated_run(context, query.run, arm=query.arm), query.block or PRIMARY_BLOCK
    asked = asked_of(context.store, run, query.arm, block)
    labels = labels_in([asked.cases[one.case_id] for one in asked.given if one.case_id in asked.cases])
    seen = Counts(
        (key, value, given_in(one.output, key) or _NO_LABEL)
        for one in asked.given
        for key, value in wanted_of(asked.cases.get(one.case_id))
        if value in labels.get(key, ())
    )
    failed = [one for one in asked.given if one.passed is False]
    of = {
        "run": run.id, "arm": asked.arm, "block": block, "step": scores.step_of(context.store, run.id, asked.arm),
        "answers": len(asked.given), "failed": len(failed), **_json(asked.given),
    }  # fmt: skip
    checks = Counter(kind for one in failed for kind in {a.type for a in one.assertions if not a.passed} or {"error"})
    by_check = tuple({"failed_check": kind, "answers": n} for kind, n in checks.most_common())
    open_ones = {one.case_id for one in asked.given} - asked.hidden
    texts = [
        {"case": one.case_id, "key": key, "wanted": value, "given": given}
        for one in asked.given if one.case_id in open_ones
        for key, value in wanted_of(asked.cases.get(one.case_id)) if value in labels.get(key, ())
        if (given := given_in(one.output, key)) and given not in labels[key]
    ]  # fmt: skip
    return Result((*_mixed_up(seen, labels), *by_check), of, texts=tuple(texts))


def _json(given: Collection[EvalResult]) -> Fact:
    """How many answers are no JSON, where a check wants some."""
    if not any(a.type == "is-json" for one in given for a in one.assertions):
        return {}
    return {"answers_that_are_no_json": sum(isinstance(json_of(one.output), Exception) for one in given)}


def _mixed_up(seen: Counts, labels: Mapping[str, Collection[str]]) -> Iterator[Fact]:
    """How often each label was right, then what was taken for what, the commonest first.

    A value that is no label is text of an answer: it is counted, and not told.
    """
    asked, right = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    wrong = Counts()
    for (key, value, given), n in seen.items():
        asked[key, value] += n
        right[key, value] += n if value == given else 0
        wrong[key, value, given if given in labels[key] else _NO_LABEL] += n if value != given else 0
    for (key, value), n in asked.items():
        yield {"key": key, "label": value, "asked": n, "right": right[key, value], "wrong": n - right[key, value]}
    for (key, value, given), n in wrong.most_common():
        if n:
            yield {"key": key, "label": value, "taken_for": given, "times": n}


def _of_reader(query: ConfusionQuery, context: Context) -> Result:
    run = context.run(query.run, with_stage="generate")
    written = [step for step in context.store.steps(run.id, status=DONE) if step.stage == "generate"]
    if not written:
        raise NotFound(f"{run.id} has no written rows, so nothing was read back.")
    try:
        record = _Read.model_validate(dict(written[-1].report))
    except ValidationError:  # of another version
        raise NotFound(f"generate ({cite(written[-1])}) kept no record of what its reader read.") from None
    seen = Counts({
        (name, drawn, read): n
        for name, by in record.read.items() for drawn, of in by.items() for read, n in of.items()
    })  # fmt: skip
    labels = {name: {*by, *(read for of in by.values() for read in of)} for name, by in record.read.items()}
    trust = [{"label": name, "read_right_of_your_examples_share": share}
             for name, share in record.reader.labels.items()]  # fmt: skip
    of = {"run": run.id, "step": written[-1].id, "labels_asked": len(record.read), "read": seen.total()}
    return Result((*_mixed_up(seen, labels), *trust), of)
