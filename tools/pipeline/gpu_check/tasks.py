"""The check's tasks, in their order: what each does, what it answers, and how long it takes on a usual card.

A task is a process of its own: what one leaves on the card, or dies of, is not the next one's. Those that answer most
come first.
"""

from __future__ import annotations

from typing import NamedTuple

from tunesmith.tools.pipeline.gpu_check.check import MINUTES

_HERE = "tunesmith.tools.pipeline.gpu_check"


class Task(NamedTuple):
    """One process of the check."""

    doing: str
    """What the plan and the progress say of it."""
    work: str
    """module:function; it takes a Check and yields a Finding of each name in `gives`, in their order."""
    gives: tuple[str, ...]
    seconds: float
    """Usual; it is ended after `MOST_TIMES` as long."""
    minutes: int = MINUTES[0]
    """The least that a check must be given for it."""
    needs_vllm: bool = False
    hides_card: bool = False
    """Whether its process sees no card, to compute on the processor what another one does on the card."""


MOST_TIMES = 3.0
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
        "packed documents against each row alone",
        f"{_HERE}.model_job:attention",
        ("packed documents, bf16", "packed documents, fp32"),
        15,
    ),
    Task(
        "load a dense model and a mixture at 4 bits",
        f"{_HERE}.model_job:four_bits",
        ("NF4 bytes, dense", "NF4 allocated, dense", "NF4 bytes, experts", "NF4 allocated, mixture"),
        25,
    ),
    *(
        Task(f"train a few steps, {way}", f"{_HERE}.training_job:{function}", gives, seconds, minutes)
        for way, function, seconds, minutes in (
            ("bf16", "plain", 30, 10),
            ("checkpointing", "checkpointing", 30, 10),
            ("NF4", "four_bit", 35, 10),
            ("8B width, checkpointing", "large", 45, 10),
            ("8B width, bf16", "large_plain", 45, 30),
            ("8B width, NF4", "large_four_bit", 60, 30),
            ("mixture, bf16", "mixture", 45, 30),
            ("mixture, NF4", "mixture_four_bit", 60, 30),
        )
        for gives in [(f"training peak, {way}", f"training step, {way}")]
    ),
    Task("train in exactly the priced memory", f"{_HERE}.training_job:fits", ("no false fit",), 35),
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
    Task(
        "merge an adapter, and prove it by logits",
        f"{_HERE}.export_job:merge",
        ("merge proof",),
        30,
    ),
    Task(
        "quantize a layer on the processor",
        f"{_HERE}.export_job:quantize_on_processor",
        ("GPTQ seconds, processor",),
        25,
        hides_card=True,
    ),
    Task(
        "quantize the same layer on the card",
        f"{_HERE}.export_job:quantize",
        ("GPTQ seconds", "GPTQ peak", "GPTQ like the processor's"),
        25,
    ),
    Task(
        "serve a model at W4A16 by vLLM",
        f"{_HERE}.serving_job:quantized",
        ("server start, W4A16", "server memory, W4A16", "served weights, W4A16", "answers, W4A16"),
        110,
        30,
        needs_vllm=True,
    ),
    Task(
        "serve a mixture, with adapters of its experts and of attention alone",
        f"{_HERE}.serving_job:mixture",
        ("adapter slots of experts", "adapter of attention alone"),
        180,
        30,
        needs_vllm=True,
    ),
)  # fmt: skip


def chosen(minutes: int) -> tuple[Task, ...]:
    """The tasks of a check of so many minutes."""
    return tuple(task for task in TASKS if task.minutes <= minutes)
