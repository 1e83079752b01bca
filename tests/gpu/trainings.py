"""Training on the device: its peak and the seconds of a step against their prices, and in exactly the priced memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tests.gpu.measures import let_go, make_model, make_rows, peak, rates_of
from tests.gpu.table import MODELS, SECONDS, Check
from tunesmith.memory.errors import StepFailed
from tunesmith.tools.core.machine import whole_bytes
from tunesmith.tools.core.rates import Rates
from tunesmith.tools.core.stage import GIB, Facts, expected
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.models.decisions import Decided, Typed, Work, decide
from tunesmith.tools.models.fitting import Training
from tunesmith.tools.models.measuring import MEASURED_AT, SIXTEEN
from tunesmith.tools.models.memory_math import CUDA_BYTES
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import loading_seconds, training_seconds
from tunesmith.tools.pipeline.fits import with_card
from tunesmith.tools.pipeline.gpu_check.card_job import context_bytes
from tunesmith.tools.pipeline.gpu_check.findings import Finding, compared, stated
from tunesmith.tools.training.apart_job import train_apart
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.train_job import ToTrain, train_lora

RANK = 16
PEAK = (0.85, 1.15)
"""Above it a plan would say that something fits which does not."""
LEAST_STEPS = 4
_WARM_UP_STEPS = 2


def plain(check: Check) -> Iterator[Finding]:
    """The bundled model's sizes at 16 bits, all activations kept."""
    return trained(check, "bf16", "dense", check.sizes.dense, usual_way(check))


def four_bit(check: Check) -> Iterator[Finding]:
    """The same over an NF4 base."""
    return trained(check, "NF4", "dense", check.sizes.dense, replace(usual_way(check), load_in_4bit=True))


def usual_way(check: Check) -> Training:
    """Of the usual rows, at 16 bits."""
    return Training(check.sizes.rows, check.sizes.tokens, RANK)


def trained_adapter(check: Check) -> Path:
    """An adapter of the dense model: what the plain training left, trained now where no task before has."""
    adapter = check.dir / MODELS / "adapter-bf16"
    if not (adapter / "adapter_config.json").is_file():
        train(check, make_model(check, "dense", check.sizes.dense), "bf16", usual_way(check), LEAST_STEPS)
        let_go(check)
    return adapter


def checkpointing(check: Check) -> Iterator[Finding]:
    """The usual training, its activations computed again."""
    return trained(check, "checkpointing", "dense", check.sizes.dense, replace(usual_way(check), checkpointing=True))


def large(check: Check) -> Iterator[Finding]:
    """Four layers as wide as an 8B model's."""
    return _large(check, "8B width, checkpointing", checkpointing=True)


def large_plain(check: Check) -> Iterator[Finding]:
    """The same, all activations kept."""
    return _large(check, "8B width, bf16")


def large_four_bit(check: Check) -> Iterator[Finding]:
    """The same over an NF4 base."""
    return _large(check, "8B width, NF4", load_in_4bit=True)


def mixture(check: Check) -> Iterator[Finding]:
    """A mixture whose experts are adapted."""
    return trained(check, "mixture, bf16", "mixture", check.sizes.mixture, usual_way(check))


def mixture_four_bit(check: Check) -> Iterator[Finding]:
    """A mixture whose experts are at 4 bits, with checkpointing, without which it is not trained."""
    way = replace(usual_way(check), load_in_4bit=True, checkpointing=True)
    return trained(check, "mixture, NF4", "mixture", check.sizes.mixture, way)


def fits(check: Check) -> Iterator[Finding]:
    """The usual training; a plan that says "fits" is held to it."""
    return _within_its_price(check, "no false fit", "dense", check.sizes.dense, usual_way(check))


def chosen(check: Check) -> Iterator[Finding]:
    """The way that a plan chooses where 16 bits have no room, in exactly the memory that it is priced at."""
    decided = without_room_at_16(check)
    [why] = [one.why for one in decided.decisions if one.setting == "load_in_4bit"]
    four = decided.way.load_in_4bit
    yield stated("bits that plans choose", expected="4", measured="4" if four else "16", holds=four, why=why)
    yield from _within_its_price(check, "no false fit at 4 bits", "large", check.sizes.large, decided.way)


def without_room_at_16(check: Check) -> Decided:
    """What a plan decides for the large model on a machine that lacks a kilobyte for it at 16 bits."""
    rows, tokens = check.sizes.large_rows, check.sizes.large_tokens
    work = Work(rows, tokens, tokens, lambda config, four: RANK, fused=True, on_cpu=not check.on_card)
    meta = {"config": check.sizes.large, "parameters": ModelShape.of(check.sizes.large).parameters}
    base = expected("base", 2 * meta["parameters"], **meta, **{MEASURED_AT: SIXTEEN})
    machine = replace(measure_machine(check.home), gpus=(), swap_free_bytes=0)

    def on(free_bytes: int, bits: bool | None) -> Decided:
        on_cpu = Facts(check.home, replace(machine, ram_total_bytes=whole_bytes(free_bytes)), "", None)
        facts = with_card(machine, free_bytes / GIB, home=check.home) if check.on_card else on_cpu
        return decide(base, facts, work, Typed(precision="bf16", load_in_4bit=bits))

    return on(on(1 << 40, False).least_bytes - 1024, None)


