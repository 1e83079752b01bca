"""One test case: what the arms answered, what was wanted, and why that was not enough."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context, clip, matching
from tunesmith.agent.queries.arguments import AnyArm, Query, RunName
from tunesmith.agent.queries.facts import Fact, Result
from tunesmith.agent.queries.texts import Cases, asked_by, cases_of, texts_of, verdict_of
from tunesmith.memory.arms import ARMS
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed
from tunesmith.tools.core.similarity import normal
from tunesmith.tools.evaluation.blind import hidden_cases

_NEAR = 4


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
