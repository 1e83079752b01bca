"""generate: make candidate rows for a behaviour with a served model.

What each row is about is drawn from the behaviour's spec before it is written, and its answer is composed of that, so
it is right by construction; the writer only finds words, and a second reading must find in them what was drawn.
Near misses and ordinary prompts are answered by the base as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import estimate, lacks_memory, room
from tunesmith.tools.core.local_paths import BUNDLED_BEHAVIOUR, local_path
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Inputs, Plan, Result, Stage, expected, pinned
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.augmentation import FORMED_SHARE
from tunesmith.tools.data.behaviour import load_behaviour, load_rehearsal, pins_of, untested
from tunesmith.tools.data.held_out import rows_beside
from tunesmith.tools.data.lists import LINES, labels_lead, reads_values
from tunesmith.tools.data.reading import reads_whole
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.models.measuring import beside_base, measured_base
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS, serving_peaks
from tunesmith.tools.serving.budget import (
    USUAL_SHARE_OF_MAX_TOKENS,
    asking_seconds,
    bases_served,
    need_vllm,
    served_name_of,
    serving_cards,
    serving_memory,
    split_steps,
)
from tunesmith.tools.serving.context_settings import ContextSettings, context_settings_of

# These are counts of rows that the bundled models wrote; what a run's own steps took corrects the price.
_TOKENS_AROUND = 20
"""Of a message that is written whole: its share of the values, and its readings."""
_USUAL_TOKENS = 40
"""That a row takes to write and to read back, where no behaviour is known."""
_ROUNDS = 1.15
"""Some rows are written and read again."""
_ANSWERS_A_ROW = 3
"""Of one that a model answers, the best of so many is taken: two where these agree, else four."""
_REQUESTS_A_NEAR_MISS, _TOKENS_A_NEAR_MISS = 3.2, 25
"""Edits and their readings, for each that is taken."""
_SPARE, _SPARE_OF_WRITTEN, _SPARE_OF_COMPOSED = 1.4, 1.2, 1.05
"""Rows that are written for each that is wanted: of messages, so that the reader's surest can be kept; of those whose
answer is written, too; of messages that code puts together."""
_PROMPT_TOKENS = 130
"""Of what a writer or reader is asked, those that no other prompt begins with."""


class GenerateRequest(PlacedRequest):
    """How many rows to make, and who writes them."""

    GONE: ClassVar = {"preview": (False,)}

    behaviour: Annotated[str, local_path(BUNDLED_BEHAVIOUR)] = Field(
        default=BUNDLED_BEHAVIOUR,
        min_length=1,
        description=f"'{BUNDLED_BEHAVIOUR}', a behaviour.yaml, or the folder that holds one.",
    )
    # As the full pace has it (pipeline/behaviour_plan.py), whose plan keeps to two hours.
    rows: int = Field(default=600, ge=0, le=100_000)
    """Rows of the behaviour, to be trained on; 0: the run's own stay, and only the ordinary ones beside them are
    made."""
    held_out: int = Field(default=0, ge=0, le=5_000)
    """Test cases that critique will take out of the rows: so many more are made."""
    # One for seven or eight rows, and three ordinary prompts for ten: without them the form spreads.
    near_miss_rows: int = Field(default=80, ge=0, le=10_000)
    """Messages that look alike, answered by the base as ever."""
    # three for ten rows, as said of the near misses
    rehearsal_rows: int = Field(default=180, ge=0, le=10_000)
    """Ordinary prompts answered by the base, so that nothing is forgotten."""
    ordinary_tokens: int = Field(default=96, ge=8, le=1024)
    """Tokens of an ordinary answer, at most: a sentence should end in them and another begin."""
    writer: Literal["base", "teacher"] = "base"
    """Which model of the run writes the texts."""
    # Messages have to differ, and still say what was drawn; lists, which may say anything of a kind, have 0.9.
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Of the writer; rehearsal is always greedy."""
    tries: int = Field(default=2, ge=1, le=10)
    """Attempts at a text before critique gets it as it is."""
    # a shell allows 1,024 files
    concurrency: int = Field(default=64, ge=1, le=1024)
    """Requests in flight at once."""
    # 17: any does; a fixed one draws the same rows again.
    seed: int = 17
    """Of the draw of attributes and of which ordinary prompts are taken."""


