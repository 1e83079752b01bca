"""Whether a server really answers with an adapter, and only where it is asked to: judged before any comparison.

vLLM has had adapters that changed the base's own answers, adapters of experts that were dropped without a word, and
scales that were ignored. Each of these makes a comparison worthless, and none of them shows in a single answer. So a
few texts are scored, log probability by log probability, with adapters whose effect is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import GIB, Facts, Frozen
from tunesmith.tools.models.memory_math import local_scoring_bytes
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.time_math import LAB_START_S, answering_seconds, passed

SAME_NATS = 0.02
"""Mean difference of a token's log probability within which two scorings are of one model: the rounding of bf16 kernels
that compute in another order. A changed answer needs tenths of nats."""
MOVED_NATS = 0.05
"""The least that an adapter as large as its layers' inputs moves, on average; it moves whole nats."""
AGREES_NATS = 0.25
"""Between vLLM and peft: other kernels, and 4-bit weights multiplied packed here and unpacked there. On the bundled
base 0.06 to 0.08 were measured at 16 bits, up to 0.11 at 4; a dropped adapter is off by what it moves, 0.6 there.
"""
TEXTS = 3
"""Texts that are scored; of each kind of module the first alone."""
TEXT_TOKENS = 96
"""Of each, the last so many tokens at most."""

PeftCheck = Literal["auto", "on", "off"]
_PEFT_S = 30.0
"""What comparing with peft may take for it to be done unasked."""
_READINGS = 4 * TEXTS + 7
"""Texts that are read: all by the base twice, with zeros and the adapter; one for each projection of a dense layer."""

Scores = Sequence[float]
"""Log probabilities of the tokens of all texts, one after the other."""


class Liveness(Frozen):
    """What the proof measured: mean differences of log probabilities, in nats a token."""

    tokens: int
    zero_adapter: float
    """Of an adapter of zeros against the base."""
    base_afterwards: float
    """Of the base, once adapters have answered, against itself before."""
    kinds: Mapping[str, float]
    """Kind of adapted module → how far an adapter that is large there alone moves the base."""
    adapter: float
    """How far the adapter itself moves the base; small for one that has learned little, which is no fault."""
    against_peft: float | None = None
    """Of the adapter on the server against the same adapter in peft; None where that was not compared."""
    base_against_peft: float | None = None
    peft_left_out: str = ""
    """Why it was not."""

    @property
    def fault(self) -> str:
        """Why answers with this adapter on this server must not be compared; empty where nothing speaks against it."""
        if not self.zero_adapter <= SAME_NATS:
            return f"an adapter of zeros moves the base by {self.zero_adapter:.3f} nats a token"
        if not self.base_afterwards <= SAME_NATS:
            return f"the base answers otherwise after adapters have: by {self.base_afterwards:.3f} nats a token"
        if dead := [kind for kind, moved in self.kinds.items() if not moved >= MOVED_NATS]:
            return f"adapters of {', '.join(dead)} are dropped: a large one moves nothing"
        for who, off in (("the base", self.base_against_peft), ("the adapter", self.against_peft)):
            if off is not None and not off <= AGREES_NATS:
                return f"{who} is {off:.3f} nats a token away from what peft computes"
        return ""

    @property
    def summary(self) -> str:
        """One sentence for a log and a report."""
        kinds = f"{min(self.kinds.values()):.2f} at least over {len(self.kinds)} kinds of module"
        peft = f"not held against peft: {self.peft_left_out}"
        if self.against_peft is not None:
            peft = f"against peft the base {self.base_against_peft or 0.0:.3f}, the adapter {self.against_peft:.3f}"
        return (
            f"moved, in nats a token over {self.tokens} tokens: an adapter of zeros {self.zero_adapter:.4f}, the base "
            f"after adapters {self.base_afterwards:.4f}, a large one {kinds}, the adapter {self.adapter:.2f}; {peft}"
        )


def apart(one: Scores, other: Scores) -> float:
    """Mean difference of two scorings of the same texts; infinite where one holds anything but numbers."""
    if len(one) != len(other) or not one:
        return math.inf
    mean = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)
    return mean if math.isfinite(mean) else math.inf


@dataclass(frozen=True, slots=True)
class PricedProof:
    """What the proof adds to the price and the words of a step; nothing for an arm that is no adapter."""

    peaks: Mapping[str, int]
    seconds: Seconds = field(default_factory=Seconds)
    decided: Mapping[str, PeftCheck] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


def priced_proof(asked: PeftCheck, facts: Facts, served: Artifact, arm: str, peaks: Mapping[str, int]) -> PricedProof:
    """The proof for an arm beside a server that takes `peaks`; with peft where that fits too, or was asked for."""
    if arm != "adapter":
        return PricedProof(peaks)
    parameters = int(served.meta["parameters"])
    beside = local_scoring_bytes(parameters)
    needed, free = peaks["ram_bytes"] + beside, facts.machine.memory_free_bytes
    copied = Seconds(LAB_START_S, read=passed(2 * parameters, facts.processor_rates))
    told = (
        f"a copy in peft takes {beside / GIB:.1f} GiB of RAM, {needed / GIB:.1f} with all, {free / GIB:.1f} free, and "
        f"{copied.total:.0f} s"
    )
    peft = needed <= free and copied.total <= _PEFT_S if asked == "auto" else asked == "on"
    seconds = answering_seconds(
        shape_of(served.meta.get("config", {}), parameters),
        served.bytes,
        facts.serving_rates,
        answers=_READINGS,
        answer_tokens=1,
        prompt_tokens=TEXT_TOKENS,
        at_once=1,
        on_card=facts.serves_on_gpu,
    )
    if peft:
        seconds += copied
    against = ", and against peft" if peft else ""
    return PricedProof(
        peaks={**peaks, "ram_bytes": needed} if peft else peaks,
        seconds=seconds,
        decided={"peft_check": "on" if peft else "off"},
        steps=(f"prove the adapter on a few texts: zeros change nothing, every kind of module counts{against}",),
        reasons={"peft_check": told} if asked == "auto" else {},
    )
