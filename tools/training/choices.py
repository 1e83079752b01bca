"""What a training request leaves open and the data set, the base and the processor decide: row length and precision."""

from __future__ import annotations

import math

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.stage import Facts, PlanQuestion
from tunesmith.tools.serving.bench import positions_of

USUAL_TOKENS = 512
"""Of the longest row, where no record says."""
_MULTIPLE, _SLACK = 64, 16
"""What a limit is rounded up to, and what a template may add where the model is told to answer without a thought."""

_ENOUGH = 0.8
"""Of the rows that were asked for, so many are trained on without a word."""
_ROWS_MOST = 100_000


def few_rows(dataset: Artifact, *, accepted: bool) -> tuple[tuple[str, ...], tuple[PlanQuestion, ...]]:
    """Where far fewer rows of the behaviour are left than were asked for: the refusal, and the question instead of it.

    Both are empty where there are enough, or it was `accepted`.
    """
    asked, left = int(dataset.meta.get("asked_rows", 0)), int(dataset.meta.get("own_rows", 0))
    if accepted or left >= _ENOUGH * asked:
        return (), ()
    more = min(_ROWS_MOST, math.ceil(asked * asked / max(1, left)))
    told = (
        f"{left} of the {asked} rows that were asked for are left to train on; `tunesmith generate --rows {more}` and "
        "then `tunesmith critique` would make up for the others"
    )
    question = PlanQuestion(text=f"{told}: train on those that are left?", yes={"few_rows": True})
    return (f"{told}, or train on those that are left with few_rows=true",), (question,)


def check_micro_batch(micro_batch: int, batch_size: int) -> None:
    """Raise BadInput where the rows in memory at once do not divide those of a step."""
    if batch_size % (micro_batch or batch_size):
        raise BadInput(
            f"train: micro_batch={micro_batch} is no part of batch_size={batch_size}; try micro_batch="
            f"{math.gcd(micro_batch, batch_size)}"
        )


def row_limit(base: Artifact, dataset: Artifact) -> tuple[int, str]:
    """Tokens of the longest row that is trained on, rounded up, within what the base takes; and the reason."""
    longest, most = int(dataset.meta.get("longest_row_tokens", 0)), positions_of(base.meta["config"]) or math.inf
    if not longest:
        return int(min(USUAL_TOKENS, most)), "the data set has no record of its longest row"
    limit = int(min(_MULTIPLE * math.ceil((longest + _SLACK) / _MULTIPLE), most))
    return limit, f"the data set's longest row has {longest:,} tokens"


def too_long(limit: int, base: Artifact, dataset: Artifact) -> tuple[str, ...]:
    """The refusal of rows that would lose their end: they are longer than `limit`, or than what the base takes."""
    longest, most = int(dataset.meta.get("longest_row_tokens", 0)), positions_of(base.meta["config"])
    if longest <= limit:
        return ()
    told, ways = f"the data set's longest row has {longest:,} tokens", "shorten or drop the rows that are longer"
    if most and longest > most:
        return (f"{told}, and the base takes {most:,}; {ways}",)
    return (f"{told}, and max_seq_len_tokens={limit}; try max_seq_len_tokens={row_limit(base, dataset)[0]}, or {ways}",)


def faster_precision(facts: Facts) -> tuple[str, str]:
    """bf16, or fp32 where a processor multiplies that faster, having no instructions for bf16; and the reason."""
    rates = facts.training_rates
    if facts.trains_on_gpu or rates.bf16_flops >= rates.fp32_flops:
        return "bf16", ""
    known = "was measured to multiply" if rates.measured else "has no instructions for bf16: it multiplies about"
    fp32, bf16 = (f"{flops / 1e9:,.0f} GFLOP/s" for flops in (rates.fp32_flops, rates.bf16_flops))
    return "fp32", f"this processor {known} {fp32} in fp32 and {bf16} in bf16"
