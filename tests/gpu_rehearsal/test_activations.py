"""What autograd really keeps of a token, counted on tensors without memory, against the formula that prices it.

The models have the sizes of published ones and no weights (the meta device). Attention stands in for a card's: it keeps
queries, keys, values, its output and one fp32 value a head, as flash attention does. Everything else is what runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.tools.models.model_names import named_model
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.training_terms import activation_bytes, plain_activation_bytes

pytestmark = pytest.mark.lab

TOKENS, RANK = 256, 16
DENSE = ("qwen2.5-7b", "llama-3.1-8b", "qwen3-8b", "llama-3.2-1b")
MIXTURES = ("qwen3-30b-a3b", "olmoe-1b-7b")


def kept(config: dict[str, Any], layers: int, *, fused: bool = True, checkpointing: bool = False) -> int:
    """Bytes that the backward pass of so many layers waits for, weights apart. LoRA as training makes it."""
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from tunesmith.tools.training.fused_lora import use_fused_lora
    from tunesmith.tools.training.lora_settings import LoraSettings
    from tunesmith.tools.training.model import lora_config
    from tunesmith.tools.training.packing import hidden_states, packed_sequences, use_document_attention

    with torch.device("meta"):
        made = AutoConfig.for_model(**{**config, "num_hidden_layers": layers, "vocab_size": 512})
        model: Any = AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)
    use_document_attention(model)
    settings = LoraSettings(lora_rank=RANK, load_in_4bit=bool(ModelShape.of(config).experts))
    model = get_peft_model(model, lora_config(model, config, settings))
    if fused:
        assert use_fused_lora(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    batch = packed_sequences([(list(range(TOKENS)), [-100] * TOKENS)], prefix=0, device="meta")
    return held_bytes(model, lambda: hidden_states(model.get_base_model(), batch))


def held_bytes(model: Any, forward: Callable[[], object]) -> int:
    """Bytes of all storage that a forward pass keeps for the backward pass, the model's own apart."""
    import torch

    weights = {id_of(tensor) for tensor in (*model.parameters(), *model.buffers())}
    held: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        if id_of(tensor) not in weights:
            held[id_of(tensor)] = tensor
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def id_of(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


@pytest.fixture(autouse=True)
def flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Flash(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            out = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
            return out

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad, grad, grad

    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v, **more: Flash.apply(q, k, v)
    )


def a_layers(config: dict[str, Any], **how: bool) -> float:
    """Of one layer: what two keep beyond what one does."""
    return (kept(config, 2, **how) - kept(config, 1, **how)) / TOKENS


@pytest.mark.parametrize("name", [*DENSE, *MIXTURES])
def test_a_layer_keeps_of_a_token_what_is_priced(name: str) -> None:
    config, shape = config_of(name)
    assert 0.9 <= activation_bytes(shape, lora_rank=RANK) / a_layers(config) <= 1.3


@pytest.mark.parametrize("name", DENSE)
def test_pefts_own_layers_keep_more_and_are_priced_so(name: str) -> None:
    config, shape = config_of(name)
    plain = a_layers(config, fused=False)
    assert 0.9 <= plain_activation_bytes(shape) / plain <= 1.3
    assert plain > 1.3 * a_layers(config)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b"])
def test_with_checkpointing_a_layer_keeps_its_input_alone(name: str) -> None:
    config, shape = config_of(name)
    assert 0.9 <= 2 * shape.hidden / a_layers(config, checkpointing=True) <= 1.3


def test_capped_scores_are_kept_and_priced_by_the_row() -> None:
    """Gemma 2 in small, on the processor: its own attention asks the mask for values, which meta tensors have not."""
    config: dict[str, Any] = {
        "model_type": "gemma2", "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 512, "num_hidden_layers": 2,
    }  # fmt: skip
    for tokens in (256, 512):
        saved = (kept_on_cpu(config, 3, tokens) - kept_on_cpu(config, 2, tokens)) / tokens
        assert 0.9 <= activation_bytes(ModelShape.of(config), lora_rank=RANK, row_tokens=tokens) / saved <= 1.3


def kept_on_cpu(config: dict[str, Any], layers: int, tokens: int) -> int:
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from tunesmith.tools.training.fused_lora import use_fused_lora
    from tunesmith.tools.training.lora_settings import LoraSettings
    from tunesmith.tools.training.model import lora_config

    made = AutoConfig.for_model(**{**config, "num_hidden_layers": layers})
    model: Any = AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16, attn_implementation="eager")
    model = get_peft_model(model, lora_config(model, config, LoraSettings(lora_rank=RANK)))
    use_fused_lora(model)
    return held_bytes(model, lambda: model.get_base_model().base_model(torch.arange(tokens)[None], use_cache=False))


def config_of(name: str) -> tuple[dict[str, Any], ModelShape]:
    model = named_model(name)
    assert model is not None
    return dict(model.config), model.shape
