"""train: teach the behaviour to a small low-rank adapter (LoRA, or QLoRA at 4 bits); the base stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from pydantic import Field

from tunesmith.memory.records import Artifact
from tunesmith.tools.core.auto import OPEN, AutoFloat, AutoInt, AutoWeight, is_open
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.format import duration
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import Facts, Plan, Result, Stage, expected, pinned
from tunesmith.tools.data.undecided import ALL_CHECKED, Unverified, UnverifiedRows, unverified_of
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.decisions import BUSY_TOKENS, Decided, Typed, Work, decide
from tunesmith.tools.models.measuring import refuse_quantized
from tunesmith.tools.models.time_math import LAB_START_S, training_seconds
from tunesmith.tools.serving.context_settings import context_settings_of
from tunesmith.tools.training.choices import (
    TrainingMemory,
    check_micro_batch,
    checkpoint_steps,
    choose_cards,
    doubtful_rows,
    of_each,
    rehearsal_lines,
    row_limit,
    rows_read,
    shared_steps,
    steps_of,
    too_long,
    trained_rows,
)
from tunesmith.tools.training.defaults import Defaults, training_defaults
from tunesmith.tools.training.selection import Selection

CHEAP_S = 1800.0
"""Of training on a card, beside a plan's rows, cases and export, which take about as long."""
_MANY_STEPS = 1000
"""So that a start weighs nothing."""


class TrainRequest(TrainingMemory):
    """How to train. What is `auto` (0) is chosen by the model and the rows when the plan is made, with the reason."""

    lora_alpha: AutoInt = Field(default=0, ge=0)
    """Scale: the update is multiplied by alpha ÷ rank; auto: twice the rank."""
    learning_rate: AutoFloat = Field(default=0.0, ge=0, lt=1)
    """Of AdamW at its highest, after the warm-up; it falls to 0 by a cosine. auto: by the model."""
    # 100: more is a slip
    epochs: AutoFloat = Field(default=0.0, ge=0, le=100)
    """How often every row is trained on; auto: by the model and the rows."""
    # 16: more is a slip
    forms: AutoInt = Field(default=0, ge=0, le=16)
    """Forms, with other drawn values, of a row that has such in an epoch. auto: by the model."""
    max_steps: AutoInt = Field(default=0, ge=0)
    """Optimiser steps; auto: as many as the epochs need."""
    # 100: more is a slip
    rehearsal_weight: AutoWeight = Field(default=OPEN, le=100)
    """Weight of staying as the base is: of the mean divergence on rehearsal beside the mean loss; auto: by the
    model."""
    # 100: more is a slip
    value_weight: AutoWeight = Field(default=OPEN, le=100)
    """Weight of an answer's tokens that say its values, beside one of its frame; 1: all count alike. auto: by the
    rows."""
    max_kl: AutoWeight = OPEN
    """Most KL to the base, in nats a token of held-out rehearsal, of the checkpoint that is kept; 0: no bound. auto: by
    the model."""
    # one or two worse ones are noise
    patience: int = Field(default=3, ge=0)
    """Validations in a row without a better checkpoint that end training; 0: none do."""
    # AdamW's first steps know little of how gradients vary
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    save_steps: AutoInt = Field(default=0, ge=0)
    """Optimiser steps between checkpoints, which are validated; auto: by the rows."""
    seed: int = Field(default=17, ge=0, lt=1 << 32)
    """Of the order of rows and the adapter's first values."""
    few_rows: bool = False
    """Train although far fewer rows are left than were asked for."""
    unverified_rows: UnverifiedRows = False


