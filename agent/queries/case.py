"""One test case: what the arms answered, what was wanted, and why that was not enough."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field
from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, Context, clip, matching
from tunesmith.agent.queries.arguments import AnyArm, Query, RunName
from tunesmith.agent.queries.described import asked_by, cases_of, wanted_in_words
from tunesmith.memory.arms import ARMS
from tunesmith.memory.records import EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed
from tunesmith.tools.core.similarity import normal
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.suites.case import Case

Cases = Mapping[str, Case]


class CaseQuery(Query):
    """One test case, by its id or by what it asks: what the arms answered, what was wanted, why it fails."""

    kind: Literal["case"] = "case"
    case: Annotated[str, Field(description="Its id, or words of what it asks")]
    run: RunName = ""
    arm: AnyArm = ""
    about: Literal["answers", "wanted"] = "answers"


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
                return case_answer(query, store, run, suite, ids, cases)
    return None


def _by_id(text: str, given: set[str], cases: Cases) -> list[str]:
    return sorted((case for case in given if case.lower() in text.lower()), key=len, reverse=True)


def _by_its_words(text: str, given: set[str], cases: Cases) -> list[str]:
    return [name for name, case in cases.items() if normal(asked_by(case)) == normal(text)]


def _by_content(text: str, given: set[str], cases: Cases) -> list[str]:
    return matching(text, {name: asked_by(case) for name, case in cases.items()})


def case_answer(query: CaseQuery, store: Store, run: Run, suite: str, ids: list[str], cases: Cases) -> Answer:
    name = ids[0]
    near = listed([clip(one, 40) for one in ids[:4]])  # a line of them
    if re.fullmatch(r"[a-z]\S*-\d+", query.case) and query.case not in ids:  # an id, and no case's
        return Answer((f"{run.id} asked no case {query.case}, among {len(cases)}. Near it: {near}.",))
    given = list(_given(query, store, run, suite, name))
    if not given:
        return Answer((f"The {query.arm} arm of {run.id} was not asked {clip(name, 60)}.",))
    # Two or three lines of a terminal for one answer, and one or two where arms are compared.
    length = 330 if len(given) == 1 else 170
    lines = [f"{arm} ({verdict_of(one)}): “{clip(given_by(one), length)}”" for arm, one in given]
    wanted = wanted_in_words(cases.get(name))
    reason = reason_of(given[-1][1]) if not given[-1][1].passed else ""
    why = [line for line in (wanted and f"  wanted: {wanted}", reason and f"  why: {clip(reason, 200)}") if line]
    lines = [*why, *lines] if query.about == "wanted" else [*lines, *why]
    lines += [f"Near it: {listed([clip(one, 40) for one in ids[1:4]])}."] if len(ids) > 1 else []  # a line of them
    verdicts = ", ".join(f"{arm} {verdict_of(one)}" for arm, one in given)
    return Answer(
        (f"{run.id}, case {clip(name, 60)}{quoted(asked_by(cases.get(name)), 220)}", *lines),
        ({"case": name, "run": run.id, "arm": query.arm},),
        page=lambda: page_of([one for _, one in given], cases),
        private=True,
        open_words=f"case {name} of {run.id}: {verdicts}; the texts are on the screen",
    )


def _given(query: CaseQuery, store: Store, run: Run, suite: str, case: str) -> Iterator[tuple[str, EvalResult]]:
    """The answers to a case: of the named arm, else of every one."""
    for arm in [query.arm] if query.arm else scores.arms_measured(store, run.id):
        yield from ((arm, one) for one in scores.results(store, run.id, arm, suite) if one.case_id == case)


# The texts of one answer


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
        # A table that is looked through; the record has the whole.
        [one.case_id, one.block, clip(asked_by(cases.get(one.case_id)), 400), clip(given_by(one), 600),
         wanted_in_words(cases.get(one.case_id)),
         verdict_of(one) + (f": {clip(reason_of(one), 160)}" if one.passed is False else "")]
        for one in chosen
    ]  # fmt: skip
    return render.rows_table(["case", "block", "asked", "answered", "wanted", "verdict"], rows, exact=True)
