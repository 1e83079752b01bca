"""train: teach the behaviour to a small low-rank adapter (LoRA, or QLoRA at 4 bits); the base stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.auto import OPEN, AutoFloat, AutoInt, AutoWeight, is_open
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import GIB, Facts, Fitting, Plan, Result, Stage, expected, pinned
from tunesmith.tools.data.undecided import ALL_CHECKED, Unverified, UnverifiedRows, unverified_of
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.fitting import Training, training_that_fits
from tunesmith.tools.models.measuring import is_measured_at_four, refuse_quantized
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import LAB_START_S, training_seconds
from tunesmith.tools.serving.context_settings import context_settings_of
from tunesmith.tools.training.choices import (
    BUSY_TOKENS,
    Attempt,
    Checkpointing,
    In4Bit,
    Precision,
    SeqLen,
    check_micro_batch,
    checkpoint_steps,
    choose_cards,
    doubtful_rows,
    faster_precision,
    of_each,
    rehearsal_lines,
    row_limit,
    rows_read,
    shared_steps,
    steps_of,
    too_long,
)
from tunesmith.tools.training.defaults import training_defaults
from tunesmith.tools.training.selection import Selection


class TrainRequest(PlacedRequest):
    """How to train. What is `auto` (0) is chosen by the model and the rows when the plan is made, with the reason."""

    lora_rank: AutoInt = Field(default=0, ge=0, le=256)
    """Rank of the adapter's two factors; auto: by the rows."""
    lora_alpha: AutoInt = Field(default=0, ge=0)
    """Scale: the update is multiplied by alpha ÷ rank; auto: twice the rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is left out at random; 0 is fastest."""
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
    batch_size: AutoInt = Field(default=0, ge=0)
    """Rows per optimiser step; auto: by the model and the number of rows."""
    micro_batch: AutoInt = Field(default=0, ge=0)
    """Rows in memory at once, a part of batch_size; auto: as many as fit."""
    # 64: more than a machine holds
    cards: AutoInt = Field(default=0, ge=0, le=64)
    """That share each step's rows, a process each; auto: as many as are kept busy."""
    max_seq_len_tokens: SeqLen = 0
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
    precision: Precision = "auto"
    load_in_4bit: In4Bit = None
    activation_checkpointing: Checkpointing = "auto"
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
    request = request.model_copy(update={"load_in_4bit": bool(request.load_in_4bit)})
    request, reasons = resolved(request, base, dataset)
    check_micro_batch(request.micro_batch, request.batch_size)
    cards, why_cards = _cards(request, facts, base, dataset)
    rows, each = request.batch_size // cards, of_each(facts, cards)
    check_micro_batch(request.micro_batch, rows)
    steps = request.max_steps or steps_of(dataset, request.epochs, request.forms, request.batch_size)
    decided, why = decide_micro_batches(request.model_copy(update={"batch_size": rows}), each, base, dataset)
    decided["cards"], why["cards"] = cards, why_cards
    if not request.save_steps:
        decided["save_steps"], why["save_steps"] = checkpoint_steps(dataset, steps, request.batch_size)
    request = request.model_copy(update=decided)
    at_once = request.micro_batch or rows
    peak = training_bytes(request, base, dataset, batch_size=at_once, on_cpu=not facts.trains_on_gpu)
    fitting = fitting_settings(request, each, base, dataset, batch_size=at_once)
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
            *rehearsal_lines(dataset, request.batch_size),
            Selection(request.max_kl, request.patience).rule(request.save_steps),
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, dataset=dataset),
        pins=context_settings.pins,
        estimate=price,
        writes=("an adapter of a few MB",),
        replaces=("the adapter of this run",) if "adapter" in facts.artifacts else (),
        reasons={name: reason for name, reason in {**reasons, **why}.items() if reason},
        questions=questions,
        notes=unverified.notes(accepted=request.unverified_rows),
        refusals=doubts
        + too_long(request.max_seq_len_tokens, base, dataset)
        + room(price, facts, remedy="a smaller base", fitting=fitting)
        or not_served(request, facts, base),
        fitting=fitting,
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
        load_in_4bit=request.load_in_4bit,
        precision=request.precision,
    )
    return trained + Seconds(LAB_START_S if request.cards > 1 else 0.0)


