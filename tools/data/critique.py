"""critique: judge every candidate row, keep or drop it with a reason, hold some out as cases, split what is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.marks import Mark, marks_of
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Inputs, Plan, PlanQuestion, Result, Stage, expected, pinned
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answers import Judged
from tunesmith.tools.data.behaviour import IMPORTED, load_behaviour, own_suites
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.undecided import (
    ALL_CHECKED,
    ALL_DECIDED,
    Undecided,
    Unverified,
    UnverifiedRows,
    undecided_in,
    unverified_of,
)
from tunesmith.tools.models.measuring import measured_base
from tunesmith.tools.models.memory_math import serving_peaks
from tunesmith.tools.serving.budget import asking_seconds, need_vllm, server_of
from tunesmith.tools.serving.context_settings import USUAL, context_settings_of
from tunesmith.tools.suites.case import Suite
from tunesmith.tools.suites.grading.embedding import EMBEDDER_PIN, embedder_sha256
from tunesmith.tools.suites.leakage import LEAK
from tunesmith.tools.suites.loading import SuiteName, load_named_suites

_ACCEPTED_SHARE = 0.92
"""Of the candidate rows so many are usually kept, each of about so many tokens; before there are any to count."""
_TOKENS_PER_ROW = 95
_TOKENS_JUDGED = 24
"""Of an answer that would take as long to write as a row takes to be judged: what is read costs, not what is said."""
_START_S = 3.0
"""Of a worker that loads a tokenizer to hold rows against each other, and of what it writes."""
_NOT_JUDGED = "no judge is asked: code composed each answer of what the reader found in the message"
_MAKERS = {"base": "base", "teacher": "base --role teacher"}


class CritiqueRequest(PlacedRequest):
    """How strict to be."""

    suites: tuple[SuiteName, ...] = ()
    """Suites, beside the run's own, that no row may leak into and whose form answers must pass; none: those of the
    behaviour that the rows are of."""
    # Of the usual 20 words 90 leave two others: what differs less teaches nothing more.
    near_duplicate: float = Field(default=90.0, gt=0, le=100)
    """Similarity of two texts, of 100, from which the later one is dropped."""
    leak: float = Field(default=LEAK, gt=0, le=100)
    """Similarity to a case's text, of 100, from which a row is dropped."""
    on_leak: Literal["refuse", "drop"] = "refuse"
    """What becomes of the step where a row gives a case away: it ends, or drops the row."""
    contradictory: Literal["refuse", "drop", "keep"] = "refuse"
    """What becomes of the step where a person's rows answer one message in several ways: it ends, drops all of them, or
    keeps all."""
    embeddings: bool = True
    """Look for paraphrased cases too, where the embedding model is installed."""
    # So many cases tell a rate to a point and a half; each more costs a row and answers, and tells hardly more.
    held_out: int = Field(default=0, ge=0, le=5_000)
    """Kept rows that become test cases instead of training rows, what a person marked first."""
    rubrics: bool = False
    """Have a judge read the rows that become test cases, by the behaviour's criteria, where code cannot tell what is
    right; else those wait for people."""
    judge: Literal["none", "base", "teacher"] = "none"
    """Which model of the run judges rows by the behaviour's criteria, as far as it can be trusted."""
    # A tenth of some hundred rows shows when the loss rises; each row more is one less to learn from.
    valid_share: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of the kept rows for the validation loss."""
    unverified_rows: UnverifiedRows = False


class CritiqueResult(Result):
    """The dataset, and what became of every candidate."""

    artifact: str
    path: str
    candidates: int
    kept: int
    dropped: int
    reasons: dict[str, int]
    """Kind of reason → rows dropped for it."""
    train_rows: int
    valid_rows: int
    rehearsal_share: float
    """Of the training rows."""
    balance: dict[str, dict[str, int]]
    """Field of the answer, or what was drawn → its value → kept rows."""
    alarms: tuple[str, ...] = ()
    """Where the kept rows are not what was drawn."""
    notes: tuple[str, ...] = ()
    """What is odd about a person's rows that are trained on all the same."""
    leaks: int = 0
    """Rows that gave a case of a suite away."""
    cases: int = 0
    """Rows that became cases of the run: a baseline with held_out asks them."""
    variants: int = 0
    """Other forms of the training rows, with other drawn values, to be seen in turn where there are several epochs."""
    marks: int = 0
    """What a person said of the behaviour's rows, now and before."""
    judge: Judged | None = None
    """What a model said of the rows, and what its word is worth."""


