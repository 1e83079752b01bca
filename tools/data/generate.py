"""generate: training rows for the behaviour, written by a served model for attributes that were drawn first.

Where the spec has attributes the label (its summary too) comes from them, so it is right by construction; the writer
only finds words. Where the spec has examples the model writes message and answer, and the answer is held to its rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.local_paths import local_path
from tunesmith.tools.core.stage import Facts, Inputs, Plan, Request, Result, Stage, expected, pinned
from tunesmith.tools.data.behaviour import load_behaviour, load_rehearsal, pins_of
from tunesmith.tools.data.example_behaviour import ExampleBehaviour
from tunesmith.tools.models.memory_math import serving_peaks
from tunesmith.tools.serving.budget import need_vllm, serving_memory

_SERVER_START_S = 30.0
_TOKENS_PER_TEXT = 20
_TOKENS_PER_MESSAGE = 45
"""By examples: a message and its share of the subjects; the answer comes on top."""
_TOKENS_PER_REHEARSAL = 60
# Tokens per second of a 1e9-parameter model on the reference machine at 32 requests at once, prefill included.
_TOKENS_PER_SECOND_BILLION = 50.0


class GenerateRequest(Request):
    """How many rows to make, and who writes them."""

    behaviour: Annotated[str, local_path("demo")] = Field(
        default="demo", min_length=1, description="'demo', a behaviour.yaml, or the folder that holds one."
    )
    rows: int = Field(default=600, ge=1, le=100_000, description="Rows of the behaviour.")
    rehearsal_rows: int = Field(
        default=180, ge=0, le=10_000, description="Ordinary prompts answered by the base, so that nothing is forgotten."
    )
    writer: Literal["base", "teacher"] = Field(default="base", description="Which model of the run writes the texts.")
    temperature: float = Field(default=0.7, ge=0, le=2, description="Of the writer; rehearsal is always greedy.")
    tries: int = Field(default=2, ge=1, le=10, description="Attempts at a text before critique gets it as it is.")
    concurrency: int = Field(default=64, ge=1, le=1024, description="Requests in flight at once.")
    seed: int = Field(default=17, description="Of the draw of attributes, subjects and rehearsal prompts.")


class GenerateResult(Result):
    """The candidate rows; critique decides which are kept."""

    artifact: str
    path: str
    rows: int
    rehearsal_rows: int
    first_try: int
    """Texts that said what was drawn at the first attempt."""
    completed: int
    """Texts whose scenario the writer left out, so that it is said in the spec's own words."""
    kind_checked: bool = False
    """By examples: whether the writer could tell messages of the kind from others, and was asked."""
    requests: int
    generated_tokens: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class GenerateContext:
    """What is read of a behaviour before its rows are priced."""

    name: str
    pins: Mapping[str, str]
    """What was read, by its sha256."""
    rehearsal: int
    """Prompts that there are for rehearsal."""
    tokens: int
    """That a row takes to write."""
    rules: int | None = None
    """By examples: how many an answer is held to; None where rows are written for drawn attributes."""


def inspect_inputs(request: GenerateRequest, inputs: Inputs) -> GenerateContext:
    """Read the behaviour's spec and count its rehearsal prompts, so that a broken one is refused before the start."""
    behaviour = load_behaviour(request.behaviour)
    rehearsal = load_rehearsal(request.behaviour)
    if request.rehearsal_rows and not rehearsal:
        raise BadInput(f"behaviour {request.behaviour} has no rehearsal.txt; write one, or set rehearsal_rows=0")
    context = GenerateContext(behaviour.name, pins_of(behaviour, rehearsal), len(rehearsal), _TOKENS_PER_TEXT)
    if isinstance(behaviour, ExampleBehaviour):
        tokens = _TOKENS_PER_MESSAGE + behaviour.max_tokens // 2
        return replace(context, tokens=tokens, rules=len(behaviour.rules))
    return context


def expected_artifact(request: GenerateRequest, artifacts: Mapping[str, Artifact]) -> Artifact:
    """As many rows as are asked for."""
    return expected("rows", rows=request.rows + request.rehearsal_rows, behaviour=request.behaviour)


def plan(request: GenerateRequest, facts: Facts, context: GenerateContext) -> Plan:
    """Price the tokens that the writer and, for rehearsal, the base will produce."""
    base = facts.need("base", "base")
    teacher = facts.need("teacher", "base --role teacher") if request.writer == "teacher" else None
    writer = teacher or base
    need_vllm(facts)
    rehearsal_rows = min(request.rehearsal_rows, context.rehearsal)
    work = [(writer, request.rows * context.tokens * 1.25), (base, rehearsal_rows * _TOKENS_PER_REHEARSAL)]
    seconds = _SERVER_START_S * (2 if teacher else 1) + writer.bytes / 1e8
    for model, tokens in work:
        seconds += tokens * max(int(model.meta["parameters"]) / 1e9, 0.01) / _TOKENS_PER_SECOND_BILLION
    price = estimate(
        "generate",
        facts,
        seconds=seconds,
        like="",
        **serving_peaks(serving_memory(writer), on_gpu=facts.serves_on_gpu),
        disk_bytes=2048 * (request.rows + rehearsal_rows),
    )
    return Plan(
        stage="generate",
        run=facts.run,
        summary=f"write {request.rows} rows of {context.name} and {rehearsal_rows} rehearsal rows",
        steps=(
            *_writing(request, context, f"the {request.writer} ({writer.meta['name']})"),
            f"the base answers {rehearsal_rows} ordinary prompts "
            f"(sha256 {context.pins['rehearsal prompts'][:12]}), greedy",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, teacher=teacher),
        pins=dict(context.pins),
        estimate=price,
        writes=(f"{request.rows + rehearsal_rows} candidate rows",),
        replaces=("the candidate rows of this run",) if "rows" in facts.artifacts else (),
        refusals=room(price, facts, remedy="writer=base, or stopping another program"),
    )


def _writing(request: GenerateRequest, context: GenerateContext, writer: str) -> tuple[str, ...]:
    spec = f"the behaviour's spec (sha256 {context.pins['behaviour'][:12]})"
    tries = f"in at most {request.tries} tries"
    if context.rules is None:
        return f"draw what each row is about from {spec}", f"{writer} writes each text, {tries}"
    return (
        f"{writer} names subjects for {spec} and writes a message about each, {tries}",
        f"{writer} answers each message as described, held to {context.rules} rules, {tries}",
    )


STAGE = Stage(
    "generate",
    GenerateRequest,
    GenerateResult,
    plan,
    inspect_inputs,
    expected_artifact,
    settable=("rows", "writer"),
)
