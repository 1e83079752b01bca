"""Fields that training and preflight share, what a request leaves open that the data set, the base and the processor
decide (row length and precision), and what of the data set is not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_float
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.auto import AutoBool, AutoInt
from tunesmith.tools.core.machine import chosen_gpus
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.stage import Facts, PlanQuestion
from tunesmith.tools.data.undecided import Unverified
from tunesmith.tools.models.fitting import CPU_TOKENS
from tunesmith.tools.serving.context_settings import positions_of
from tunesmith.tools.training.defaults import rehearsal_wanted

USUAL_TOKENS = 512
"""Of the longest row, where no record says; rows of behaviours mostly have some hundred."""
VALIDATION_ROWS = 32
"""Of each kind: enough to choose a checkpoint by; the suites are what decides."""
_STEPS_LEAST, _CHECKPOINTS_LEAST = 10, 4
"""Between two checkpoints, and of a training: each is written whole, and measured; of fewer than four there is little
to choose."""
_MULTIPLE, _SLACK = 64, 16
"""What a limit is rounded up to, and what a template may add where the model is told to answer without a thought."""

_ENOUGH = 0.8
"""Of the rows that were asked for, so many are trained on without a word; of fewer it is asked, as something may be
wrong with them."""
_ROWS_MOST = 100_000
"""What `generate` takes: more is never proposed."""


Stops = tuple[tuple[str, ...], tuple[PlanQuestion, ...]]
"""Refusals, and the questions instead of them; both are empty where nothing stands against a training."""


def doubtful_rows(dataset: Artifact, unverified: Unverified, *, few: bool, unchecked: bool) -> Stops:
    """What of the rows a person has to agree to before they are trained on, unless that was done (`few`, `unchecked`):
    that nothing has checked them, or that far fewer are left than were asked for."""
    doubts = (unverified.stop(accepted=unchecked), few_rows(dataset, accepted=few))
    return sum((refusals for refusals, _ in doubts), ()), sum((questions for _, questions in doubts), ())


def few_rows(dataset: Artifact, *, accepted: bool) -> Stops:
    """Where far fewer rows of the behaviour are left than were asked for."""
    asked, left = dataset.count("asked_rows", 0), dataset.count("own_rows", 0)
    if accepted or left >= _ENOUGH * asked:
        return (), ()
    more = min(_ROWS_MOST, math.ceil(asked * asked / max(1, left)))
    shortage = (
        f"{left} of the {asked} rows that were asked for are left to train on; `tunesmith generate --rows {more}` and "
        "then `tunesmith critique` would make up for the others"
    )
    question = PlanQuestion(
        text=f"{shortage}: train on those that are left?", yes={"few_rows": True}, needs_person=True
    )
    return (f"{shortage}, or train on those that are left with few_rows=true",), (question,)


def choose_cards(
    asked: int, facts: Facts, batch_size: int, busy_rows: int, fits: Callable[[int], bool]
) -> tuple[int, str]:
    """How many cards share a step's rows, evenly, a process each; and the reason, where it was left open.

    As many of one kind as each have room (`fits`) and `busy_rows`; one on a processor, whose cores are the same however
    many processes share them. Raises BadInput for a number that cannot be.
    """
    if asked and batch_size % asked:
        raise BadInput(
            f"train: cards={asked} do not share batch_size={batch_size} evenly; try cards={math.gcd(asked, batch_size)}"
        )
    gpus = facts.machine.gpus if facts.trains_on_gpu else ()
    if asked:
        if gpus and asked > len(gpus):
            raise BadInput(f"train: cards={asked}, and {len(gpus)} are here; try cards={len(gpus)}, or leave it out")
        return asked, ""
    for cards in range(min(len(gpus), batch_size), 1, -1):
        rows, alike = batch_size // cards, len({gpu.name for gpu in chosen_gpus(gpus, cards)}) == 1
        # Of unlike cards the fast ones would wait for the slow one in every step.
        if alike and batch_size % cards == 0 and rows >= busy_rows and fits(cards):
            return cards, f"{cards} cards of one kind have room, and {rows} of a step's rows keep each of them busy"
    return 1, ""


def of_each(facts: Facts, cards: int) -> Facts:
    """What one of so many cards has, or of so many processes that share a processor."""
    machine = facts.machine
    if facts.trains_on_gpu:
        largest = sorted(machine.gpus, key=lambda gpu: -gpu.total_bytes)[:cards]
        return replace(facts, machine=replace(machine, gpus=tuple(largest[-1:])))
    total, swap = machine.ram_total_bytes // cards, machine.swap_free_bytes // cards
    return replace(facts, machine=replace(machine, ram_total_bytes=total, swap_free_bytes=swap))


def shared_steps(cards: int, batch_size: int, *, on_card: bool) -> tuple[str, ...]:
    """What a plan says of a training on several cards."""
    if cards == 1:
        return ()
    over = f"{cards} cards, NCCL between them" if on_card else f"{cards} processes on the same cores, gloo between them"
    return (f"each step's rows are shared by {over}: {batch_size // cards} rows each, over a copy of the base each",)


def check_micro_batch(micro_batch: int, batch_size: int) -> None:
    """Raise BadInput where the rows in memory at once do not divide those of a step."""
    if batch_size % (micro_batch or batch_size):
        raise BadInput(
            f"train: micro_batch={micro_batch} is no part of batch_size={batch_size}; try micro_batch="
            f"{math.gcd(micro_batch, batch_size)}"
        )


def _a_row(value: int) -> int:
    if 0 < value < _FEWEST_TOKENS:
        raise ValueError(f"a row has {_FEWEST_TOKENS} tokens at least")
    return value


_FEWEST_TOKENS = 16
"""Fewer do not hold a chat template's marks and a word: such a limit is a slip."""


