"""What of a run is deployed, and in which format, decided here alone by the arithmetic of servers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.stage import GIB, Facts, is_expected
from tunesmith.tools.export.float_kernels import FP8_FROM
from tunesmith.tools.machine.gpus import capability
from tunesmith.tools.models.measuring import FOUR, SIXTEEN, is_measured_at_four, measuring_cards, measuring_server
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS, serving_peaks
from tunesmith.tools.models.schemes import SCHEMES

FOUR_BITS_FROM = 1_000_000_000
"""Parameters: four bits cost a 135M model × 1.20 of its perplexity, a 1.5B × 1.07."""
_GATED = ("silu", "gelu_pytorch_tanh", "gelu")
_RECOVERY = "perplexity × 1.07 at 1.5 B, published recovery 98 % and more"


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
    cards = cards_of_arms(config, facts)
    needed = server_bytes(eight.weight_bytes(config, 0, stays), config, facts, cards=cards)
    free = facts.machine.vram_free_on(cards)
    split = f" on each of {cards} cards" if cards > 1 else ""
    room = f"at 8 bits its server needs {needed / GIB:.1f} GiB{split}, {free / GIB:.1f} are free"
    if needed > free:
        return Choice("W4A16", f"{room}; {_RECOVERY}")
    kind = "FP8" if floats else "8-bit integers"
    return Choice(eight.name, f"{card.name} (compute capability {card.compute_capability}) multiplies {kind}; {room}")


def server_bytes(weight_bytes: int, config: Mapping[str, object], facts: Facts, *, rank: int = 0, cards: int) -> int:
    """Peak of a server of so many bytes of weights with the usual context, of each card or of RAM, with its margin."""
    needed = measuring_server(weight_bytes, config, CONTEXT_TOKENS, rank=rank, quantized_base=False, cards=cards)
    return math.ceil(facts.margin * sum(serving_peaks(needed, on_gpu=facts.serves_on_gpu).values()))


def cards_of_arms(config: Mapping[str, object], facts: Facts) -> int:
    """Cards that every arm of a run is served on: those of its baseline, or that this would be measured on."""
    suite, base = (facts.artifacts.get(kind) for kind in ("suite", "base"))
    if suite and not is_expected(suite):
        return suite.count("cards", 1)
    four = base is not None and is_measured_at_four(base, facts)
    return measuring_cards(config, facts, FOUR if four else SIXTEEN) or 1