@dataclass(frozen=True, slots=True)
class CritiqueContext:
    """What rows are held against."""

    cases: int = 0
    """Of the suites that the request names."""
    marks: int = 0
    undecided: Undecided = ALL_DECIDED
    """Of rows whose fate nobody has settled yet."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """What decides about rows beside the artifacts, each by its sha256."""
    judged: bool = True
    """Whether there are rows for a judge, where one is named."""
    unverified: Unverified = ALL_CHECKED
    """What is known of rows that no reader could check."""


def inspect_inputs(request: CritiqueRequest, inputs: Inputs) -> CritiqueContext:
    """Parse the suites, so that a broken one is refused before anything is judged, and read what a person marked."""
    expected_rows, rows = inputs.artifacts.get("rows"), inputs.existing("rows")
    suite = suite_of(request, str(expected_rows.meta.get("behaviour") or "") if expected_rows else "")
    named = str(rows.meta["behaviour"]) if rows else ""
    spec = load_behaviour(named) if named else None
    if rows and spec and spec.sha256 != rows.meta.get("behaviour_sha256"):
        raise BadInput(f"critique: {named} changed since its rows were made; generate or import them again")
    marks = marks_of(inputs.store, spec.name if spec else IMPORTED) if rows else []
    undecided = ALL_DECIDED
    if "refuse" in (request.on_leak, request.contradictory):
        undecided = undecided_in(inputs, suite.cases, request.leak)
    judged = is_judged(request, spec, rows) if rows else True
    pins = critique_pins(request, suite, marks, spec)
    return CritiqueContext(len(suite.cases), len(marks), undecided, pins, judged, unverified_of(inputs.store, rows))


def is_judged(request: CritiqueRequest, spec: Spec | None, rows: Artifact) -> bool:
    """Whether a judge is asked: not of answers that code composed of what a reader read, to read them once more."""
    verified = spec is not None and form_of(spec).composed and "asked" in rows.meta and not rows.meta.get("unverified")
    return request.judge != "none" and not verified


def suite_of(request: CritiqueRequest, behaviour: str) -> Suite:
    """The cases of the suites that a request names, else of the behaviour at hand; of rows without one, none."""
    named = request.suites or own_suites(behaviour)
    return load_named_suites(named) if named else Suite(cases=())


def critique_pins(request: CritiqueRequest, suite: Suite, marks: Sequence[Mark], spec: Spec | None) -> dict[str, str]:
    """What a plan is bound to, so that nothing else decides about rows than what was shown.

    No suite and no mark have a digest too: the first mark after the yes makes another plan. `spec` is the behaviour
    that was read from a file; rows without one are pinned themselves.
    """
    marked = [(mark.message, mark.decision, mark.answer, mark.was) for mark in marks]
    pins = {"suite": suite.sha256, "marks": hashlib.sha256(json.dumps(marked).encode()).hexdigest()}
    pins |= {"behaviour": spec.sha256} if spec else {}
    return pins | ({EMBEDDER_PIN: embedder_sha256()} if request.embeddings else {})


def expected_artifact(request: CritiqueRequest, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """A dataset of the rows that are usually kept, of the usual length."""
    rows = artifacts.get("rows")
    if rows is None:
        return None
    asked = rows.count("asked", 0)  # cases come beside these
    candidates = rows.count("ordinary" if asked else "rows")
    count = int(candidates * _ACCEPTED_SHARE) + (asked or -request.held_out)
    tokens = rows.count("tokens_per_row", _TOKENS_PER_ROW)
    return expected("dataset", train_rows=int(count * (1 - request.valid_share)), tokens_per_row=tokens)


def plan(request: CritiqueRequest, facts: Facts, context: CritiqueContext) -> Plan:
    """Judging costs milliseconds a row."""
    rows, base = facts.need("rows", "generate"), facts.need("base", "base")
    suite = facts.artifacts.get("suite")
    count, cases = rows.count("rows"), context.cases + (suite.count("cases") if suite else 0)
    judge, open_ = _judging(request, facts) if context.judged else None, _open(request, context.undecided)
    settings = context_settings_of(facts.artifacts) if judge and request.judge == "base" else USUAL
    compute = count / 500 + count * cases / 1e6  # rows checked, and texts compared, in a second: counted on two cores
    cards, seconds, peaks = 1, Seconds(_START_S, compute=compute), {"ram_bytes": 1 << 29}
    if judge:
        need_vllm(facts)
        seconds += asking_seconds(facts, judge, answers=count, answer_tokens=_TOKENS_JUDGED)
        server = server_of(facts, judge, settings.context_tokens)
        cards, peaks = server.cards, serving_peaks(server, on_gpu=facts.serves_on_gpu)
    kind = "judged" if judge else ""
    unchecked, doubts = context.unverified.stop(accepted=request.unverified_rows)
    # 4096: a row's line, about a KB with what was drawn for it, stands in several files.
    price = estimate(
        "critique", facts, seconds=seconds, rates=None, like=kind, disk_bytes=4096 * count, cards=cards, **peaks
    )
    return Plan(
        stage="critique",
        run=facts.run,
        summary=f"judge {count} candidate rows against {cases} cases",
        steps=(
            "roles, leftovers, keys, language, loops; the answer's form; message and answer agree",
            f"the leakage gate over {cases} cases: same text, same words, eight words in a row, same sense",
            "near-duplicates of other rows",
            *(_about_the_judge(rows, judge) if context.judged else [_NOT_JUDGED] if request.judge != "none" else []),
            *_about_cases(request, context),
            f"split {1 - request.valid_share:.0%} train, {request.valid_share:.0%} validation, by hash",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(rows=rows, base=base, suite=suite, judge=judge),
        pins={**settings.pins, **context.pins},
        estimate=price,
        writes=("train.jsonl, valid.jsonl", "a verdict with its reason for every row"),
        notes=(
            *context.unverified.notes(accepted=request.unverified_rows),
            *(f"{what}, so that the step will end there; {field}=drop drops them" for what, field in open_),
        ),
        questions=(
            *(PlanQuestion(text=f"{what}: drop them?", yes={field: "drop"}, cautious=True) for what, field in open_),
            *doubts,
        ),
        replaces=("the dataset of this run",) if "dataset" in facts.artifacts else (),
        refusals=unchecked + room(price, facts, remedy="fewer rows"),
    )


def _open(request: CritiqueRequest, undecided: Undecided) -> list[tuple[str, str]]:
    """What has to be decided before the step, each with the field that decides it."""
    known = {"on_leak": undecided.leaking, "contradictory": undecided.contradicting}
    return [(what, name) for name, what in known.items() if what and getattr(request, name) == "refuse"]


def _judging(request: CritiqueRequest, facts: Facts) -> Artifact | None:
    """Who judges; a base at the precision that it is measured at."""
    if request.judge == "none":
        return None
    return measured_base(facts) if request.judge == "base" else facts.need(request.judge, _MAKERS[request.judge])


def wrote_them(rows: Artifact, judge: Artifact) -> bool:
    """Whether a model wrote the very rows that it is to judge, at whatever precision."""
    own = str(judge.meta.get("base_sha256") or judge.sha256)
    return str(rows.meta.get("writer_sha256", own)) == own


def _about_the_judge(rows: Artifact, judge: Artifact | None) -> list[str]:
    """What a plan says of who judges, and of how far that word counts."""
    if judge is None:
        return []
    judging = (
        f"{judge.meta['name']} judges each row by the criteria; a row that is not right is repaired once, or dropped"
    )
    own = (
        "it wrote these rows itself, and sees its own faults least"
        if wrote_them(rows, judge)
        else "it did not write them"
    )
    return [
        judging,
        f"{own}; its word counts only where it can tell your marks, or else your examples, from wrong ones",
    ]


def _about_cases(request: CritiqueRequest, context: CritiqueContext) -> list[str]:
    lines = [f"{context.marks} rows as a person marked them: dropped, corrected, or cases"] if context.marks else []
    if request.held_out:
        lines.append(f"{request.held_out} rows, and all that are like them, become test cases instead of training rows")
    return lines


STAGE = Stage(
    "critique", CritiqueRequest, CritiqueResult, plan, inspect_inputs, expected_artifact,
    usually_after=("suite",),
    lasting=("suites", "near_duplicate", "leak", "valid_share"),
    takes_from={"suites": "baseline"},
    headline=("candidates", "kept", "dropped", "train_rows", "valid_rows"),
)  # fmt: skip
