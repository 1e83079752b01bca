"""How likely an arm finds rows that nobody trained on: what is measured of it, and what that costs.

A served model is asked for the log probability of every token of rows that are there already; it writes nothing. Rows
of the behaviour tell what the adapter won, and what a model made from it kept; ordinary answers of the base tell how
far an arm has moved from it. `likelihood_job` measures, `likelihood_retained` compares.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Frozen
from tunesmith.tools.models.model_names import shape_of
from tunesmith.tools.models.time_math import answering_seconds

MOST_ROWS = 24
"""Of each kind: enough for an interval, seconds on a small model."""
TOP_TOKENS = 20
"""Next tokens whose probabilities a server tells; vLLM gives no more unless it is started for it."""
_LOGITS_BYTES = 400 << 20
_BYTES_A_LOGIT = 10
"""A server's own logits of a whole row at 16 bits, and two copies in float32."""
_MOST_ROW_TOKENS = 512
_USUAL_ROW_TOKENS = 160
_TOKENIZER_S = 3.0
_DIVERGING_FACTOR = 2.0
"""Of an ordinary row the likeliest tokens are sorted out of the whole vocabulary, which takes as long as reading it."""


class ArmLikelihood(Frozen):
    """What one arm made of rows that were not trained on; a figure a row, in the order of the rows."""

    rows_sha256: str
    """Of the tokens that were asked about: what two arms must share to be compared."""
    behaviour_tokens: tuple[int, ...]
    """Tokens of each answer in the behaviour's form."""
    behaviour_nll: tuple[float, ...]
    """Negative log-likelihood of each of these answers, in nats, summed over its tokens."""
    ordinary_tokens: tuple[int, ...] = ()
    """Tokens of each ordinary answer."""
    divergence: Mapping[str, tuple[float, ...]] = {}
    """Earlier arm → KL(earlier ‖ this one) over each ordinary answer in nats, summed: at least so much."""
    weights: str = ""
    """Sha256 of what was served: the adapter's of an adapter."""


def row_tokens(config: Mapping[str, object]) -> int:
    """Tokens that a row may have, so that a server's logits of all of them stay within 400 MiB."""
    text = config.get("text_config")
    vocabulary = (text if isinstance(text, Mapping) else config).get("vocab_size")
    entries = vocabulary if isinstance(vocabulary, int) and vocabulary > 0 else 150_000
    return min(_MOST_ROW_TOKENS, max(64, _LOGITS_BYTES // (_BYTES_A_LOGIT * entries)))


def likelihood_seconds(facts: Facts, served: Artifact, made: Artifact | None, beside_base: bool) -> Seconds:
    """To load the tokenizer and have every arm read the rows, on a server that answers; nothing where none was made."""
    if made is None:
        return Seconds()
    reading = answering_seconds(
        shape_of(served.meta.get("config", {}), int(served.meta["parameters"])),
        served.bytes,
        facts.serving_rates,
        answers=(1 + _DIVERGING_FACTOR) * MOST_ROWS * (1 + beside_base),
        answer_tokens=1,
        prompt_tokens=_USUAL_ROW_TOKENS,
        at_once=MOST_ROWS,
        on_card=facts.serves_on_gpu,
    )
    return Seconds(_TOKENIZER_S) + reading
