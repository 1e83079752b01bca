"""generate: make candidate rows for a behaviour with a served model.

What each row is about is drawn from the behaviour's spec before it is written, and its answer is composed of that, so
it is right by construction; the writer only finds words, and a second reading must find in them what was drawn.
Near misses and ordinary prompts are answered by the base as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import estimate, lacks_memory, room
from tunesmith.tools.core.local_paths import local_path
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Inputs, Plan, Request, Result, Stage, expected, pinned
from tunesmith.tools.data.behaviour import load_behaviour, load_rehearsal, pins_of
from tunesmith.tools.data.reader import reads_whole
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.models.measuring import beside_base, measured_base
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS, serving_peaks
from tunesmith.tools.serving.bench import Bench, bench_of
from tunesmith.tools.serving.budget import (
    USUAL_SHARE_OF_MAX_TOKENS,
    asking_seconds,
    bases_served,
    need_vllm,
    served_name_of,
    serving_memory,
)

PREVIEW_ROWS = 5
_TOKENS_PER_FACT = 20
"""Of a message that goes on after a fact."""
_TOKENS_AROUND = 20
"""Of a message that is written whole: its share of the values, and its readings."""
_TRIES_PER_ROW, _REQUESTS_PER_ROW = 1.6, 2
"""A row is written and read, and some are written again."""
_PROMPT_TOKENS = 130
"""Of what a writer or reader is asked, those that no other prompt begins with."""


class GenerateRequest(Request):
    """How many rows to make, and who writes them."""

    behaviour: Annotated[str, local_path("demo")] = Field(
        default="demo", min_length=1, description="'demo', a behaviour.yaml, or the folder that holds one."
    )
    rows: int = Field(default=600, ge=1, le=100_000, description="Rows of the behaviour.")
    near_miss_rows: int = Field(
        default=80, ge=0, le=10_000, description="Messages that look alike, answered by the base as ever."
    )
    rehearsal_rows: int = Field(
        default=180, ge=0, le=10_000, description="Ordinary prompts answered by the base, so that nothing is forgotten."
    )
    ordinary_tokens: int = Field(
        default=96,
        ge=8,
        le=1024,
        description="Tokens of an ordinary answer, at most: a sentence should end in them and another begin.",
    )
    preview: bool = Field(default=False, description="Write five rows to look at, and nothing that is trained on.")
    writer: Literal["base", "teacher"] = Field(default="base", description="Which model of the run writes the texts.")
    temperature: float = Field(default=0.7, ge=0, le=2, description="Of the writer; rehearsal is always greedy.")
    tries: int = Field(default=2, ge=1, le=10, description="Attempts at a text before critique gets it as it is.")
    concurrency: int = Field(default=64, ge=1, le=1024, description="Requests in flight at once.")
    seed: int = Field(default=17, description="Of the draw of attributes and of which ordinary prompts are taken.")


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
    sample: tuple[str, ...] = ()
    """A few rows to look at."""
    requests: int
    generated_tokens: int
    tokens_per_second: float


_ALWAYS_NOTE = (
    "the behaviour applies to every message, and {} ordinary answers beside it teach the opposite; leave them out with "
    "near_miss_rows=0 rehearsal_rows=0"
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
    """That a row takes to write and to read back."""
    way: tuple[str, ...]
    """How rows come about, in words."""
    always: bool = False
    """Whether the behaviour applies to every message."""


def inspect_inputs(request: GenerateRequest, inputs: Inputs) -> GenerateContext:
    """Read the behaviour's spec and count its rehearsal prompts, so that a broken one is refused before the start."""
    spec = load_behaviour(request.behaviour)
    rehearsal = load_rehearsal(request.behaviour)
    if request.rehearsal_rows and not rehearsal:
        raise BadInput(f"behaviour {request.behaviour} has no rehearsal.txt; write one, or set rehearsal_rows=0")
    longest = max(len(example.prompt) for example in spec.examples)
    tokens = _TOKENS_PER_FACT if spec.seeded else _TOKENS_AROUND + longest // 4
    tokens += spec.max_tokens // 2 if spec.answer.form == "written" or reads_whole(spec) else 0
    tokens += spec.max_tokens // 4 if spec.answer.form == "written" else 0  # half of them are solved a second time
    return GenerateContext(spec.name, pins_of(spec, rehearsal), len(rehearsal), tokens, _way(spec), spec.every_message)


