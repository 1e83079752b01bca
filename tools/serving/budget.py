"""What one server costs: its memory by arithmetic, its place on the machine, and the time that its answers take."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.machine import Gpu, Machine, chosen_gpu, chosen_gpus
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import GIB, Estimate, Facts, Fitting, is_expected
from tunesmith.tools.machine.gpus import measure_gpus, serves_on_cpu
from tunesmith.tools.machine.vllm_program import no_vllm
from tunesmith.tools.models.fitting import ANOTHER_BASE, largest_that_fits
from tunesmith.tools.models.measuring import (
    FOUR,
    MEASURED_AT,
    QUANTIZED_BASE,
    SIXTEEN,
    USUAL_RANK,
    fewest_cards,
    measuring_bytes,
    measuring_server,
)
from tunesmith.tools.models.memory_math import (
    CONTEXT_TOKENS,
    GPU_MARGIN_BYTES,
    SERVED_SEQUENCES,
    ServerMemory,
    group_size_for,
    serving_peaks,
    splits,
)
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.time_math import WORKER_START_S, answering_seconds, server_start
from tunesmith.tools.serving.context_settings import USUAL, ContextSettings
from tunesmith.tools.serving.spec import ServerSpec

FREED_WITHIN_S = 10.0
"""A driver gives memory back seconds after its process; what is not free by then is somebody else's."""
_SHORTEST_CONTEXT_TOKENS = 1024
"""A prompt and an answer of a few sentences; a shorter one is proposed to nobody."""
_ONE_BOX = (
    "a base that no number of this machine's cards holds is not served by tunesmith; vLLM alone does that, over Ray: "
    "docs/models.md has the command"
)
AT_FOUR_BITS = "measuring=4 for the base"
"""How it is told that a base would fit at 4 bits, as `base` takes it."""
USUAL_SHARE_OF_MAX_TOKENS = 0.6
"""Of the tokens that an answer may have, what it usually has: a price by the most of each would be far too high."""
_PROMPT_TOKENS = 100
"""Of a case, those that no other case's prompt begins with."""
_RANKS = (16, 32, 64, 128, 256)
"""Ranks that vLLM can be told to allow."""
_SOMEBODY_BYTES = 2 << 30
"""More than a desktop holds of a GPU: it is somebody's work."""
_LEFT_FREE_BYTES = 768 << 20
"""The engine's CUDA context is there before vLLM looks at what is free."""
_LARGEST_SHARE = 0.92
"""Of a GPU for one server: vLLM's own default."""


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
        shape_of(model.known_config, model.count("parameters")),
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
    context_settings: ContextSettings = USUAL,
    prompt_tokens: float = 0.0,
) -> Seconds:
    """To start a server and answer so many cases; the length of prompts counts where the context is not the usual."""
    longer = prompt_tokens if context_settings.context_tokens > CONTEXT_TOKENS else 0.0
    return asking_seconds(
        facts,
        model,
        answers=cases,
        answer_tokens=(max_tokens + context_settings.thinking_tokens) * USUAL_SHARE_OF_MAX_TOKENS,
        prompt_tokens=max(_PROMPT_TOKENS, longer),
    )


def serving_memory(
    model: Artifact, context_tokens: int = CONTEXT_TOKENS, *, rank: int | None = None, cards: int = 1
) -> ServerMemory:
    """Peak of a vLLM server of this model with the settings that every arm is measured with, or a longer context.

    It allows adapters up to a rank: unless that is given, a base those of the usual one, another model none. What was
    quantized has room for one sequence at the least, since it says that memory is short.
    """
    quantized = model.kind in (QUANTIZED_BASE, "quantized")
    usual = USUAL_RANK if model.kind in (QUANTIZED_BASE, "base") else 0
    allowed = usual if rank is None else rank
    config = model.known_config
    return measuring_server(model.bytes, config, context_tokens, rank=allowed, quantized_base=quantized, cards=cards)