class TrainResult(Result):
    """The adapter and how its training went."""

    artifact: str
    path: str
    steps: int
    epochs: float
    train_loss: float
    validation_loss_before: float | None
    """Cross-entropy on behaviour rows that were not trained on."""
    validation_loss: float | None
    validation_kl: float | None = None
    """KL to the base on rehearsal rows that were not trained on: 0 is the base itself."""
    best_step: int = 0
    """The step whose weights the adapter has: the last two figures are of it."""
    peak_vram_bytes: int = 0
    """Most that a card held of it, with what CUDA takes; 0 on a processor."""
    expected_vram_bytes: int = 0
    """What arithmetic says of that, without any margin; 0: it does not compare."""
    fallback: str = ""
    """How memory that ran out was answered; empty: it did not."""
    choice: str = ""
    """Why that step, in words; empty where no row was there to choose by."""
    trainable_parameters: int
    trained_tokens: int
    tokens_per_second: float
    bytes_per_parameter: dict[str, float] = Field(default_factory=dict)
    """As the base was loaded, by kind: dense, experts, router, embeddings, head."""


def expected_artifact(request: TrainRequest, artifacts: Mapping[str, Artifact]) -> Artifact:
    """An adapter, by the rank that a server has to have room for."""
    return expected("adapter", lora_rank=request.lora_rank)


def plan(request: TrainRequest, facts: Facts, context: Unverified | None = None) -> Plan:
    """Price the optimiser steps from the number of rows and their tokens."""
    unverified = context or ALL_CHECKED
    base, dataset = facts.need("base", "base"), facts.need("dataset", "critique")
    request, decided, reasons = settled(request, facts, base, dataset)
    cards, peak = request.cards, decided.needed_bytes
    steps = request.max_steps or steps_of(dataset, request.epochs, request.forms, request.batch_size)
    if not request.save_steps:
        every, reasons["save_steps"] = checkpoint_steps(dataset, steps, request.batch_size)
        request = request.model_copy(update={"save_steps": every})
    context_settings, on_gpu = context_settings_of(facts.artifacts).thoughts, facts.trains_on_gpu
    price = estimate(
        "train", facts, seconds=_seconds(request, facts, base, dataset, steps), rates=facts.training_rates,
        ram_bytes=0 if on_gpu else cards * peak, vram_bytes=peak if on_gpu else 0, cards=cards,
        # Five checkpoints, of fp32 and two moments; a rank takes about a thousandth of the weights.
        disk_bytes=5 * 12 * request.lora_rank * base.count("parameters") // 1000,
    )  # fmt: skip
    bits = "4-bit NF4" if request.load_in_4bit else request.precision
    doubts, questions = doubtful_rows(dataset, unverified, few=request.few_rows, unchecked=request.unverified_rows)
    return Plan(
        stage="train",
        run=facts.run,
        arm="adapter",
        summary=f"train a rank-{request.lora_rank} LoRA adapter on {dataset.meta['train_rows']} rows",
        steps=(
            "verify the base against its manifest",
            *context_settings.steps,
            f"{steps} optimiser steps of {request.batch_size} rows over the frozen {bits} base, learning rate "
            f"{request.learning_rate:g}",
            *shared_steps(cards, request.batch_size, on_card=on_gpu),
            *_smaller_parts(request, facts, base, dataset, steps),
            *rehearsal_lines(dataset, request.batch_size),
            Selection(request.max_kl, request.patience).rule(request.save_steps),
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, dataset=dataset),
        pins=context_settings.pins,
        estimate=price,
        writes=("an adapter of a few MB",),
        replaces=("the adapter of this run",) if "adapter" in facts.artifacts else (),
        reasons=reasons,
        questions=questions,
        notes=unverified.notes(accepted=request.unverified_rows),
        refusals=doubts
        + too_long(request.max_seq_len_tokens, base, dataset)
        + (room(price, facts, remedy="a smaller base", fitting=decided.fitting) or decided.refusals),
        fitting=decided.fitting,
    )


