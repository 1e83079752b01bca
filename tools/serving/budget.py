"""What one server costs: its memory by arithmetic, its place on the machine, and the time that its answers take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.machine import Gpu, chosen_gpu
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import GIB, Facts, Fitting
from tunesmith.tools.machine.gpus import measure_gpus, serves_on_cpu
from tunesmith.tools.machine.vllm_program import no_vllm
from tunesmith.tools.models.fitting import largest_that_fits
from tunesmith.tools.models.measuring import (
    FOUR,
    MEASURED_AT,
    QUANTIZED_BASE,
    SIXTEEN,
    measuring_bytes,
    whole_sequences,
)
from tunesmith.tools.models.memory_math import (
    CONTEXT_TOKENS,
    GPU_MARGIN_BYTES,
    SERVED_SEQUENCES,
    ServerMemory,
    gpu_share,
    kv_bytes_per_token,
    measuring_memory,
    serving_peaks,
    share_now,
)
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.time_math import WORKER_START_S, answering_seconds, server_start
from tunesmith.tools.serving.bench import USUAL, Bench

FREED_WITHIN_S = 10.0
_SHORTEST_CONTEXT_TOKENS = 1024
AT_FOUR_BITS = "measuring=4 for the base"
"""How it is told that a base would fit at 4 bits, as `base` takes it."""
USUAL_SHARE_OF_MAX_TOKENS = 0.6
"""Of the tokens that an answer may have, what it usually has."""
_PROMPT_TOKENS = 100
"""Of a case, those that no other case's prompt begins with."""


def need_vllm(facts: Facts) -> str:
    """The vllm program. Raises BadInput where none was found."""
    if not facts.vllm:
        raise BadInput(no_vllm(facts.vllm_from))
    return facts.vllm


def asking_seconds(
    facts: Facts,
    model: Artifact,
    *,
    answers: float,
    answer_tokens: float,
    prompt_tokens: float = _PROMPT_TOKENS,
    at_once: int = SERVED_SEQUENCES,
) -> Seconds:
    """To start a server of a model, unless one that has it loaded waits for the next step, and to be answered by it."""
    on_card = facts.serves_on_gpu
    answered = answering_seconds(
        shape_of(model.meta.get("config", {}), int(model.meta["parameters"])),
        model.bytes,
        facts.serving_rates,
        answers=answers,
        answer_tokens=answer_tokens,
        prompt_tokens=prompt_tokens,
        at_once=at_once,
        on_card=on_card,
    )
    return Seconds(WORKER_START_S) + starting_seconds(facts, model) + answered


def starting_seconds(facts: Facts, model: Artifact) -> Seconds:
    """Of a server of a model; nothing where one that has it loaded waits for the next step."""
    if served_name_of(model) in facts.served:
        return Seconds()
    return server_start(model.bytes, facts.serving_rates, on_card=facts.serves_on_gpu)


def served_name_of(model: Artifact) -> str:
    """What `Facts.served` knows a model by."""
    return model.sha256 or model.kind


def evaluation_seconds(
    facts: Facts,
    model: Artifact,
    cases: int,
    max_tokens: int,
    *,
    bench: Bench = USUAL,
    prompt_tokens: float = 0.0,
) -> Seconds:
    """To start a server and answer so many cases; the length of prompts counts where the context is not the usual."""
    longer = prompt_tokens if bench.context_tokens > CONTEXT_TOKENS else 0.0
    return asking_seconds(
        facts,
        model,
        answers=cases,
        answer_tokens=(max_tokens + bench.thinking_tokens) * USUAL_SHARE_OF_MAX_TOKENS,
        prompt_tokens=max(_PROMPT_TOKENS, longer),
    )


def serving_memory(model: Artifact, context_tokens: int = CONTEXT_TOKENS) -> ServerMemory:
    """Peak of a vLLM server of this model with the settings that every arm is measured with, or a longer context."""
    kv_bytes, whole = kv_bytes_per_token(model.meta.get("config", {})), whole_sequences(model.kind == QUANTIZED_BASE)
    return measuring_memory(model.bytes, kv_bytes, context_tokens, whole=whole)