class TrainingMemory(PlacedRequest):
    """What of a training its memory depends on: `preflight` tries it, `train` keeps it."""

    lora_rank: AutoInt = Field(default=0, ge=0, le=256)
    """Rank of the adapter's two factors; auto: by the rows."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is left out at random; 0 is fastest."""
    batch_size: AutoInt = Field(default=0, ge=0)
    """Rows per optimiser step; auto: by the model and the number of rows."""
    micro_batch: AutoInt = Field(default=0, ge=0)
    """Rows in memory at once, a part of batch_size; auto: as many as fit."""
    # 64: more than a machine holds
    cards: AutoInt = Field(default=0, ge=0, le=64)
    """That share each step's rows, a process each; auto: as many as are kept busy."""
    max_seq_len_tokens: Annotated[AutoInt, AfterValidator(_a_row)] = Field(default=0, ge=0)
    """Tokens of the longest row that is trained on whole; auto: of the data set's longest."""
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        BeforeValidator(lambda value: {"bfloat16": "bf16", "float32": "fp32"}.get(str(value), value)),
    ] = "auto"
    """Of the frozen base's arithmetic. auto: bf16; fp32 on a processor that multiplies it faster, where it fits."""
    load_in_4bit: AutoBool = None
    """Hold the frozen base as NF4, double-quantized (QLoRA). auto: where 16 bits do not fit or are not served."""
    activation_checkpointing: Annotated[
        Literal["auto", "on", "off"],
        BeforeValidator(lambda value: {"true": "on", "false": "off"}.get(str(value).lower(), value)),
    ] = "auto"
    """Keep only each layer's input and compute the rest again in the backward pass: a third slower, a fraction of the
    activations. auto: where memory asks for it."""


def row_limit(base: Artifact, dataset: Artifact) -> tuple[int, str]:
    """Tokens of the longest row that is trained on, rounded up, within what the base takes; and the reason."""
    longest, most = dataset.count("longest_row_tokens", 0), positions_of(base.config) or math.inf
    if not longest:
        return int(min(USUAL_TOKENS, most)), "the data set has no record of its longest row"
    limit = int(min(_MULTIPLE * math.ceil((longest + _SLACK) / _MULTIPLE), most))
    return limit, f"the data set's longest row has {longest:,} tokens"


