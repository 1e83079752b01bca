"""Which values are taken for which: by an arm in its answers to the target cases, or by the reader of written rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ValidationError
from rich.console import RenderableType

from tunesmith.agent.commands import render
from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Answer, Context, cite, clip
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Query, RunName
from tunesmith.agent.queries.described import cases_of, come_again, given_in, is_json, wanted_of
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE

_LONGEST_VALUE = 40
"""Characters: a longer value is a text and no label, of which none is taken for another."""
Counts = Counter[tuple[str, str, str]]
"""(key, the right value, the one that was given) → how often."""


class ConfusionQuery(Query):
    """Which labels are taken for which, in a model's answers or by the reader of written rows; or by which checks its
    answers fail (no JSON, wrong form)."""

    kind: Literal["confusion"] = "confusion"
    about: Literal["labels", "checks", "reader"] = "labels"
    run: RunName = ""
    arm: AnyArm = ""
    block: AnyBlock = ""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """How many values were right, and how many wrong."""

    run: str
    arm: str
    values: int
    wrong: int


class _Trust(BaseModel):
    labels: dict[str, float] = {}


class _Read(BaseModel):
    """What the reader read, as the result of `generate` keeps it."""

    reader: _Trust = _Trust()
    """Label → share of the user's examples that it reads right."""
    read: dict[str, dict[str, dict[str, int]]] = {}
    """Label → as drawn → as read → how often."""


def answer(query: ConfusionQuery, context: Context) -> Answer:
    """What was mixed up. Raises NotFound where nothing was measured, or no row was written."""
    if query.about == "reader":
        return _of_reader(query, context)
    store, run = context.store, scores.evaluated_run(context, query.run, arm=query.arm)
    arm = query.arm or scores.last_arm(store, run.id)
    step = scores.step_of(store, run.id, arm)
    if not step:
        raise scores.unmeasured(store, run, arm)
    if query.about == "checks":
        return _of_checks(context, run.id, arm, step, query.block or "target")
    cases, seen = cases_of(store, run.id, scores.suite_of(store, step)), Counts()
    for one in scores.results(store, run.id, arm):
        for key, value in wanted_of(cases.get(one.case_id)) if one.block == "target" else ():
            seen[key, value, given_in(one.output, key) or "no answer of this form"] += 1
    short = {key for key, right, given in seen if max(len(right), len(given)) <= _LONGEST_VALUE}
    labels = {key for key in short if come_again([right for name, right, _ in seen.elements() if name == key])}
    seen = Counts({cell: n for cell, n in seen.items() if cell[0] in labels})
    if not seen:  # no label tells one case from another, a check does
        checks = _of_checks(context, run.id, arm, step, query.block or "target")
        return replace(checks, lines=(f"The cases of {run.id} have no labels to mix up; by check:", *checks.lines))
    first = f"In {run.id} the {arm} model ({step})"
    wrong = sum(n for (_, right, given), n in seen.items() if right != given)
    facts = Mistakes(run.id, arm, seen.total(), wrong)
    words = f"{first} has {wrong} of {seen.total()} values wrong; which, is on the screen"
    return Answer(tuple(_lines(first, seen)), (facts,), lambda: _table(seen), private=True, open_words=words)


def _of_checks(context: Context, run: str, arm: str, step: str, block: str) -> Answer:
    """By which checks the cases of an arm fail, the commonest first."""
    given = [one for one in scores.results(context.store, run, arm) if one.block == block]
    failed = [one for one in given if one.passed is False]
    by: Counter[str] = Counter(
        kind for one in failed for kind in {a.type for a in one.assertions if not a.passed} or {"error"}
    )
    each = ", ".join(f"{n} by {kind}" for kind, n in by.most_common(6))  # a line of them
    whose = f"of the {arm} model"
    lines = [f"In {run} {len(failed)} of {len(given)} {block} cases {whose} ({step}) fail{f': {each}' if by else ''}."]
    if any(a.type == "is-json" for one in given for a in one.assertions):
        no_json = sum(not is_json(one.output) for one in given)
        lines.insert(0, f"{no_json} of {len(given)} {block} answers {whose} in {run} ({step}) are no JSON.")
    return Answer(tuple(lines), (Mistakes(run, arm, len(given), len(failed)),))


def _lines(first: str, seen: Counts) -> list[str]:
    wrong = Counts({cell: n for cell, n in seen.items() if cell[1] != cell[2]})
    if not wrong:
        return [f"{first} mixes nothing up: all {seen.total()} values are right."]
    (key, right, given), n = wrong.most_common(1)[0]
    of = sum(m for (k, r, _), m in seen.items() if (k, r) == (key, right))
    # Labels are at most that long (`_LONGEST_VALUE`), and a line holds some.
    lines = [f"{first} most often takes {key} {clip(right, 40)} for {clip(given, 40)}: {n} of {of}."]
    for name in dict.fromkeys(key for key, _, _ in seen):
        asked, missed = Counter[str](), Counter[str]()
        for (_, value, other), m in ((cell, m) for cell, m in seen.items() if cell[0] == name):
            asked[value] += m
            missed[value] += m if value != other else 0
        worst = [f"{clip(value, 30)} {m} of {asked[value]}" for value, m in missed.most_common(6) if m]
        lines.append(f"  {name}, wrong by the right value: {'; '.join(worst) or 'none'}.")
    # The commonest tell where it goes wrong; the page has the whole table.
    more = [f"{k} {clip(r, 24)} → {clip(g, 24)} {m}" for (k, r, g), m in wrong.most_common(6)]
    return [*lines[:4], f"  The commonest: {'; '.join(more)}."]


def _table(seen: Counts) -> RenderableType:
    rows = [[key, right, given, str(n)] for (key, right, given), n in sorted(seen.items())]
    return render.rows_table(["part", "right", "given", "how often"], rows, exact=True)


def _of_reader(query: ConfusionQuery, context: Context) -> Answer:
    run = context.run(query.run, with_stage="generate")
    written = [s for s in context.store.steps(run.id, status=DONE) if s.stage == "generate"]
    if not written:
        raise NotFound(f"{run.id} has no written rows, so nothing was read back.")
    step = written[-1]
    try:
        record = _Read.model_validate(dict(step.report))
    except ValidationError:  # of another version
        return Answer((f"generate ({cite(step)}) kept no record of what its reader read.",))
    trusted = ", ".join(f"{name} {share:.0%}" for name, share in record.reader.labels.items())
    examples = [f"Of the labels in your own examples it reads right: {trusted}."] if trusted else []
    seen = Counts({
        (name, drawn, read): n
        for name, by in record.read.items() for drawn, of in by.items() for read, n in of.items()
    })  # fmt: skip
    first = f"The reader of generate ({cite(step)})"
    if not seen:
        return Answer((f"{first} was asked for no label: it tells too few of your examples right.", *examples))
    return Answer((*_lines(first, seen), *examples), page=lambda: _table(seen))
