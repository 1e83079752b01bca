"""The precision that a run's models are measured at: 16 bits where a server of the base fits, else 4-bit weights.

Whatever is compared with the untrained base runs on the same weights: the baseline, the rows that the base writes,
preflight's check of the server, the base's arm and the adapter's. At 4 bits these are the quantized base's: the base
rounded to nearest in groups, without data, as an artifact of its own. Training and merging work on the base itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.stage import GIB, Facts, expected, is_expected
from tunesmith.tools.models.memory_math import (
    PLANNED_CONTEXT_TOKENS,
    RUNTIME_BYTES,
    WHOLE_SEQUENCES,
    ServerMemory,
    adapter_slot_bytes,
    group_size_for,
    kv_bytes_per_token,
    quantized_weight_bytes,
    server_memory,
    serving_peaks,
    splits,
)
from tunesmith.tools.models.shape import ATTENTION, ModelShape

QUANTIZED_BASE = "quantized-base"
"""Kind of the artifact that answers for a base which is measured at 4 bits."""
SCHEME = "W4A16"
FOUR: Literal["4"] = "4"
SIXTEEN: Literal["16"] = "16"
STORED: Literal["stored"] = "stored"
Bits = Literal["16", "4"]
Asked = Literal["auto", "16", "4", "stored"]
"""What a user may say; `stored` is a checkpoint that is quantized already, measured as it is."""
MEASURED_AT = "measured_at"
"""Where a base's record holds the choice; until the base is there, what was asked for."""
USUAL_RANK = 16
"""That a server of a base allows adapters of, unless one of a higher rank is to be asked."""


class Measuring(NamedTuple):
    """How a base is measured, and why."""

    bits: Literal["16", "4", "stored"]
    reason: str


def choose(asked: Asked, config: Mapping[str, object], facts: Facts) -> Measuring:
    """The measuring precision for a model of this config, by what a server and preflight beside it need here.

    Raises BadInput where what was asked for cannot be had.
    """
    if config.get("quantization_config"):
        if asked in (SIXTEEN, FOUR):
            raise BadInput(f"this checkpoint is quantized already, so measuring={asked} cannot be had; leave it out")
        return Measuring(STORED, "the checkpoint is quantized already: it is measured as it is stored")
    if asked == STORED:
        return Measuring(SIXTEEN, "it is stored at 16 bits")
    if asked != "auto":
        return Measuring(asked, "asked for")
    if not config:
        return Measuring(SIXTEEN, "nothing is known of its size yet")
    try:
        ModelShape.of(config)
    except (KeyError, TypeError, ValueError):  # a config may leave anything out
        return Measuring(SIXTEEN, "its config does not say its sizes")
    sixteen, four = measuring_bytes(config, facts, SIXTEEN), measuring_bytes(config, facts, FOUR)
    free, kind = facts.serving_room_bytes, "VRAM" if facts.serves_on_gpu else "memory"
    reason = f"measuring it at 16 bits needs {sixteen / GIB:.1f} GiB of {kind}, there is room for {free / GIB:.1f}"
    if sixteen <= free:
        return Measuring(SIXTEEN, reason)
    if cards := measuring_cards(config, facts, SIXTEEN):
        each = measuring_bytes(config, facts, SIXTEEN, cards=cards)
        return Measuring(SIXTEEN, f"{reason}; split over {cards} cards {each / GIB:.1f} on each")
    if four <= free:
        return Measuring(FOUR, f"{reason}; at 4 bits {four / GIB:.1f}")
    if cards := measuring_cards(config, facts, FOUR):
        each = measuring_bytes(config, facts, FOUR, cards=cards)
        return Measuring(FOUR, f"{reason}; at 4 bits split over {cards} cards {each / GIB:.1f} on each")
    return Measuring(SIXTEEN, f"{reason}; at 4 bits {four / GIB:.1f}, which does not fit either")


def measuring_cards(config: Mapping[str, object], facts: Facts, bits: Bits) -> int:
    """The fewest cards of this machine that a measuring server of a model fits on, split; 0: it fits on none, and on
    the processor 1 at most."""
    group = group_size_for(config) if bits == FOUR else 0

    def needs(cards: int) -> int:
        return measuring_bytes(config, facts, bits, cards=cards)

    return fewest_cards(needs, config, facts, group_size=group)


def fewest_cards(
    needs: Callable[[int], int], config: Mapping[str, object], facts: Facts, *, group_size: int = 0
) -> int:
    """The fewest cards on which a server fits that needs so much of each; 0 where it fits on none."""
    if not facts.serves_on_gpu:
        return 1 if needs(1) <= facts.serving_room_bytes else 0
    fitting = (
        cards
        for cards in range(1, len(facts.machine.gpus) + 1)
        if splits(config, cards, group_size=group_size) and needs(cards) <= facts.machine.vram_room_on(cards)
    )
    return next(fitting, 0)


