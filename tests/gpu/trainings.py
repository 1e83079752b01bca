"""More ways to train than `doctor --gpu` tries, and training in exactly the priced memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.models.fitting import Training
from tunesmith.tools.pipeline.gpu_check.check import MODELS, Check, Finding, stated
from tunesmith.tools.pipeline.gpu_check.measures_job import context_bytes, let_go, make_model
from tunesmith.tools.pipeline.gpu_check.training_job import LEAST_STEPS, RANK, train, trained, usual_way


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
    """Training may take no more than what its price says, context and all: a plan that says "fits" is held to it."""
    config, way = check.sizes.dense, usual_way(check)
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
        train(check, folder, "fits", way, LEAST_STEPS)
    except StepFailed as error:
        if "out of memory" not in str(error):
            raise
        yield stated("no false fit", expected=told, measured="out of memory", holds=False, why=str(error))
    else:
        yield stated("no false fit", expected=told, measured="it does", holds=True, why=why)


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
