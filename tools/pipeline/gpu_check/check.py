"""What a check on a card is about: where it works, on which device, on models of which sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.models.bundled import SMOLLM2
from tunesmith.tools.models.model_names import named_model

MINUTES = (10, 30)
FILE, FINDINGS = "check.json", "findings.jsonl"
MODELS = "models"
"""Below the step's folder: models and rows that are made and thrown away."""
_TOKENS = {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LARGE_WEIGHTS = {"initializer_range": 0.06}
"""Of weights drawn at random: attention that looks somewhere, so that an adapter of it moves an answer."""
DENSE: dict[str, Any] = {**SMOLLM2.config, **_TOKENS, **_LARGE_WEIGHTS, "max_position_embeddings": 8192}
"""The bundled model's sizes."""
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
    sizes = {"num_hidden_layers": 4, "vocab_size": 32768, "tie_word_embeddings": True}
    return {**known.config, **_TOKENS, **sizes}


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
    minutes: int = MINUTES[0]
    sizes: Sizes = Sizes()

    @property
    def on_card(self) -> bool:
        return self.device == "cuda"