class GenerateResult(Result):
    """The candidate rows; critique decides which are kept."""

    artifact: str
    path: str
    rows: int
    near_miss_rows: int
    rehearsal_rows: int
    agreed: int
    """Rows whose message says what was drawn, by code and by the second reading."""
    first_try: int
    """Of those, at the first attempt."""
    reader: dict[str, Any] = Field(default_factory=dict)
    """What the reader could tell of the user's own examples: what it could not tell it was not asked."""
    read: dict[str, dict[str, dict[str, int]]] = Field(default_factory=dict)
    """Attribute → as drawn → as read → how often: where reading and drawing part."""
    unverified: tuple[str, ...] = ()
    """What was drawn and could not be read back of a message: no test case is made of rows that rest on it."""
    requests: int
    generated_tokens: int
    tokens_per_second: float


_ALWAYS_NOTE = (
    "the behaviour applies to every message, and {} ordinary answers beside it teach the opposite; leave them out with "
    "near_miss_rows=0 rehearsal_rows=0"
)
_FEWER_NOTE = (
    "these {} rows take the place of the {} asked for before and are not added to them; rows={} writes as many as both"
)
_THINKS_NOTE = (
    "this base always thinks before it answers, and a writer is asked for single words and half-written texts, which "
    "its thoughts spoil; let another model write (writer=teacher)"
)


@dataclass(frozen=True, slots=True)
class GenerateContext:
    """What is read of a behaviour before its rows are priced."""

    name: str
    pins: Mapping[str, str]
    """What was read, by its sha256."""
    rehearsal: int
    """Prompts that there are for rehearsal."""
    tokens: int
    """That a row takes to write and to read back, of those that are generated."""
    way: tuple[str, ...]
    """How rows come about, in words."""
    always: bool = False
    """Whether the behaviour applies to every message."""
    spare: float = 1.0
    """Rows that are written for each that is wanted."""
    requests: float = 2.0
    """For a row that is written: to write it, and to read it."""
    near_misses: int = 0
    """Those that the behaviour's file has: they need no writing."""


def spare_of(spec: Spec) -> float:
    """How many rows are written for each that is wanted."""
    form = form_of(spec)
    if form.of_records:
        return _SPARE_OF_COMPOSED
    return _SPARE if form.composed else _SPARE_OF_WRITTEN


def rows_wanted(request: GenerateRequest) -> int:
    """Rows of the behaviour that are to be good: those to be trained on, and what test cases take with them."""
    return request.rows + rows_beside(request.held_out) if request.rows else 0


def rows_written(request: GenerateRequest, spare: float) -> int:
    """Rows of the behaviour that are written."""
    return math.ceil(rows_wanted(request) * spare)


def near_misses_wanted(request: GenerateRequest) -> int:
    """Near misses to be made; half as many as there are test cases become cases too."""
    return request.near_miss_rows + request.held_out // 2 if request.near_miss_rows else 0


def usual_context(facts: Facts) -> GenerateContext:
    """A behaviour of short answers, with as many rehearsal prompts as are asked for."""
    return GenerateContext(
        "a behaviour", {"rehearsal prompts": ""}, GenerateRequest().rehearsal_rows, _USUAL_TOKENS, ()
    )


def inspect_inputs(request: GenerateRequest, inputs: Inputs) -> GenerateContext:
    """Read the behaviour's spec and count its rehearsal prompts, so that a broken one is refused before the start."""
    spec = load_behaviour(request.behaviour)
    rehearsal = load_rehearsal(request.behaviour)
    if not request.rows + request.near_miss_rows + request.rehearsal_rows:
        raise BadInput("rows=0 leaves nothing to make; ask for rows of some kind")
    if request.rows and spec.situations:
        raise BadInput(
            f"behaviour {request.behaviour} is of an earlier version: its {len(spec.situations)} situations began the "
            "messages, and none is written so any more; take `situations` and `writing` out of its file, and messages "
            "are written whole, or bring rows (`tunesmith teach FILE --rows MINE`)"
        )
    if request.rehearsal_rows and not rehearsal:
        raise BadInput(f"behaviour {request.behaviour} has no rehearsal.txt; write one, or set rehearsal_rows=0")
    way, (requests, tokens) = _way(spec), _cost(spec)
    return GenerateContext(
        spec.name, pins_of(spec, rehearsal), len(rehearsal), tokens, way, spec.every_message, spare_of(spec), requests,
        len(untested(spec, request.behaviour).near_misses),
    )  # fmt: skip


