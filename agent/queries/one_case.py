"""One test case, by its id or by what it asks: what the arms answered, what was wanted, and why that was not enough."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, AnyArm, Context, Query, RunName, clip, matching
from tunesmith.agent.queries.cases import Cases, given_by, page_of, quoted, reason_of, verdict_of
from tunesmith.agent.queries.described import asked_by, cases_of, wanted_of
from tunesmith.memory.arms import ARMS
from tunesmith.memory.records import EvalResult, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import listed
from tunesmith.tools.data.similarity import normal
from tunesmith.tools.evaluation.blind import hidden_cases


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


def answer(query: CaseQuery, context: Context) -> Answer:
    """The case that is meant: of the run that is named, else of the newest that was asked such a one."""
    run = scores.evaluated_run(context, query.run, arm=query.arm)
    others = [] if query.run else [one for one in context.runs() if one.id != run.id]
    for one in [run, *others]:
        if (found := _found(query, context.store, one)) is not None:
            return found
    return Answer((
        f"Nothing of that was measured: no case of {run.id} speaks of “{clip(query.case, 80)}”; “which cases failed” "
        f"lists what there is.",
    ))  # fmt: skip


def _found(query: CaseQuery, store: Store, run: Run) -> Answer | None:
    """The answer from one run; None where it was asked no such case.

    Looked for in every suite that the run was measured on, the newest first: by its id, by its very words, then by what
    it speaks of. A blind case is not found.
    """
    hidden = hidden_cases(store, run.id)
    arms = [query.arm] if query.arm else ARMS
    asked: list[tuple[str, set[str], Cases]] = []
    for suite in [made.id for made in reversed(store.artifacts(run.id, "suite"))] or [""]:
        given = {one.case_id for arm in arms for one in scores.results(store, run.id, arm, suite)}
        asked.append((suite, given - hidden, cases_of(store, run.id, suite)))
    for matches in (_by_id, _by_its_words, _by_content):
        for suite, given, cases in asked:
            if found := [one for one in matches(query.case, given, cases) if one in given]:
                return _told(query, store, run, suite, found, cases)
    return None


def _by_id(text: str, given: set[str], cases: Cases) -> list[str]:
    return sorted((case for case in given if case.lower() in text.lower()), key=len, reverse=True)


def _by_its_words(text: str, given: set[str], cases: Cases) -> list[str]:
    return [name for name, case in cases.items() if normal(asked_by(case)) == normal(text)]


def _by_content(text: str, given: set[str], cases: Cases) -> list[str]:
    return matching(text, {name: asked_by(case) for name, case in cases.items()})


def _told(query: CaseQuery, store: Store, run: Run, suite: str, found: list[str], cases: Cases) -> Answer:
    name = found[0]
    near = listed([clip(one, 40) for one in found[:4]])
    if re.fullmatch(r"[a-z]\S*-\d+", query.case) and query.case not in found:  # an id, and no case's
        return Answer((f"{run.id} asked no case {query.case}, among {len(cases)}. Near it: {near}.",))
    given = list(_given(query, store, run, suite, name))
    if not given:
        return Answer((f"The {query.arm} arm of {run.id} was not asked {clip(name, 60)}.",))
    most = 330 if len(given) == 1 else 170
    lines = [f"{arm} ({verdict_of(one)}): “{clip(given_by(one), most)}”" for arm, one in given]
    wanted = ", ".join(f"{key} {clip(value, 60)}" for key, value in wanted_of(cases.get(name)))
    reason = reason_of(given[-1][1]) if not given[-1][1].passed else ""
    why = [line for line in (wanted and f"  wanted: {wanted}", reason and f"  why: {clip(reason, 200)}") if line]
    lines = [*why, *lines] if query.about == "wanted" else [*lines, *why]
    lines += [f"Near it: {listed([clip(one, 40) for one in found[1:4]])}."] if len(found) > 1 else []
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