def _within_its_price(
    check: Check, name: str, model: str, config: Mapping[str, Any], way: Training
) -> Iterator[Finding]:
    """Training may take no more than what its price says, context and all."""
    context = context_bytes() if check.on_card else 0  # before anything else makes one
    folder = make_model(check, model, config)
    told, why = f"trains within {way.peak_bytes(config)} bytes", "nothing limits a process on a CPU"
    if check.on_card:
        import torch

        allowed = way.peak_bytes(config) - context
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total))
        why = f"{context} of them are the context's"
    try:
        train(check, folder, name, way, LEAST_STEPS)
    except StepFailed as error:
        if "out of memory" not in str(error):
            raise
        yield stated(name, expected=told, measured="out of memory", holds=False, why=str(error))
    else:
        yield stated(name, expected=told, measured="it does", holds=True, why=why)


def shared(check: Check) -> Iterator[Finding]:
    """The usual training by two cards, each with as many rows as one has alone: a step takes as long."""
    folder, way = make_model(check, "dense", check.sizes.dense), usual_way(check)
    steps = train(check, folder, "2 cards", way, check.sizes.steps, cards=2)
    expected_s = step_seconds(check.sizes.dense, rates_of(check), way, on_card=check.on_card)
    why = f"the median of {len(steps)} steps"
    yield compared(
        "training step, 2 cards", expected=expected_s, measured=median(steps), within=SECONDS, unit="seconds", why=why
    )


def trained_mixture(check: Check) -> Path:
    """An adapter of the mixture's attention, as 4 bits train it; trained now where no task before has."""
    adapter = check.dir / MODELS / "adapter-mixture-NF4"
    if not (adapter / "adapter_config.json").is_file():
        way = replace(usual_way(check), load_in_4bit=True, checkpointing=True)
        train(check, make_model(check, "mixture", check.sizes.mixture), "mixture, NF4", way, LEAST_STEPS)
        let_go(check)
    return adapter


def _large(check: Check, name: str, **options: Any) -> Iterator[Finding]:
    way = replace(Training(check.sizes.large_rows, check.sizes.large_tokens, RANK), **options)
    return trained(check, name, "large", check.sizes.large, way)


def trained(check: Check, name: str, model: str, config: Mapping[str, Any], way: Training) -> Iterator[Finding]:
    """The peak and the step of a few steps, as `train` takes them."""
    folder = make_model(check, model, config)
    if check.on_card:
        context_bytes()  # so that what multiplying takes is no part of the peak
    with peak(check) as most:
        steps = train(check, folder, name, way, check.sizes.steps)
    yield compared(
        f"training peak, {name}",
        expected=way.peak_bytes(config) - CUDA_BYTES,  # the context was there before
        measured=most.bytes,
        within=PEAK,
        unit="bytes",
        why=f"{way.rows_at_once} rows of {way.longest_row_tokens} tokens, rank {way.lora_rank}",
    )
    yield compared(
        f"training step, {name}",
        expected=step_seconds(config, rates_of(check), way, on_card=check.on_card),
        measured=median(steps),
        within=SECONDS,
        unit="seconds",
        why=f"the median of {len(steps)} steps",
    )


def step_seconds(config: Mapping[str, Any], rates: Rates, way: Training, *, on_card: bool) -> float:
    """One optimiser step of `way.rows_at_once` rows, each of the longest: training's price without its start."""
    price = training_seconds(
        config,
        rates,
        tokens=float(way.rows_at_once * way.longest_row_tokens),
        micro_steps=1,
        on_card=on_card,
        checkpointing=way.checkpointing,
        load_in_4bit=way.load_in_4bit,
    )
    shape = ModelShape.of(config)
    return price.train - loading_seconds(shape, rates, load_in_4bit=way.load_in_4bit, on_card=on_card).train


def train(check: Check, folder: Path, name: str, way: Training, steps: int, cards: int = 1) -> list[float]:
    """Train so many steps and leave an adapter; the seconds of each step after the first ones."""
    rows = make_rows(check, folder, 2 * cards * way.rows_at_once, way.longest_row_tokens)
    marks: list[float] = []

    def metric(kind: str, value: float, x: float) -> None:
        if kind == "loss":  # read off the device, so the step is over
            marks.append(time.perf_counter())

    settings = LoraSettings(
        lora_rank=way.lora_rank,
        lora_alpha=2 * way.lora_rank,
        epochs=1.0,
        max_steps=max(steps, LEAST_STEPS),
        batch_size=cards * way.rows_at_once,
        cards=cards,
        max_seq_len_tokens=way.longest_row_tokens,
        precision=way.precision,
        load_in_4bit=way.load_in_4bit,
        activation_checkpointing="on" if way.checkpointing else "off",
        save_steps=1_000_000,
    )
    slug = name.replace(" ", "-").replace(",", "")
    checkpoints = check.dir / MODELS / f"checkpoints-{slug}"
    shutil.rmtree(checkpoints, ignore_errors=True)  # of an attempt that was cut off: it would go on from there
    out = check.dir / MODELS / f"adapter-{slug}"
    work = train_lora if cards == 1 else train_apart
    work(ToTrain(folder, rows, out, settings, checkpoints, metric=metric, log=print))
    times = [after - before for before, after in pairwise(marks)]
    return times[_WARM_UP_STEPS - 1 :]
