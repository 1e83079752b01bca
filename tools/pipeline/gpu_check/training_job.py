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

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.models.fitting import Training
from tunesmith.tools.pipeline.gpu_check.check import MODELS, Check
from tunesmith.tools.pipeline.gpu_check.expected import PEAK, SECONDS, step_seconds, tensors_bytes
from tunesmith.tools.pipeline.gpu_check.findings import Finding, compared, stated
from tunesmith.tools.pipeline.gpu_check.measures_job import context_bytes, let_go, make_model, make_rows, peak, rates_of
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.train_job import train_lora

RANK = 16
_WARM_UP_STEPS = 2
_LEAST_STEPS = 4


def plain(check: Check) -> Iterator[Finding]:
    """The bundled model's sizes at 16 bits, all activations kept."""
    return _dense(check, "bf16", _way(check))


def checkpointing(check: Check) -> Iterator[Finding]:
    """The same, its activations computed again."""
    return _dense(check, "checkpointing", replace(_way(check), checkpointing=True))


def four_bit(check: Check) -> Iterator[Finding]:
    """The same over an NF4 base."""
    return _dense(check, "NF4", replace(_way(check), load_in_4bit=True))


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
    return _trained(check, "mixture, bf16", "mixture", check.sizes.mixture, _way(check))


def mixture_four_bit(check: Check) -> Iterator[Finding]:
    """A mixture whose experts are at 4 bits, with checkpointing, without which it is not trained."""
    way = replace(_way(check), load_in_4bit=True, checkpointing=True)
    return _trained(check, "mixture, NF4", "mixture", check.sizes.mixture, way)


def fits(check: Check) -> Iterator[Finding]:
    """Training may take no more than what its price says, context and all: a plan that says "fits" is held to it."""
    config, way = check.sizes.dense, _way(check)
    context = context_bytes() if check.on_card else 0  # before anything else makes one
    folder = make_model(check, "dense", config)
    told, why = f"trains within {way.peak_bytes(config)} bytes", "nothing limits a process on a CPU"
    if check.on_card:
        import torch

        allowed = way.peak_bytes(config) - context
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total))
        why = f"{context} of them are the context's"
    try:
        _train(check, folder, "fits", way, _LEAST_STEPS)
    except StepFailed as error:
        if "out of memory" not in str(error):
            raise
        yield stated("no false fit", expected=told, measured="out of memory", holds=False, why=str(error))
    else:
        yield stated("no false fit", expected=told, measured="it does", holds=True, why=why)


def adapter_of(check: Check) -> Path:
    """What the plain training left: an adapter of the dense model."""
    return check.dir / MODELS / "adapter-bf16"


def trained_adapter(check: Check) -> Path:
    """The same, trained now where no task before has."""
    adapter = adapter_of(check)
    if not (adapter / "adapter_config.json").is_file():
        _train(check, make_model(check, "dense", check.sizes.dense), "bf16", _way(check), _LEAST_STEPS)
        let_go(check)
    return adapter


def trained_mixture(check: Check) -> Path:
    """An adapter of the mixture's attention, as 4 bits train it; trained now where no task before has."""
    adapter = check.dir / MODELS / "adapter-mixture-NF4"
    if not (adapter / "adapter_config.json").is_file():
        way = replace(_way(check), load_in_4bit=True, checkpointing=True)
        _train(check, make_model(check, "mixture", check.sizes.mixture), "mixture, NF4", way, _LEAST_STEPS)
        let_go(check)
    return adapter


def _way(check: Check) -> Training:
    return Training(check.sizes.rows, check.sizes.tokens, RANK)


def _dense(check: Check, name: str, way: Training) -> Iterator[Finding]:
    return _trained(check, name, "dense", check.sizes.dense, way)


def _large(check: Check, name: str, *, checkpointing: bool = False, load_in_4bit: bool = False) -> Iterator[Finding]:
    sizes = Training(check.sizes.large_rows, check.sizes.large_tokens, RANK)
    way = replace(sizes, checkpointing=checkpointing, load_in_4bit=load_in_4bit)
    return _trained(check, name, "large", check.sizes.large, way)


def _trained(check: Check, name: str, model: str, config: Mapping[str, Any], way: Training) -> Iterator[Finding]:
    """The peak and the step of a few steps, as `train` takes them."""
    folder = make_model(check, model, config)
    if check.on_card:
        context_bytes()  # so that what multiplying takes is no part of the peak
    with peak(check) as most:
        steps = _train(check, folder, name, way, check.sizes.steps)
    yield compared(
        f"training peak, {name}",
        expected=tensors_bytes(config, way),
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


def _train(check: Check, folder: Path, name: str, way: Training, steps: int) -> list[float]:
    """Train so many steps and leave an adapter; the seconds of each step after the first ones."""
    rows = make_rows(check, folder, 2 * way.rows_at_once, way.longest_row_tokens)
    marks: list[float] = []

    def metric(kind: str, value: float, x: float) -> None:
        if kind == "loss":  # read off the device, so the step is over
            marks.append(time.perf_counter())

    settings = LoraSettings(
        lora_rank=way.lora_rank,
        lora_alpha=2 * way.lora_rank,
        epochs=1.0,
        max_steps=max(steps, _LEAST_STEPS),
        batch_size=way.rows_at_once,
        max_seq_len_tokens=way.longest_row_tokens,
        precision=way.precision,
        load_in_4bit=way.load_in_4bit,
        activation_checkpointing="on" if way.checkpointing else "off",
        save_steps=1_000_000,
    )
    slug = name.replace(" ", "-").replace(",", "")
    checkpoints = check.dir / MODELS / f"checkpoints-{slug}"
    shutil.rmtree(checkpoints, ignore_errors=True)  # of an attempt that was cut off: it would go on from there
    train_lora(
        folder,
        rows,
        check.dir / MODELS / f"adapter-{slug}",
        settings,
        checkpoints_dir=checkpoints,
        progress=lambda done, total, note: None,
        metric=metric,
        log=print,
    )
    times = [after - before for before, after in pairwise(marks)]
    return times[_WARM_UP_STEPS - 1 :]