def bases_served(
    facts: Facts, writer: Artifact | None = None, *, context_tokens: int = CONTEXT_TOKENS
) -> tuple[Fitting, ...]:
    """What a step that serves a model would fit with: the run's own base as the writer, that base at 4 bits where it is
    measured at 16, or else the largest base that can be measured here at all."""
    free = facts.serving_free_bytes
    if writer:
        needed = sum(serving_peaks(serving_memory(writer, context_tokens), on_gpu=facts.serves_on_gpu).values())
        if needed <= free:
            return (Fitting(settings="writer=base", peak_bytes=needed),)
    base = facts.artifacts.get("base")
    if base and base.meta.get("config") and base.meta.get(MEASURED_AT, SIXTEEN) == SIXTEEN:
        needed = measuring_bytes(base.meta["config"], facts, FOUR, context_tokens)
        if needed <= free:
            return (Fitting(settings=AT_FOUR_BITS, peak_bytes=needed),)
    return largest_that_fits(
        lambda model: min(
            measuring_bytes(model.config, facts, SIXTEEN, context_tokens),
            measuring_bytes(model.config, facts, FOUR, context_tokens),
        ),
        free,
    )


def shorter_context(
    facts: Facts, model: Artifact, context_tokens: int, *, least: int = _SHORTEST_CONTEXT_TOKENS
) -> tuple[Fitting, ...]:
    """The longest half, quarter and so on of a context with which a server that does not fit would; else nothing."""
    while context_tokens >= 2 * least:
        context_tokens //= 2
        needed = sum(serving_peaks(serving_memory(model, context_tokens), on_gpu=facts.serves_on_gpu).values())
        if needed <= facts.serving_free_bytes:
            return (Fitting(settings=f"context_tokens={context_tokens}", peak_bytes=needed),)
    return ()


def measured_with(measured: Artifact) -> tuple[str, ...]:
    """What a plan says of the weights that answer for the base; nothing where these are the base's own."""
    if measured.kind != QUANTIZED_BASE:
        return ()
    return (f"at 4 bits: the quantized base {measured.id} answers for the base, as in every comparison with it",)


class Place(NamedTuple):
    """Where a server runs, in the words of its ServerSpec."""

    device: Literal["cpu", "cuda"]
    gpu_share: float


def placed(vllm: str | None, needed_bytes: int) -> Place:
    """Where a server that needs so much memory runs, and which share of the GPU it may claim (0.0 on the CPU)."""
    chosen = chosen_gpu(measure_gpus())
    if chosen is None or serves_on_cpu(vllm):
        return Place("cpu", 0.0)
    return Place("cuda", gpu_share(needed_bytes, chosen.total_bytes))


def gpus_once_free(share: float) -> tuple[Gpu, ...]:
    """The GPUs as they are now, or within `FREED_WITHIN_S`, once one has room for a server of this share.

    A driver gives memory back some time after the process that held it has ended.
    """
    deadline = time.monotonic() + FREED_WITHIN_S
    while True:
        gpus = measure_gpus()
        chosen = chosen_gpu(gpus)
        if chosen is None or time.monotonic() > deadline:
            return gpus
        if share_now(share, free_bytes=chosen.free_bytes, total_bytes=chosen.total_bytes):
            return gpus
        time.sleep(0.2)


def claimable(share: float, gpus: Sequence[Gpu]) -> float:
    """The share of the chosen one of these GPUs that a server may claim now: never more than is free.

    Raises StepFailed, with the numbers, where what it needs is not free.
    """
    chosen = chosen_gpu(gpus)
    if chosen is None or not share:
        return share
    if now := share_now(share, free_bytes=chosen.free_bytes, total_bytes=chosen.total_bytes):
        return now
    needed_bytes = share * chosen.total_bytes - GPU_MARGIN_BYTES
    raise StepFailed(
        f"the server needs {needed_bytes / GIB:.1f} GiB of {chosen.name}, {chosen.free_bytes / GIB:.1f} of "
        f"{chosen.total_bytes / GIB:.1f} GiB are free; stop what else uses it (nvidia-smi lists it), or name another "
        "GPU in CUDA_VISIBLE_DEVICES"
    )
