"""Whether a server really answers with an adapter, and only where it is asked to: judged before any comparison.

vLLM has had adapters that changed the base's own answers, and adapters of experts that were dropped without a word.
Either makes a comparison worthless, and neither shows in a single answer. So one text is scored, log probability by log
probability: by the base before and after, and with an adapter for each kind of module that is large there alone. Not
covered: a wrong scale, which is measured as it is served; the merged model then answers otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Frozen
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.time_math import answering_seconds

SAME_NATS = 0.02
"""Mean difference of a token's log probability within which two scorings are of one model: the rounding of bf16 kernels
that compute in another order. A changed answer needs tenths of nats."""
MOVED_NATS = 0.05
"""The least that an adapter as large as its layers' inputs moves, on average; it moves whole nats."""
TEXT_TOKENS = 96
"""Of the text, the last so many tokens at most: enough to average over; each is scored nine times."""
PROOF = "prove the adapter on a text: every kind of module counts, and the base stays as it was"
_READINGS = 9
"""Of the text: by the base twice, and one for each projection of a dense layer."""

Scores = Sequence[float]
"""Log probabilities of the tokens of a text, one after the other."""


class Liveness(Frozen):
    """What the proof measured: mean differences of log probabilities, in nats a token."""

    tokens: int
    base_afterwards: float
    """Of the base, once adapters have answered, against itself before."""
    kinds: Mapping[str, float]
    """Kind of adapted module → how far an adapter that is large there alone moves the base."""

    @property
    def fault(self) -> str:
        """Why answers with this adapter on this server must not be compared; empty where nothing speaks against it."""
        if not self.base_afterwards <= SAME_NATS:
            return f"the base answers otherwise after adapters have: by {self.base_afterwards:.3f} nats a token"
        if dead := [kind for kind, moved in self.kinds.items() if not moved >= MOVED_NATS]:
            return f"adapters of {', '.join(dead)} are dropped: a large one moves nothing"
        return ""

    @property
    def summary(self) -> str:
        """One sentence for a log and a report."""
        return (
            f"moved, in nats a token over {self.tokens} tokens: the base after adapters {self.base_afterwards:.4f}, a "
            f"large adapter {min(self.kinds.values()):.2f} at least over {len(self.kinds)} kinds of module"
        )


def apart(one: Scores, other: Scores) -> float:
    """Mean difference of two scorings of the same text; infinite where one holds anything but numbers."""
    if len(one) != len(other) or not one:
        return math.inf
    mean = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)
    return mean if math.isfinite(mean) else math.inf


def proof_seconds(facts: Facts, served: Artifact) -> Seconds:
    """What the proof adds to the price of an adapter's evaluation."""
    return answering_seconds(
        shape_of(served.known_config, served.count("parameters")),
        served.bytes,
        facts.serving_rates,
        answers=_READINGS,
        answer_tokens=1,
        prompt_tokens=TEXT_TOKENS,
        at_once=1,
        on_card=facts.serves_on_gpu,
    )
