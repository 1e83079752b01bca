"""What a check on a card is about: where it works, its tasks in their order, and what came of each of their items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.models.bundled import SMOLLM2

MINUTES = 10
MODELS = "models"
"""Below the step's folder: models and rows that are made and thrown away."""
TOKENS = {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LARGE_WEIGHTS = {"initializer_range": 0.06}
"""Of weights drawn at random: attention that looks somewhere, so that an adapter of it moves an answer."""
DENSE: dict[str, Any] = {**SMOLLM2.config, **TOKENS, **_LARGE_WEIGHTS, "max_position_embeddings": 8192}
"""The bundled model's sizes."""
SECONDS = (0.5, 2.0)
"""How far priced times may be off, once the device was measured."""
UPPER = (0.3, 1.1)
"""The same of upper estimates that are said to be such: quantizing, what a server takes beside its weights."""
Within = tuple[float, float]
"""The least and the most of measured ÷ expected that is still as predicted."""


class Sizes(Frozen):
    """Of the models and the rows; the usual ones are for a card of 8 GB and more."""

    dense: dict[str, Any] = DENSE
    mixture: dict[str, Any] = DENSE
    large: dict[str, Any] = DENSE
    """`make test-gpu` says what these two are; `doctor --gpu` makes no model of them."""
    rows: int = 8
    """At once, forward and backward."""
    tokens: int = 512
    """Of each row."""
    large_rows: int = 2
    large_tokens: int = 1024
    steps: int = 8
    """Optimiser steps; the first of them warm up."""
    calibration_rows: int = 16
    answers: int = 32
    answer_tokens: int = 64


class Check(Frozen):
    """What every task is given; its child process reads it from a file."""

    home: Path
    dir: Path
    """Of the step; models are made and thrown away below it."""
    step: str
    device: Literal["cuda", "cpu"] = "cuda"
    """cpu: the same code where there is no card, for tests; what only a card has is left out."""
    vllm: str | None = None
    sizes: Sizes = Sizes()

    @property
    def on_card(self) -> bool:
        return self.device == "cuda"


class Finding(Frozen):
    """What one item came to: what was predicted, what was measured, and how far apart they are."""

    name: str
    state: Literal["ok", "failed", "skipped"]
    expected: float | str | None = None
    """By tunesmith's own arithmetic; in words where it is no number."""
    measured: float | str | None = None
    ratio: float | None = None
    """measured ÷ expected; None where these are words."""
    seconds: float = 0.0
    """From the end of the item before it, in the same task."""
    why: str = ""
    """Why it failed or was left out; of one that is ok what else there is to know."""
    unit: str = ""
    """bytes, seconds, FLOP/s, bytes/s, nats …"""
    within: Within | None = None


def compared(name: str, *, expected: float, measured: float, within: Within, unit: str, why: str = "") -> Finding:
    """A prediction against a measurement, both in `unit`: ok where their ratio is `within`."""
    ratio = measured / expected if expected else float("inf")
    holds = within[0] <= ratio <= within[1]
    off = f"measured ÷ expected is {ratio:.2f}, and {within[0]:g} to {within[1]:g} was predicted"
    return Finding(
        name=name, state="ok" if holds else "failed", expected=expected, measured=measured, ratio=round(ratio, 4),
        why=why if holds else "; ".join(filter(None, [off, why])), unit=unit, within=within,
    )  # fmt: skip


def stated(name: str, *, expected: str, measured: str, holds: bool, why: str = "") -> Finding:
    """What is said in words on both sides."""
    return Finding(name=name, state="ok" if holds else "failed", expected=expected, measured=measured, why=why)


def failed(name: str, why: str) -> Finding:
    """An item that did not come to its end."""
    return Finding(name=name, state="failed", why=why)


def skipped(name: str, why: str) -> Finding:
    """An item that was not tried."""
    return Finding(name=name, state="skipped", why=why)


def count(items: Sequence[Finding], state: str) -> int:
    """How many items are in a state."""
    return sum(item.state == state for item in items)


class Task(NamedTuple):
    """A process of the check: what it leaves on the card, or dies of, is not the next one's."""

    doing: str
    """What the plan and the progress say of it."""
    work: str
    """module:function; it takes a Check and yields a Finding of each name in `gives`, in their order."""
    gives: tuple[str, ...]
    seconds: float
    """Usual, on a usual card."""
    needs_vllm: bool = False
    hides_card: bool = False
    """Whether its process sees no card, to compute on the processor what another one does on the card."""


_HERE = "tunesmith.tools.pipeline.gpu_check"
TASKS = (
    Task(
        "read the driver and the card, by NVML and by torch",
        f"{_HERE}.card_job:card",
        ("driver", "compute capability", "total memory", "CUDA context", "free memory"),
        12,
    ),
    Task(
        "measure matrix products, memory and disk",
        f"{_HERE}.card_job:rates",
        ("bf16 rate", "fp32 rate", "memory rate", "disk rate"),
        12,
    ),
    Task(
        "train a few steps, bf16",
        f"{_HERE}.training_job:plain",
        ("training peak, bf16", "training step, bf16"),
        30,
    ),
    Task(
        "train a few steps, NF4",
        f"{_HERE}.training_job:four_bit",
        ("training peak, NF4", "training step, NF4"),
        35,
    ),
    Task(
        "serve a model by vLLM, prove an adapter on it, stop it",
        f"{_HERE}.serving_job:base",
        (
            "server start", "server memory", "served weights", "server beside weights and cache", "answers",
            "adapter liveness", "memory freed", "seconds until it is free",
        ),
        110,
        needs_vllm=True,
    ),
)  # fmt: skip