def serving_cards(
    facts: Facts, model: Artifact, context_tokens: int = CONTEXT_TOKENS, *, rank: int | None = None, asked: int = 0
) -> int:
    """GPUs that a model is split over: as many as are asked for, or as the run's baseline was measured on, which all of
    its arms share; else the fewest that it fits on, and 1 where it fits on none.

    Raises BadInput for more than there are, and for a number that vLLM cannot split the model by.
    """
    config, gpus = model.known_config, len(facts.machine.gpus) if facts.serves_on_gpu else 0
    quantized = config.get("quantization_config") or model.kind == QUANTIZED_BASE
    group = group_size_for(config) if quantized and asked != 1 else 0
    if asked > max(gpus, 1):
        raise BadInput(f"cards={asked}, and vLLM has {gpus or 'no'} GPU{'s' if gpus > 1 else ''} here; leave cards out")
    if not splits(config, asked or 1, group_size=group):
        good = [str(n) for n in range(1, gpus + 1) if splits(config, n, group_size=group)]
        raise BadInput(f"cards={asked}: its heads and widths do not split so evenly; try cards={' or '.join(good)}")
    suite = facts.artifacts.get("suite")
    measured_on = suite.count("cards", 1) if suite and not is_expected(suite) else 0

    def needs(cards: int) -> int:
        needed = serving_memory(model, context_tokens, rank=rank, cards=cards)
        return sum(serving_peaks(needed, on_gpu=facts.serves_on_gpu).values())

    return asked or measured_on or fewest_cards(needs, config, facts, group_size=group) or 1


def server_of(
    facts: Facts, model: Artifact, context_tokens: int = CONTEXT_TOKENS, *, rank: int | None = None, asked: int = 0
) -> ServerMemory:
    """Peak of a server of a model on as many cards as it is split over here."""
    cards = serving_cards(facts, model, context_tokens, rank=rank, asked=asked)
    return serving_memory(model, context_tokens, rank=rank, cards=cards)


def split_steps(cards: int) -> tuple[str, ...]:
    """What a plan says of a model that is served on several cards."""
    return (f"vLLM splits the model over {cards} cards (--tensor-parallel-size)",) * (cards > 1)


def one_box(price: Estimate, machine: Machine, fitting: Sequence[Fitting]) -> tuple[str, ...]:
    """The refusal of a base that is too large for all cards of a machine together, where it has several."""
    own = fitting and not fitting[0].settings.startswith(ANOTHER_BASE)
    largest = max((gpu.total_bytes for gpu in machine.gpus), default=0)
    return () if own or len(machine.gpus) < 2 or price.peak_vram_bytes <= largest else (_ONE_BOX,)


def lora_rank_served(adapter: Artifact | None) -> int:
    """Rank that a server must allow: the usual 16 wherever that is enough, so that servers stay equal."""
    return rank_served(adapter.count("lora_rank", 0) if adapter else 0)


def rank_served(rank: int) -> int:
    """Rank that a server must allow for adapters of this rank."""
    return next(allowed for allowed in _RANKS if allowed >= max(rank, USUAL_RANK))


def bases_served(
    facts: Facts, writer: Artifact | None = None, *, context_tokens: int = CONTEXT_TOKENS
) -> tuple[Fitting, ...]:
    """What a step that serves a model would fit with: the run's own base as the writer, that base at 4 bits where it is
    measured at 16, or else the largest base that can be measured here at all."""
    free = facts.serving_room_bytes
    if writer:
        needed = sum(serving_peaks(serving_memory(writer, context_tokens), on_gpu=facts.serves_on_gpu).values())
        if needed <= free:
            return (Fitting(settings="writer=base", peak_bytes=needed),)
    base = facts.artifacts.get("base")
    if base and base.meta.get("config") and base.meta.get(MEASURED_AT, SIXTEEN) == SIXTEEN:
        needed = measuring_bytes(base.config, facts, FOUR, context_tokens)
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
    facts: Facts,
    model: Artifact,
    context_tokens: int,
    *,
    least: int = _SHORTEST_CONTEXT_TOKENS,
    rank: int | None = None,
) -> tuple[Fitting, ...]:
    """The longest half, quarter and so on of a context with which a server that does not fit would; else nothing."""
    while context_tokens >= 2 * least:
        context_tokens //= 2
        server = serving_memory(model, context_tokens, rank=rank)
        needed = sum(serving_peaks(server, on_gpu=facts.serves_on_gpu).values())
        if needed <= facts.serving_room_bytes:
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
    gpu_bytes: int = 0
    gpu_cache_bytes: int = 0
    gpu_full_cache_bytes: int = 0
    cards: int = 1