def measuring_bytes(
    config: Mapping[str, object], facts: Facts, bits: Bits, context_tokens: int = 0, *, cards: int = 1
) -> int:
    """Peak of measuring, of each card: a server under test with the context of a plan or a longer one, and on the CPU
    beside it what the process of a preflight holds."""
    weights = quantized_bytes(config) if bits == FOUR else 2 * ModelShape.of(config).parameters
    context_tokens = max(context_tokens, PLANNED_CONTEXT_TOKENS)
    server = measuring_server(
        weights, config, context_tokens, rank=USUAL_RANK, quantized_base=bits == FOUR, cards=cards
    )
    return sum(serving_peaks(server, on_gpu=facts.serves_on_gpu).values()) + beside_serving_bytes(facts)


def beside_serving_bytes(facts: Facts) -> int:
    """Of RAM, what a process that has trained in a child holds while a server on the CPU answers it."""
    return 0 if facts.serves_on_gpu else RUNTIME_BYTES


def measuring_server(
    weight_bytes: int,
    config: Mapping[str, object],
    context_tokens: int,
    *,
    rank: int,
    quantized_base: bool,
    cards: int = 1,
) -> ServerMemory:
    """Peak of a measuring server that allows adapters of a rank; 0: none.

    For a quantized base its cache holds one sequence of full length: 4 bits say that memory is short.
    """
    try:
        alone = bool(adapted_modules(config, quantized_base=quantized_base))
        slots = adapter_slot_bytes(ModelShape.of(config), rank, attention_only=alone)
    except (KeyError, TypeError, ValueError):
        slots = 0  # of a usual model the margin holds them
    return server_memory(
        weight_bytes,
        kv_bytes_per_token=kv_bytes_per_token(config, cards=cards),
        context_tokens=context_tokens,
        whole=1 if quantized_base else WHOLE_SEQUENCES,
        slot_bytes=slots,
        cards=cards,
    )


def adapted_modules(config: Mapping[str, object], *, quantized_base: bool) -> tuple[str, ...]:
    """Modules that the adapters of a server may have, which every arm of a run shares; empty: all that vLLM knows.

    A mixture that is measured at 4 bits is trained at 4 bits, where its adapter has attention alone.
    """
    return ATTENTION if quantized_base and ModelShape.of(config).experts else ()


def quantized_bytes(config: Mapping[str, object]) -> int:
    """Of the quantized base's tensors."""
    return quantized_weight_bytes(config, bits=4, group_size=group_size_for(config))


def measured_base(facts: Facts) -> Artifact:
    """What answers for the run's base where it is measured: the base, or the quantized base made from it.

    In a forecast it is what `choose` would have the stage `base` make. Raises BadInput where the run has no base, or
    its quantized base is missing.
    """
    base = facts.need("base", "base")
    if not is_expected(base):
        return measured_as(base, facts.artifacts.get(QUANTIZED_BASE))
    if not is_measured_at_four(base, facts):
        return base
    return expected(QUANTIZED_BASE, quantized_bytes(base.config), **base.meta)


def is_measured_at_four(base: Artifact, facts: Facts) -> bool:
    """Whether a base's quantized base answers for it, or will."""
    asked = base.meta.get(MEASURED_AT, "auto" if is_expected(base) else SIXTEEN)
    return asked == FOUR or (asked == "auto" and choose("auto", base.known_config, facts).bits == FOUR)


def answers_for(model: Artifact, facts: Facts) -> Artifact:
    """What answers for a model on a measuring server: for the run's base `measured_base`, any other model itself."""
    return measured_base(facts) if model is facts.artifacts.get("base") else model


def measured_as(base: Artifact, quantized: Artifact | None) -> Artifact:
    """The same for a base that is there and the run's quantized base, if it has one. Raises BadInput as above."""
    if base.meta.get(MEASURED_AT) != FOUR:
        return base
    if quantized is None or quantized.meta.get("base_sha256") != base.sha256:
        raise BadInput(f"base {base.id} is to be measured at 4 bits, and its quantized base is not there; run "
                       "`tunesmith base` again")  # fmt: skip
    return quantized


def refuse_quantized(base: Artifact) -> None:
    """Raise BadInput for a base that is a quantized checkpoint: it is measured and served, and nothing trains on it."""
    if base.known_config.get("quantization_config"):
        raise BadInput(
            f"the base {base.meta.get('name', base.id)} is a quantized checkpoint: it can be measured and served, and "
            "adapters are trained on original weights; fetch those, with measuring=4 to measure at 4 bits"
        )


def beside_base(base: Artifact, measured: Artifact) -> dict[str, Artifact]:
    """The input that a plan has beside its base: the quantized base, where that answers."""
    return {} if measured is base else {QUANTIZED_BASE: measured}


def answering_base(inputs: Mapping[str, Artifact]) -> Artifact:
    """Of a step's inputs, what answers for the base."""
    return inputs.get(QUANTIZED_BASE) or inputs["base"]
