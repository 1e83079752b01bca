"""What of a run is deployed, and in which format, decided here alone by the arithmetic of servers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.stage import GIB, Facts, is_expected
from tunesmith.tools.export.float_kernels import FP8_FROM
from tunesmith.tools.machine.gpus import capability
from tunesmith.tools.models.measuring import (
    FOUR,
    SIXTEEN,
    USUAL_RANK,
    choose,
    is_measured_at_four,
    measuring_cards,
    measuring_server,
)
from tunesmith.tools.models.memory_math import PLANNED_CONTEXT_TOKENS, serving_peaks
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import answering_seconds
from tunesmith.tools.serving.context_settings import context_settings_of, positions_of

FOUR_BITS_FROM = 1_000_000_000
"""Parameters: four bits cost a 135M model × 1.20 of its perplexity, a 1.5B × 1.07."""
_GATED = ("silu", "gelu_pytorch_tanh", "gelu")
_RECOVERY = "perplexity × 1.07 at 1.5 B, published recovery 98 % and more"


DEPLOYS = "deploy "
"""With which the reason for an arm begins, in a plan's reasons."""
Arm = Literal["adapter", "quantized"]


class Choice(NamedTuple):
    """A value that was left open, and why, in a sentence with the number."""

    value: str
    why: str


def kept_for(name: str, config: Mapping[str, object]) -> tuple[str, ...]:
    """Kinds of layers that a scheme leaves at full precision by itself.

    Of a gated MLP: the product of two activations is where outliers arise, and integers do not hold them.
    """
    return ("down_proj",) if SCHEMES[name].smooths and config.get("hidden_act") in _GATED else ()


def scheme_by_size(parameters: int) -> Choice:
    """Where a processor serves: four bits, but for a model that they would cost much."""
    of = f"{parameters / 1e9:.2g} B parameters:"
    if parameters < FOUR_BITS_FROM:
        below = f"below {FOUR_BITS_FROM / 1e9:g} B four bits cost much (perplexity × 1.20 at 0.135 B)"
        return Choice("W8A8", f"{of} {below}")
    return Choice("W4A16", f"{of} four bits take a quarter of the memory; {_RECOVERY}")


def scheme_for(
    config: Mapping[str, object], parameters: int, facts: Facts, keep: tuple[str, ...], *, integers: bool
) -> Choice:
    """The scheme of a model that is served here: on a card 8 bits where these fit, as its generation multiplies them.

    `keep` are layers that stay as they are, `auto` among them; `integers`: something was asked for that floats have
    not.
    """
    card = chosen_gpu(facts.machine.gpus) if facts.serves_on_gpu else None
    if card is None:
        return scheme_by_size(parameters)
    floats = capability(card) >= FP8_FROM and not integers
    eight = SCHEMES["FP8" if floats else "W8A8"]
    stays = (*keep, *(kept_for(eight.name, config) if "auto" in keep else ()))
    cards = _cards_of_arms(config, facts)
    needed = _server_bytes(eight.weight_bytes(config, 0, stays), config, facts, cards=cards)
    free = facts.machine.vram_room_on(cards)
    split = f" on each of {cards} cards" if cards > 1 else ""
    room = f"at 8 bits its server needs {needed / GIB:.1f} GiB{split}, there is room for {free / GIB:.1f}"
    if needed > free:
        return Choice("W4A16", f"{room}; {_RECOVERY}")
    kind = "FP8" if floats else "8-bit integers"
    return Choice(eight.name, f"{card.name} (compute capability {card.compute_capability}) multiplies {kind}; {room}")


def arm_for(config: Mapping[str, object], facts: Facts) -> tuple[Arm, str]:
    """What a plan for a base of this config proposes to deploy here, and why.

    On a card the adapter, where its base is measured at 16 bits and both fit so: a merged and quantized model only
    takes less memory and answers sooner. On a processor, where an answer waits for the weights, the quantized model.
    """
    measuring, facts = choose("auto", config, facts), replace(facts, artifacts={})
    try:
        parameters = ModelShape.of(config).parameters
    except (KeyError, TypeError, ValueError):  # a config may leave anything out
        return "quantized", f"{DEPLOYS}the quantized model: the config of its base does not say its sizes"
    if measuring.bits == FOUR:
        return "quantized", f"{DEPLOYS}the quantized model, as its base is measured at 4 bits: {measuring.reason}"
    cards = _cards_of_arms(config, facts)
    scheme = scheme_for(config, parameters, facts, ("auto",), integers=False).value
    format_ = SCHEMES[scheme]
    fewer = format_.weight_bytes(config, format_.group_of(config), kept_for(scheme, config))
    whole_s, fewer_s = (_token_seconds(config, bytes_, facts) for bytes_ in (2 * parameters, fewer))
    needed = _server_bytes(2 * parameters, config, facts, rank=USUAL_RANK, cards=cards)
    instead = _server_bytes(fewer, config, facts, cards=cards)
    kind, free = "memory", facts.serving_room_bytes
    if facts.serves_on_gpu:
        kind, free = "VRAM", facts.machine.vram_room_on(cards)
    room = f"need {needed / GIB:.1f} GiB of {kind} at 16 bits, there is room for {free / GIB:.1f}"
    brings = f"{instead / GIB:.1f} GiB in {scheme}, with tokens {whole_s / fewer_s:.1f} times as fast"
    if needed > free or (not facts.serves_on_gpu and fewer_s < whole_s):
        return "quantized", f"{DEPLOYS}the quantized model: adapter and base {room}; it needs {brings}"
    more = f"merge and quantize (--quantize) would bring {brings}"
    return "adapter", f"{DEPLOYS}the adapter on its base: both {room}; {more}"


def _token_seconds(config: Mapping[str, object], weight_bytes: int, facts: Facts) -> float:
    """To decode a token for one client."""
    return answering_seconds(
        ModelShape.of(config), weight_bytes, facts.serving_rates, answers=1, answer_tokens=1, prompt_tokens=0,
        at_once=1, on_card=facts.serves_on_gpu,
    ).total  # fmt: skip


def _server_bytes(
    weight_bytes: int,
    config: Mapping[str, object],
    facts: Facts,
    *,
    rank: int = 0,
    cards: int,
) -> int:
    """Peak of a server of so many bytes of weights, of each card or of RAM; a quantized model's allows no adapters."""
    suite, longest = facts.artifacts.get("suite"), positions_of(config) or sys.maxsize
    context = context_settings_of(facts.artifacts).context_tokens if suite else min(PLANNED_CONTEXT_TOKENS, longest)
    needed = measuring_server(weight_bytes, config, context, rank=rank, quantized_base=not rank, cards=cards)
    return sum(serving_peaks(needed, on_gpu=facts.serves_on_gpu).values())


def _cards_of_arms(config: Mapping[str, object], facts: Facts) -> int:
    """Cards that every arm of a run is served on: those of its baseline, or that this would be measured on."""
    suite, base = (facts.artifacts.get(kind) for kind in ("suite", "base"))
    if suite and not is_expected(suite):
        return suite.count("cards", 1)
    four = base is not None and is_measured_at_four(base, facts)
    return measuring_cards(config, facts, FOUR if four else SIXTEEN) or 1