def placed(vllm: str | None, needed: ServerMemory) -> Place:
    """Where a server that needs so much memory runs, and what of it that is on each GPU."""
    if chosen_gpu(measure_gpus()) is None or serves_on_cpu(vllm):
        return Place("cpu")
    return Place("cuda", needed.vram_bytes, needed.cache_bytes, needed.full_cache_bytes, needed.cards)


def gpus_once_free(needed_bytes: int, cards: int = 1) -> tuple[Gpu, ...]:
    """The GPUs as they are now, or within `FREED_WITHIN_S`, once so many of them have so much free.

    A driver gives memory back some time after the process that held it has ended.
    """
    deadline = time.monotonic() + FREED_WITHIN_S
    while True:
        gpus = measure_gpus()
        chosen = chosen_gpus(gpus, cards)
        if not chosen or needed_bytes <= chosen[-1].free_bytes or time.monotonic() > deadline:
            return gpus
        time.sleep(0.2)  # a question to the driver takes milliseconds


class Claim(NamedTuple):
    """What a server may take of a GPU, and the arguments that tell vLLM so."""

    bytes: int = 0
    arguments: tuple[str, ...] = ()


def claim(spec: ServerSpec, gpus: Sequence[Gpu], *, alone: bool) -> Claim:
    """What a server takes of each of the chosen ones of these GPUs: the same, what the fullest of them allows.

    vLLM measures what it needs itself and makes its cache of the rest of its share: of what is free, up to a cache for
    all its sequences, where nobody else is; beside a neighbour of what it is priced at, where that and a margin are
    free. Else it is given the cache that it is priced with and measures nothing, with a share of next to nothing: it
    refuses to start where its share is not free. Raises StepFailed, with the numbers, where what the server needs is
    not free.
    """
    if not gpus or not spec.gpu_bytes:
        return Claim()
    if len(gpus) < spec.cards:
        raise StepFailed(
            f"the server was planned for {spec.cards} GPUs and {len(gpus)} are here; nvidia-smi says which are left, "
            "then plan the step anew"
        )
    chosen = chosen_gpus(gpus, spec.cards)[-1]
    free, total = chosen.free_bytes, chosen.total_bytes
    if spec.gpu_bytes > free:
        raise StepFailed(
            f"the server needs {spec.gpu_bytes / GIB:.1f} GiB of {chosen.name}, {free / GIB:.1f} of "
            f"{total / GIB:.1f} GiB are free; stop what else uses it (nvidia-smi lists it), or name another "
            "GPU in CUDA_VISIBLE_DEVICES"
        )
    has_it = alone and total - free < _SOMEBODY_BYTES
    more = spec.gpu_full_cache_bytes - spec.gpu_cache_bytes if has_it else 0
    wanted = spec.gpu_bytes + GPU_MARGIN_BYTES + more
    # Rounded down: vLLM refuses to start where a share is a byte more than what is free.
    share = math.floor(1000 * min(_LARGEST_SHARE, (free - _LEFT_FREE_BYTES) / total, wanted / total)) / 1000
    # Beside a neighbour only where there is room for more than vLLM may find that it needs.
    if share * total >= spec.gpu_bytes and (has_it or wanted + GPU_MARGIN_BYTES <= free):
        return Claim(int(share * total), (f"--gpu-memory-utilization={share:g}",))
    # 0.01: with the cache given in bytes the share only decides whether vLLM starts: so much has to be free.
    priced = (f"--kv-cache-memory-bytes={spec.gpu_cache_bytes}", "--gpu-memory-utilization=0.01")
    return Claim(spec.gpu_bytes, priced)
