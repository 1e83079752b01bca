"""Which values are taken for which: by an arm in its answers to the target cases, or by the reader of written rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ValidationError

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context, cite
from tunesmith.agent.queries.arguments import AnyArm, AnyBlock, Query, RunName
from tunesmith.agent.queries.cases import asked_of
from tunesmith.agent.queries.facts import Fact, Result
from tunesmith.agent.queries.texts import given_in, json_of, labels_in, wanted_of
from tunesmith.memory.errors import NotFound
from tunesmith.memory.records import DONE, EvalResult
from tunesmith.tools.suites.case import PRIMARY_BLOCK

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


def answer(query: ConfusionQuery, context: Context) -> Result:
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
    return Result((*_facts(seen, labels), *by_check), of, texts=tuple(texts))


def _json(given: Collection[EvalResult]) -> Fact:
    """How many answers are no JSON, where a check wants some."""
    if not any(a.type == "is-json" for one in given for a in one.assertions):
        return {}
    return {"answers_that_are_no_json": sum(isinstance(json_of(one.output), Exception) for one in given)}


def _facts(seen: Counts, labels: Mapping[str, Collection[str]]) -> Iterator[Fact]:
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
    return Result((*_facts(seen, labels), *trust), of)