def _cost(spec: Spec) -> tuple[float, int]:
    """Requests for a row that is written, and the tokens that are generated for it."""
    longest, labels = max(len(example.prompt) for example in spec.examples), sum(label.shown for label in spec.labels)
    written = 2.0 if not labels_lead(spec) else 1 / LINES
    whole = reads_whole(spec) or (labels_lead(spec) and reads_values(spec))
    # some four characters a token, and a word with its end for each label
    requests, tokens = written + labels + whole, _TOKENS_AROUND + longest // 4 + 2 * labels
    if not form_of(spec).composed:
        return requests + _ANSWERS_A_ROW, tokens + _ANSWERS_A_ROW * spec.max_tokens // 2
    return requests, tokens + (spec.max_tokens // 2 if whole else 0)


def expected_artifact(request: GenerateRequest, artifacts: Mapping[str, Artifact]) -> Artifact:
    """As many rows as are asked for."""
    ordinary, before = near_misses_wanted(request) + request.rehearsal_rows, artifacts.get("rows")
    if before is not None and not rows_wanted(request):
        return expected("rows", **{**before.meta, "rows": ordinary + before.count("rows")})
    rows = rows_written(request, _SPARE) + ordinary
    return expected("rows", rows=rows, asked=request.rows, ordinary=ordinary, behaviour=request.behaviour)


def _way(spec: Spec) -> tuple[str, ...]:
    """How rows come about, in words; what stands in place of {writer} is the model's name."""
    names = ", ".join(a.name for a in spec.attributes) or "nothing"
    drawn = f"draw what each row is about ({names}) from the behaviour's spec (sha256 {spec.sha256[:12]})"
    form = form_of(spec)
    composed = f"{{writer}} answers each message, held to {len(spec.rules)} rules"
    composed += "; a second time where answers are values: only what both agree on may become a test case"
    if form.composed:
        composed = f"code composes each answer ({form}) from what was drawn"
    one = "messages in lists of one meaning" if labels_lead(spec) else "each message"
    if labels_lead(spec) and reads_values(spec):
        one += " (each for a note where it cannot read their values out of your examples, which takes longer)"
    return drawn, f"{{writer}} writes {one}, then reads each back without knowing what was drawn", composed


def plan(request: GenerateRequest, facts: Facts, context: GenerateContext) -> Plan:
    """Price the tokens that the writer and, for ordinary answers, the base will produce."""
    base = facts.need("base", "base")
    teacher = facts.need("teacher", "base --role teacher") if request.writer == "teacher" else None
    measured = measured_base(facts)
    writer, settings = teacher or measured, context_settings_of(facts.artifacts)
    need_vllm(facts)
    rows = rows_written(request, context.spare)
    ordinary = near_misses_wanted(request) + min(request.rehearsal_rows, context.rehearsal)
    cards = serving_cards(facts, measured, settings.context_tokens)
    if teacher:  # who writes first, on as many cards as the base that answers after it
        cards = max(cards, serving_cards(replace(facts, artifacts={}), teacher))
    price = estimate(
        "generate", facts, seconds=_seconds(request, facts, context, teacher, measured, rows=rows, ordinary=ordinary),
        rates=facts.serving_rates, like="", **_peaks(facts, teacher, measured, settings, cards), cards=cards,
        # a row's line, about a KB with what was drawn for it, stands in several files
        disk_bytes=4096 * (rows + ordinary),
    )  # fmt: skip
    lacks, beside = lacks_memory(price, facts.machine), measured if teacher else None
    fitting = bases_served(facts, beside, context_tokens=settings.context_tokens) if lacks else ()
    name = f"the {request.writer} ({writer.meta['name']})"
    before = facts.artifacts.get("rows")
    had = before.count("asked", 0) if before else 0
    return Plan(
        stage="generate",
        run=facts.run,
        summary=_summary(request, context, rows, ordinary),
        steps=(
            *settings.steps,
            *split_steps(cards),
            *(_written_steps(request, context, name, rows) if rows else ()),
            f"the base answers {ordinary} near misses and ordinary prompts "
            f"(sha256 {context.pins['rehearsal prompts'][:12]}), greedy",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, teacher=teacher, **beside_base(base, measured), rows=None if request.rows else before),
        pins={**context.pins, **settings.pins},
        estimate=price,
        writes=(f"{rows + ordinary} candidate rows",),
        replaces=_replaced(request, before) if before else (),
        refusals=room(price, facts, remedy="a smaller base", fitting=fitting),
        fitting=fitting,
        notes=(
            *((_ALWAYS_NOTE.format(ordinary),) if context.always and ordinary else ()),
            *((_FEWER_NOTE.format(request.rows, had, request.rows + had),) if 0 < request.rows < had else ()),
            *((_THINKS_NOTE,) if settings.thinking == "on" and not teacher else ()),
        ),
    )


def _summary(request: GenerateRequest, context: GenerateContext, rows: int, ordinary: int) -> str:
    if not rows:
        return f"have the base answer {ordinary} ordinary messages, so that nothing is forgotten; no row is written"
    wanted = rows_wanted(request)
    cases = f" ({request.rows} to train on, {wanted - request.rows} for test cases)" if wanted > request.rows else ""
    return f"write {wanted} rows of {context.name}{cases}, {ordinary} ordinary ones beside them"


def _written_steps(request: GenerateRequest, context: GenerateContext, writer: str, rows: int) -> tuple[str, ...]:
    return (
        *(step.replace("{writer}", writer) for step in context.way),
        f"{rows} messages for {rows_wanted(request)} rows, and more for what is lacking; rows are kept by how sure "
        "their reading is, under what they say where that is not what was drawn",
    )


def _replaced(request: GenerateRequest, before: Artifact) -> tuple[str, ...]:
    if request.rows:
        return ("the candidate rows of this run",)
    return ("the ordinary rows of this run",) if before.meta.get("ordinary") else ()


def _seconds(
    request: GenerateRequest,
    facts: Facts,
    context: GenerateContext,
    teacher: Artifact | None,
    measured: Artifact,
    *,
    rows: int,
    ordinary: int,
) -> Seconds:
    """To have so many rows written and read back, and so many ordinary answers given by the base."""
    near = near_misses_wanted(request)
    edited = max(0.0, (1 - FORMED_SHARE) * near - context.near_misses)
    # At least one: the tokens below are divided by it.
    requests = rows * context.requests * _ROUNDS + edited * _REQUESTS_A_NEAR_MISS + max(1, ordinary - near)
    written = asking_seconds(
        facts,
        teacher or measured,
        answers=requests,
        answer_tokens=(rows * context.tokens * _ROUNDS + edited * _TOKENS_A_NEAR_MISS) / requests,
        prompt_tokens=_PROMPT_TOKENS,
        at_once=request.concurrency,
    )
    thought = context_settings_of(facts.artifacts).thinking_tokens
    return written + asking_seconds(
        facts if teacher else replace(facts, served=facts.served | {served_name_of(measured)}),
        measured,
        answers=ordinary,
        answer_tokens=(request.ordinary_tokens + thought) * USUAL_SHARE_OF_MAX_TOKENS,
        at_once=request.concurrency,
    )


def _peaks(
    facts: Facts, teacher: Artifact | None, measured: Artifact, settings: ContextSettings, cards: int
) -> dict[str, int]:
    """Of the writer's server; the base, which answers after a teacher, takes more where its context is longer."""
    served = [serving_memory(teacher, cards=cards)] if teacher else []
    if not teacher or settings.context_tokens > CONTEXT_TOKENS:
        served.append(serving_memory(measured, settings.context_tokens, cards=cards))
    peaks = [serving_peaks(server, on_gpu=facts.serves_on_gpu) for server in served]
    return {kind: max(peak[kind] for peak in peaks) for kind in peaks[0]}


STAGE = Stage(
    "generate", GenerateRequest, GenerateResult, plan, inspect_inputs, expected_artifact,
    usual_context=usual_context,
    settable=("rows", "writer"),
    meant_by=("rows", "temperature"),
    spends=True,
    lasting=("behaviour", "writer", "held_out", "rehearsal_rows", "temperature"),
    headline=("rows", "rehearsal_rows", "first_try", "tokens_per_second"),
)  # fmt: skip