def _cards(request: TrainRequest, facts: Facts, base: Artifact, dataset: Artifact) -> tuple[int, str]:
    """How many cards share the rows. Each has to have room for the thriftiest way to compute one of them, and as many
    as keep it busy, or as it could compute at once anyway."""
    way = replace(workload(request, base, dataset, batch_size=1), checkpointing=True)
    needed = way.peak_bytes(base.config)
    alone, _ = decide_micro_batches(request, of_each(facts, 1), base, dataset)
    at_once = int(str(alone.get("micro_batch", request.micro_batch or request.batch_size)))
    busy = min(at_once, math.ceil(BUSY_TOKENS / way.longest_row_tokens))
    fits = facts.machine.vram_free_on
    return choose_cards(request.cards, facts, request.batch_size, busy, lambda cards: needed <= fits(cards))


def resolved(request: TrainRequest, base: Artifact, dataset: Artifact) -> tuple[TrainRequest, Mapping[str, str]]:
    """The request with every open field decided, and why each of these has its value."""
    defaults = training_defaults(
        base.config,
        rows=dataset.count("train_rows"),
        tokens_per_row=dataset.count("tokens_per_row"),
        batch_size=request.batch_size,
        epochs=request.epochs,
        max_steps=request.max_steps,
        load_in_4bit=request.load_in_4bit,
        valued_rows=dataset.count("valued_rows", 0),
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


def rank_of(request: Attempt, base: Artifact, dataset: Artifact) -> int:
    """The rank that a training would choose for this data set."""
    return resolved(TrainRequest(load_in_4bit=request.load_in_4bit), base, dataset)[0].lora_rank


def decide_micro_batches(
    request: Attempt, facts: Facts, base: Artifact, dataset: Artifact
) -> tuple[dict[str, object], dict[str, str]]:
    """What a request leaves open of its memory: row length, precision, rows at once, activations computed again or not.

    The fastest way that fits into what is free: all rows, all activations kept; then fewer rows, as long as these keep
    the device busy; then activations computed again, with as many rows as fit. Where nothing fits, all rows so. Of two
    precisions the faster is tried first.
    """
    refuse_quantized(base)
    free = facts.training_free_bytes
    packed_experts = request.load_in_4bit and ModelShape.of(base.config).experts > 0
    if packed_experts and request.activation_checkpointing == "off":
        raise BadInput(
            "train: a mixture at 4 bits needs activation_checkpointing: every layer's experts would else be kept at 16 "
            "bits for the backward pass; leave it at auto"
        )
    precision, faster = faster_precision(facts) if request.precision == "auto" else (request.precision, "")

    def needs(rows: int, checkpointing: str) -> int:
        asked = workload(request, base, dataset, batch_size=rows, on_cpu=not facts.trains_on_gpu)
        way = replace(asked, checkpointing=checkpointing == "on", precision=precision)
        return way.peak_bytes(base.config)

    open_ = request.activation_checkpointing == "auto"
    modes = ("off", "on") if open_ and not packed_experts else ("on",) if open_ else (request.activation_checkpointing,)
    sizes = [rows for rows in range(request.batch_size, 0, -1) if request.batch_size % rows == 0]
    sizes = [request.micro_batch] if request.micro_batch else sizes
    if precision == "fp32" and faster and needs(sizes[-1], modes[-1]) > free:
        precision, faster = "bf16", f"{faster}, and fp32 does not fit into {free / GIB:.1f} GiB"
    longest = workload(request, base, dataset, batch_size=1).longest_row_tokens
    ways = [
        (rows, mode)
        for mode in modes
        for rows in sizes
        if mode == "on" or not open_ or rows == sizes[0] or rows * longest >= BUSY_TOKENS
    ]
    rows, mode = next((way for way in ways if needs(*way) <= free), (sizes[0], modes[-1]))
    note = f"training needs {needs(sizes[0], 'off') / GIB:.1f} GiB with all activations kept, {free / GIB:.1f} are free"
    if packed_experts:
        note = "experts at 4 bits are unpacked a layer at a time, and kept activations would keep them all"
    decided: dict[str, object] = {"activation_checkpointing": mode} if open_ else {}
    why = {"activation_checkpointing": note} if open_ else {}
    if request.precision == "auto":
        decided["precision"] = precision
        why |= {"precision": faster} if faster else {}
    if not request.max_seq_len_tokens:
        decided["max_seq_len_tokens"], why["max_seq_len_tokens"] = row_limit(base, dataset)
    if rows < sizes[0]:
        decided["micro_batch"] = rows
        why["micro_batch"] = f"{note}; {rows} rows at once need {needs(rows, mode) / GIB:.1f} GiB"
    return decided, why


def fitting_settings(
    request: Attempt,
    facts: Facts,
    base: Artifact,
    dataset: Artifact,
    *,
    batch_size: int,
    fewer: Callable[[int], str] = "micro_batch={}".format,
    fewest: int = 1,
) -> tuple[Fitting, ...]:
    """Where training so does not fit into what is free: settings with which it would, best first; else nothing.

    `fewer` types so many rows at once, of which there are at least `fewest`.
    """
    asked = workload(request, base, dataset, batch_size=batch_size, on_cpu=not facts.trains_on_gpu)
    config = base.config
    if asked.peak_bytes(config) <= facts.training_free_bytes:
        return ()
    return training_that_fits(asked, config, facts.training_free_bytes, fewer=fewer, fewest=fewest)


def not_served(request: Attempt, facts: Facts, base: Artifact) -> tuple[str, ...]:
    """Why an adapter that is trained so would not be taken by the server that the run is measured on; else nothing."""
    adapts_experts = ModelShape.of(base.config).experts > 0 and not request.load_in_4bit
    if not adapts_experts or not is_measured_at_four(base, facts):
        return ()
    return (
        "trains the experts of a mixture that is measured at 4 bits, where a server takes adapters of attention alone; "
        "try load_in_4bit=true, or fetch the base with measuring=16",
    )


def training_bytes(
    request: Attempt, base: Artifact, dataset: Artifact, *, batch_size: int, on_cpu: bool = False
) -> int:
    """Peak memory of training so, on a GPU or a processor."""
    asked = workload(request, base, dataset, batch_size=batch_size, on_cpu=on_cpu)
    return asked.peak_bytes(base.config)


def workload(request: Attempt, base: Artifact, dataset: Artifact, *, batch_size: int, on_cpu: bool = False) -> Training:
    """What the memory depends on; a row counts at twice the usual length, or at the longest that is allowed.

    So many tokens are computed at once at most (`tokens_at_once`), but for a row that alone is longer.
    """
    limit = request.max_seq_len_tokens or row_limit(base, dataset)[0]
    usual = min(limit, 2 * dataset.count("tokens_per_row"))
    longest = min(limit, dataset.count("longest_row_tokens", usual))
    return Training(
        rows_at_once=batch_size,
        longest_row_tokens=max(usual, math.ceil(longest / batch_size)),
        lora_rank=request.lora_rank or rank_of(request, base, dataset),
        precision=request.precision,
        load_in_4bit=request.load_in_4bit,
        checkpointing=request.activation_checkpointing == "on",
        fused=not (isinstance(request, TrainRequest) and request.lora_dropout),
        on_cpu=on_cpu,
    )


STAGE = Stage(
    "train", TrainRequest, TrainResult, plan,
    lambda request, inputs: unverified_of(inputs.store, inputs.existing("dataset")),
    expected_artifact,
    settable=("lora_rank", "learning_rate", "epochs"),
    meant_by=("seed", "max_seq_len_tokens", "lora_rank", "precision", "load_in_4bit"),
    env=TORCH_ENV,
    spends=True,
    lasting=("precision", "load_in_4bit", "max_seq_len_tokens", "micro_batch", "learning_rate", "epochs", "lora_rank"),
    headline=(
        "steps", "train_loss", "validation_loss_before", "validation_loss", "choice", "trained_tokens",
        "tokens_per_second", "trainable_parameters",
    ),
)  # fmt: skip
