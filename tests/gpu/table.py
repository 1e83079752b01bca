"""What only a card can say: the tasks of `make first-card` and `make test-gpu`, and the models that they make.

The tasks stand in the order of their worth: an hour that ends early has answered the questions that matter most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.models.bundled import SMOLLM2
from tunesmith.tools.models.model_names import named_model
from tunesmith.tools.pipeline.gpu_check.findings import Finding
from tunesmith.tools.pipeline.gpu_check.stage import PARTS

MODELS = "models"
"""Below the folder of a check: models and rows that are made and thrown away."""
_TOKENS = {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LARGE_WEIGHTS = {"initializer_range": 0.06}
"""Of weights drawn at random: attention that looks somewhere, so that an adapter of it moves an answer."""
DENSE: dict[str, Any] = {**SMOLLM2.config, **_TOKENS, **_LARGE_WEIGHTS, "max_position_embeddings": 8192}
"""The bundled model's sizes."""
SECONDS = (0.5, 2.0)
"""How far priced times may be off, once the device was measured."""
UPPER = (0.3, 1.1)
"""The same of upper estimates that are said to be such: quantizing, what a server takes beside its weights."""
MIXTURE: dict[str, Any] = {
    **_TOKENS, "model_type": "qwen3_moe", "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 4,
    "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 4096, "num_experts": 32,
    "num_experts_per_tok": 4, "moe_intermediate_size": 512, "decoder_sparse_step": 1, "tie_word_embeddings": False,
    "mlp_only_layers": [],
}  # fmt: skip
"""As Qwen3-30B-A3B is made, small."""


def wide() -> dict[str, Any]:
    """Four layers as wide as an 8B model's, with a vocabulary that does not hide them."""
    known = named_model("llama-3.1-8b")
    assert known is not None
    return {**known.config, **_TOKENS, "num_hidden_layers": 4, "vocab_size": 32768, "tie_word_embeddings": True}


class Sizes(Frozen):
    """Of the models and the rows; the usual ones are for a card of 8 GB and more."""

    dense: dict[str, Any] = DENSE
    mixture: dict[str, Any] = MIXTURE
    large: dict[str, Any] = wide()
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
    several: str = ""
    """CUDA_VISIBLE_DEVICES of two cards; empty where one is here."""
    sizes: Sizes = Sizes()

    @property
    def on_card(self) -> bool:
        return self.device == "cuda"


def skipped(name: str, why: str) -> Finding:
    """An item that was not tried."""
    return Finding(name=name, state="skipped", why=why)


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
    several: bool = False
    """Whether it takes two cards."""


class Group(NamedTuple):
    """Tasks that answer one question."""

    question: str
    change: str
    """Where a prediction is made that turns out wrong."""
    tasks: tuple[Task, ...]


def _task(work: str, gives: str, seconds: float, **options: bool) -> Task:
    return Task(work, f"tests.gpu.{work}", tuple(gives.split("; ")), seconds, **options)


def _training(way: str, name: str, seconds: float) -> Task:
    return _task(f"trainings:{way}", f"training peak, {name}; training step, {name}", seconds)


def _serving(work: str, format_: str, seconds: float) -> Task:
    names = "; ".join(f"{name}, {format_}" for name in ("server start", "server memory", "served weights", "answers"))
    return _task(f"servings:{work}", names, seconds, needs_vllm=True)


GROUPS = (
    Group(
        "Which card is it, and how fast?", "the usual rates in tools/core/rates.py",
        tuple(Task(part.doing, f"tests.gpu.cards:{name}", part.gives, 12) for name, part in PARTS.items()),
    ),
    Group(
        "Does it load and train at the bits that plans choose, and are its peak and its speed the predicted ones?",
        "Training.memory_bytes in tools/models/fitting.py for a peak, training_seconds in tools/models/time_math.py "
        "for a step",
        (
            _training("plain", "bf16", 30),
            _task("trainings:chosen", "bits that plans choose; no false fit at 4 bits", 60),
            _training("four_bit", "NF4", 35),
            _training("large_four_bit", "8B width, NF4", 60),
            _training("mixture_four_bit", "mixture, NF4", 60),
            _training("checkpointing", "checkpointing", 30),
            _training("large", "8B width, checkpointing", 45),
            _task("trainings:fits", "no false fit", 35),
        ),
    ),
    Group(
        "Does the adapter load in vLLM, and are the server's memory and speed the predicted ones?",
        "serving_memory in tools/serving/budget.py for memory, answering_seconds in tools/models/time_math.py for "
        "answers",
        (
            _task(
                "servings:base",
                "server start; server memory; served weights; server beside weights and cache; answers; "
                "adapter liveness; memory freed; seconds until it is free",
                110, needs_vllm=True,
            ),
            _task(
                "servings:mixture", "adapter slots of experts; adapter of attention alone", 180, needs_vllm=True,
            ),
        ),
    ),
    Group(
        "Are packed rows and 4-bit weights what they are on a processor?",
        "tools/training/packing.py for documents, nf4_bytes in tools/models/memory_math.py for bytes",
        (
            _task("models:attention", "packed documents, bf16; packed documents, fp32", 15),
            _task(
                "models:four_bits",
                "NF4 bytes, dense; NF4 allocated, dense; NF4 bytes, experts; NF4 allocated, mixture", 25,
            ),
        ),
    ),
    Group(
        "Are merge and GPTQ right, and is 4 bits served?",
        "gptq_seconds in tools/models/time_math.py for seconds, quantize_vram_bytes in tools/models/memory_math.py for "
        "memory",
        (
            _task("exports:merge", "merge proof", 30),
            _task("exports:quantize_on_processor", "GPTQ seconds, processor", 25, hides_card=True),
            _task("exports:quantize", "GPTQ seconds; GPTQ peak; GPTQ like the processor's", 25),
            _serving("quantized", "W4A16", 110),
        ),
    ),
    Group(
        "Do FP8 and W8A8 run on the card's own kernels?", "scheme_for in tools/export/deploying.py",
        (_serving("fp8", "FP8", 110), _serving("w8a8", "W8A8", 130)),
    ),
    Group(
        "Do two cards train and serve together?",
        "tools/training/apart_job.py for a training, tools/serving/model_server.py for a server",
        (
            _task("trainings:shared", "training step, 2 cards", 60, several=True),
            _task("servings:split", "split server start; split answers", 120, needs_vllm=True, several=True),
        ),
    ),
    Group(
        "Is more trained as predicted?", "Training.memory_bytes in tools/models/fitting.py",
        (_training("large_plain", "8B width, bf16", 45), _training("mixture", "mixture, bf16", 45)),
    ),
)  # fmt: skip
"""In the order of their worth."""
TASKS = tuple(task for group in GROUPS for task in group.tasks)