def _seconds(request: TrainRequest, facts: Facts, base: Artifact, dataset: Artifact, steps: int) -> Seconds:
    """Of so many steps. Cards share their rows; processes on one processor have its cores all the same."""
    per_row, rows = dataset.count("tokens_per_row"), request.batch_size // request.cards
    trained = training_seconds(
        base.config,
        facts.training_rates,
        tokens=float(steps * (rows if facts.trains_on_gpu else request.batch_size) * per_row),
        micro_steps=steps * rows // (request.micro_batch or rows),
        on_card=facts.trains_on_gpu,
        read_tokens=rows_read(dataset, math.ceil(steps / request.save_steps)) * per_row,
        checkpointing=request.activation_checkpointing == "on",
        load_in_4bit=bool(request.load_in_4bit),
        precision=request.precision,
    )
    return trained + Seconds(LAB_START_S if request.cards > 1 or facts.trains_on_gpu else 0.0)


def _cheap_views(request: TrainRequest, facts: Facts, base: Artifact, dataset: Artifact, batch_size: int) -> int:
    """Rows that a card trains on in `CHEAP_S`, repeats counted, as it was decided; 0 on a processor."""
    if not facts.trains_on_gpu:
        return 0
    way = request.model_copy(update={"batch_size": batch_size, "save_steps": _MANY_STEPS})
    some, more = (_seconds(way, facts, base, dataset, times * _MANY_STEPS).total for times in (1, 2))
    return int(CHEAP_S * batch_size * _MANY_STEPS / (more - some))