def too_long(limit: int, base: Artifact, dataset: Artifact) -> tuple[str, ...]:
    """The refusal of rows that would lose their end: they are longer than `limit`, or than what the base takes."""
    longest, most = dataset.count("longest_row_tokens", 0), positions_of(base.config)
    if longest <= limit:
        return ()
    problem, ways = f"the data set's longest row has {longest:,} tokens", "shorten or drop the rows that are longer"
    if most and longest > most:
        return (f"{problem}, and the base takes {most:,}; {ways}",)
    return (
        f"{problem}, and max_seq_len_tokens={limit}; try max_seq_len_tokens={row_limit(base, dataset)[0]}, or {ways}",
    )


def steps_of(dataset: Artifact, epochs: float, variants_per_epoch: int, batch_size: int) -> int:
    """Optimiser steps of so many epochs; in each of several, a row with variants is seen in `variants_per_epoch`."""
    again = (max(variants_per_epoch, 1) - 1) * dataset.count("varied_rows", 0) if epochs > 1 else 0
    return max(1, round(epochs * (trained_rows(dataset) + again) / batch_size))


def trained_rows(dataset: Artifact) -> int:
    """Rows of an epoch: the turns, where each is learned with a prompt of its own."""
    return dataset.count("train_turns", dataset.count("train_rows"))


def _validation_rows(dataset: Artifact) -> int:
    """Of both kinds; where no record says, a tenth of all rows, as critique splits them: a ninth of the rest."""
    # 9: a tenth of all is a ninth of the rest.
    return min(dataset.count("valid_rows", dataset.count("train_rows") // 9), 2 * VALIDATION_ROWS)


def checkpoint_steps(dataset: Artifact, steps: int, batch_size: int) -> tuple[int, str]:
    """Steps between two checkpoints, each of which is validated, and the reason.

    A row that is validated takes a third of one that is trained on, so that validation takes a ninth of the training;
    more where a training is so short that it would have less than four.
    """
    rows = _validation_rows(dataset)
    # 3: so that validating takes a ninth of the training.
    every = max(_STEPS_LEAST, math.ceil(3 * rows / batch_size))
    every = max(1, min(every, math.ceil(steps / _CHECKPOINTS_LEAST)))
    return every, f"{rows} rows validate {math.ceil(steps / every)} checkpoints of {steps} steps"


def rows_read(dataset: Artifact, checkpoints: int) -> float:
    """Rows that are computed and not trained on: rehearsal by the base once; validation by the base, before, and at
    every checkpoint."""
    # 0.3: as generate makes them, 180 for 600.
    rehearsal = as_float(dataset.meta.get("held_rows", 0.3 * dataset.count("train_rows")))
    return rehearsal + _validation_rows(dataset) * (2 + checkpoints)


def rehearsal_lines(dataset: Artifact, batch_size: int) -> tuple[str, ...]:
    """How much of a training holds the model to its base, and what would be enough; nothing where it is not known."""
    if dataset.meta.get("held_rows") is None:
        return ()
    rehearsal, rows = dataset.count("held_rows"), dataset.count("train_rows")
    wanted = rehearsal_wanted(rows - rehearsal, batch_size)
    line = f"{rehearsal} of the {rows} rows hold it to its base, {rehearsal / rows * batch_size:.1f} in a step"
    return (line if rehearsal >= wanted else f"{line}; {wanted} would put one into every step",)


def tokens_at_once(rows: int, tokens_per_row: float, max_seq_len_tokens: int, *, on_cpu: bool = False) -> int:
    """Tokens that are in memory at once: of `rows` rows, each at twice the usual length or the longest allowed.

    On a processor CPU_TOKENS at most. A batch is computed in parts of no more than this; a row that is longer is a part
    of its own.
    """
    tokens = math.ceil(rows * min(max_seq_len_tokens, 2 * tokens_per_row))
    return min(tokens, CPU_TOKENS) if on_cpu else tokens


def largest_part(rows: int) -> int:
    """The largest number of rows below `rows` that divides it, so that it divides the whole batch too."""
    return max(part for part in range(1, rows) if rows % part == 0)
