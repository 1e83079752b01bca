"""What only a card can say and `doctor --gpu` leaves out: tasks of `make test-gpu`, and the models that they make."""

from __future__ import annotations

from typing import Any

from tunesmith.tools.models.model_names import named_model
from tunesmith.tools.pipeline.gpu_check.check import TASKS, TOKENS, Sizes, Task

MIXTURE: dict[str, Any] = {
    **TOKENS, "model_type": "qwen3_moe", "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 4,
    "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 4096, "num_experts": 32,
    "num_experts_per_tok": 4, "moe_intermediate_size": 512, "decoder_sparse_step": 1, "tie_word_embeddings": False,
    "mlp_only_layers": [],
}  # fmt: skip
"""As Qwen3-30B-A3B is made, small."""


def wide() -> dict[str, Any]:
    """Four layers as wide as an 8B model's, with a vocabulary that does not hide them."""
    known = named_model("llama-3.1-8b")
    assert known is not None
    return {**known.config, **TOKENS, "num_hidden_layers": 4, "vocab_size": 32768, "tie_word_embeddings": True}


SIZES = Sizes(mixture=MIXTURE, large=wide())


def _task(work: str, gives: str, seconds: float, **options: bool) -> Task:
    return Task(work, f"tests.gpu.{work}", tuple(gives.split("; ")), seconds, **options)


MORE = (
    _task("models:attention", "packed documents, bf16; packed documents, fp32", 15),
    _task("models:four_bits", "NF4 bytes, dense; NF4 allocated, dense; NF4 bytes, experts; NF4 allocated, mixture", 25),
    *(
        _task(f"trainings:{way}", f"training peak, {name}; training step, {name}", seconds)
        for way, name, seconds in (
            ("checkpointing", "checkpointing", 30), ("large", "8B width, checkpointing", 45),
            ("large_plain", "8B width, bf16", 45), ("large_four_bit", "8B width, NF4", 60),
            ("mixture", "mixture, bf16", 45), ("mixture_four_bit", "mixture, NF4", 60),
        )
    ),
    _task("trainings:fits", "no false fit", 35),
    _task("exports:merge", "merge proof", 30),
    _task("exports:quantize_on_processor", "GPTQ seconds, processor", 25, hides_card=True),
    _task("exports:quantize", "GPTQ seconds; GPTQ peak; GPTQ like the processor's", 25),
    _task(
        "servings:quantized", "server start, W4A16; server memory, W4A16; served weights, W4A16; answers, W4A16", 110,
        needs_vllm=True,
    ),
    _task("servings:mixture", "adapter slots of experts; adapter of attention alone", 180, needs_vllm=True),
)  # fmt: skip
ALL = (*TASKS, *MORE)