def _smaller_parts(
    request: TrainRequest, facts: Facts, base: Artifact, dataset: Artifact, steps: int
) -> tuple[str, ...]:
    """What is done where memory runs out, and how much longer that takes at most."""
    if (request.micro_batch or request.batch_size // request.cards) == 1:
        return ()
    one = request.model_copy(update={"micro_batch": 1})
    least, most = (_seconds(way, facts, base, dataset, steps).total for way in (request, one))
    more = duration(max(0.0, most - least))
    line = "where memory runs out, go on from the newest checkpoint with fewer rows at once"
    return (f"{line}, 1 at the least: up to {more} longer",)


def settled(
    request: TrainRequest, facts: Facts, base: Artifact, dataset: Artifact
) -> tuple[TrainRequest, Decided, dict[str, str]]:
    """The request with every open field decided that bears on its memory or what is learned, the way to compute it,
    and why each of these has its value."""
    refuse_quantized(base)
    work = _work(request, base, dataset, on_cpu=not facts.trains_on_gpu)
    typed = Typed(request.micro_batch, request.activation_checkpointing, request.precision, request.load_in_4bit)
    check_micro_batch(request.micro_batch, work.batch_size)
    decided = decide(base, of_each(facts, 1), work, typed)
    cards, why_cards = _cards(request.cards, facts, work, decided)
    if cards > 1:
        work = replace(work, batch_size=work.batch_size // cards)
        check_micro_batch(request.micro_batch, work.batch_size)
        decided = decide(base, of_each(facts, cards), work, typed)
    limit, why_limit = row_limit(base, dataset)
    values: dict[str, object] = {"cards": cards, "max_seq_len_tokens": request.max_seq_len_tokens or limit}
    why = {"cards": why_cards, "max_seq_len_tokens": "" if request.max_seq_len_tokens else why_limit}
    for one in decided.decisions:
        if one.value != work.batch_size or one.setting != "micro_batch":  # all of them need no number
            values[one.setting], why[one.setting] = one.value, one.why
    request = request.model_copy(update=values)
    request, reasons = resolved(
        request, base, dataset, cheap_views=_cheap_views(request, facts, base, dataset, work.batch_size * cards)
    )
    return request, decided, {name: reason for name, reason in {**reasons, **why}.items() if reason}


def _cards(asked: int, facts: Facts, work: Work, alone: Decided) -> tuple[int, str]:
    """How many cards share the rows. Each has to have room for the thriftiest way to compute one of them, and as many
    as keep it busy, or as it could compute at once anyway."""
    busy = min(alone.way.rows_at_once, math.ceil(BUSY_TOKENS / work.row_tokens(1)))
    room_on = facts.machine.vram_room_on
    return choose_cards(asked, facts, work.batch_size, busy, lambda cards: alone.least_bytes <= room_on(cards))


def resolved(
    request: TrainRequest, base: Artifact, dataset: Artifact, *, cheap_views: int = 0
) -> tuple[TrainRequest, Mapping[str, str]]:
    """The request with every open field decided, and why each of these has its value."""
    defaults = _defaults(
        request, base.config, dataset, load_in_4bit=bool(request.load_in_4bit), cheap_views=cheap_views
    )
    fields = TrainRequest.model_fields
    chosen = {name: value for name, value in defaults.values.items() if is_open(fields[name], getattr(request, name))}
    if not dataset.meta.get("varied_rows"):
        chosen.pop("forms", None)  # no row has other forms
    if request.lora_rank and "lora_alpha" in chosen:
        chosen["lora_alpha"] = 2 * request.lora_rank
    silent = () if dataset.meta.get("valued_rows") else ("value_weight",)
    reasons = {name: why for name, why in defaults.reasons.items() if name in chosen and name not in silent}
    return request.model_copy(update=chosen), reasons


def training_bytes(request: TrainingMemory, base: Artifact, dataset: Artifact, *, on_cpu: bool) -> int:
    """Peak memory of training as it was decided, on a GPU or a processor."""
    rows, again = request.micro_batch or request.batch_size // (request.cards or 1), request.activation_checkpointing
    work, four = _work(tried_by(request), base, dataset, on_cpu=on_cpu), bool(request.load_in_4bit)
    way = work.way(base.config, rows, request.precision, four=four, checkpointing=again == "on")
    return way.peak_bytes(base.config)


def tried_by(request: TrainingMemory) -> TrainRequest:
    """The training that has the same settings, and else what is usual."""
    return TrainRequest.model_validate(request.model_dump(include={*TrainingMemory.model_fields}))


def _defaults(
    request: TrainRequest,
    config: Mapping[str, object],
    dataset: Artifact,
    *,
    load_in_4bit: bool = False,
    cheap_views: int = 0,
) -> Defaults:
    return training_defaults(
        config,
        rows=trained_rows(dataset),
        tokens_per_row=dataset.count("tokens_per_row"),
        batch_size=request.batch_size,
        epochs=request.epochs,
        max_steps=request.max_steps,
        load_in_4bit=load_in_4bit,
        valued_rows=dataset.count("valued_rows", 0),
        cheap_views=cheap_views,
    )


def _work(request: TrainRequest, base: Artifact, dataset: Artifact, *, on_cpu: bool) -> Work:
    """What is computed: a row counts at twice the usual length, or at the longest that is allowed.

    So many tokens are computed at once at most (`tokens_at_once`), but for a row that alone is longer.
    """
    rows = int(_defaults(request, base.config, dataset).values["batch_size"])
    limit = request.max_seq_len_tokens or row_limit(base, dataset)[0]
    usual = min(limit, 2 * dataset.count("tokens_per_row"))

    def rank(config: Mapping[str, object], four: bool) -> int:
        return request.lora_rank or int(_defaults(request, config, dataset, load_in_4bit=four).values["lora_rank"])

    longest = min(limit, dataset.count("longest_row_tokens", usual))
    return Work(rows, usual, longest, rank, fused=not request.lora_dropout, on_cpu=on_cpu)


STAGE = Stage(
    "train", TrainRequest, TrainResult, plan,
    lambda request, inputs: unverified_of(inputs.store, inputs.existing("dataset")),
    expected_artifact,
    settable=("lora_rank", "learning_rate", "epochs"),
    meant_by=(
        "seed", "max_seq_len_tokens", "lora_rank", "lora_dropout", "batch_size", "precision", "load_in_4bit",
    ),
    env=TORCH_ENV,
    spends=True,
    lasting=("precision", "load_in_4bit", "max_seq_len_tokens", "micro_batch", "learning_rate", "epochs", "lora_rank"),
    headline=(
        "steps", "train_loss", "validation_loss_before", "validation_loss", "choice", "trained_tokens",
        "tokens_per_second", "trainable_parameters",
    ),
)  # fmt: skip