def expected_artifact(request: GenerateRequest, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """As many rows as are asked for; a preview leaves none."""
    if request.preview:
        return None
    rows = request.rows + request.near_miss_rows + request.rehearsal_rows
    return expected("rows", rows=rows, behaviour=request.behaviour)


def _way(spec: Spec) -> tuple[str, ...]:
    """How rows come about, in words; what stands in place of {writer} is the model's name."""
    names = ", ".join(a.name for a in spec.attributes) or "nothing"
    drawn = f"draw what each row is about ({names}) from the behaviour's spec (sha256 {spec.sha256[:12]})"
    form = spec.answer.form
    composed = f"{{writer}} answers each message, held to {len(spec.rules)} rules"
    composed += "; a second time where answers are values: only what both agree on may become a test case"
    if form != "written":
        composed = f"code composes each answer ({form}) from what was drawn"
    return drawn, "{writer} writes each message, then reads it back without knowing what was drawn", composed


def plan(request: GenerateRequest, facts: Facts, context: GenerateContext) -> Plan:
    """Price the tokens that the writer and, for ordinary answers, the base will produce."""
    base = facts.need("base", "base")
    teacher = facts.need("teacher", "base --role teacher") if request.writer == "teacher" else None
    measured = measured_base(facts)
    writer, bench = teacher or measured, bench_of(facts.artifacts)
    need_vllm(facts)
    rows = min(PREVIEW_ROWS, request.rows) if request.preview else request.rows
    ordinary = 0 if request.preview else request.near_miss_rows + min(request.rehearsal_rows, context.rehearsal)
    price = estimate(
        "generate",
        facts,
        seconds=_seconds(request, facts, context, teacher, measured, rows=rows, ordinary=ordinary),
        rates=facts.serving_rates,
        like="",
        **_peaks(facts, teacher, measured, bench),
        disk_bytes=4096 * (rows + ordinary),
    )
    lacks, beside = lacks_memory(price, facts.machine), measured if teacher else None
    fitting = bases_served(facts, beside, context_tokens=bench.context_tokens) if lacks else ()
    name = f"the {request.writer} ({writer.meta['name']})"
    count = f"{rows} rows of {context.name}"
    return Plan(
        stage="generate",
        run=facts.run,
        summary=f"a preview: write {count}"
        if request.preview
        else f"write {count}, {ordinary} ordinary ones beside them",
        steps=(
            *bench.steps,
            *(step.replace("{writer}", name) for step in context.way),
            f"in at most {request.tries} tries each; a row where reading and drawing differ is dropped with both",
            f"the base answers {ordinary} near misses and ordinary prompts "
            f"(sha256 {context.pins['rehearsal prompts'][:12]}), greedy",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, teacher=teacher, **beside_base(base, measured)),
        pins={**context.pins, **bench.pins},
        estimate=price,
        writes=(f"{rows + ordinary} candidate rows",),
        replaces=("the candidate rows of this run",) if "rows" in facts.artifacts and not request.preview else (),
        refusals=room(price, facts, remedy="stopping another program", fitting=fitting),
        fitting=fitting,
        notes=(
            *((_ALWAYS_NOTE.format(ordinary),) if context.always and ordinary else ()),
            *((_THINKS_NOTE,) if bench.thinking == "on" and not teacher else ()),
        ),
    )


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
    written = asking_seconds(
        facts,
        teacher or measured,
        answers=rows * _REQUESTS_PER_ROW,
        answer_tokens=context.tokens * _TRIES_PER_ROW / _REQUESTS_PER_ROW,
        prompt_tokens=_PROMPT_TOKENS,
        at_once=request.concurrency,
    )
    thought = bench_of(facts.artifacts).thinking_tokens
    return written + asking_seconds(
        facts if teacher else replace(facts, served=facts.served | {served_name_of(measured)}),
        measured,
        answers=ordinary,
        answer_tokens=(request.ordinary_tokens + thought) * USUAL_SHARE_OF_MAX_TOKENS,
        at_once=request.concurrency,
    )


def _peaks(facts: Facts, teacher: Artifact | None, measured: Artifact, bench: Bench) -> dict[str, int]:
    """Of the writer's server; the base, which answers after a teacher, takes more where its context is longer."""
    served = [serving_memory(teacher)] if teacher else []
    if not teacher or bench.context_tokens > CONTEXT_TOKENS:
        served.append(serving_memory(measured, bench.context_tokens))
    peaks = [serving_peaks(server, on_gpu=facts.serves_on_gpu) for server in served]
    return {kind: max(peak[kind] for peak in peaks) for kind in peaks[0]}


STAGE = Stage(
    "generate",
    GenerateRequest,
    GenerateResult,
    plan,
    inspect_inputs,
    expected_artifact,
    settable=("rows", "writer"),
    spends=True,
    lasting=("behaviour", "writer", "rehearsal_rows", "temperature"),
    headline=("rows", "rehearsal_rows", "first_try", "tokens_per_second"),
)
