"""The frozen base with its trainable adapter, by architecture and precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.tools.machine.device import computes_on_cpu
from tunesmith.tools.models.shape import ModelShape

_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# On a CPU the fused attention's backward is slower than plain products while a row's scores are small: 20 against
# 11 ms for 8 rows of 75 tokens with 9 heads. Longer rows need its memory.
_SHORT_ROW_TOKENS = 256
_FUSED_EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def load_base(base_dir: Path, *, precision: str, load_in_4bit: bool, longest_row_tokens: int) -> Any:
    """The base, frozen by whoever wraps it: bf16, fp32, or NF4 with double quantization."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    if not computes_on_cpu():
        options["device_map"] = {"": 0}
    elif longest_row_tokens <= _SHORT_ROW_TOKENS:
        options["attn_implementation"] = "eager"
    if load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return AutoModelForCausalLM.from_pretrained(base_dir, **options)


def lora_config(
    model: Any, config: dict[str, Any], *, rank: int, alpha: int, dropout: float, load_in_4bit: bool
) -> Any:
    """A peft LoraConfig: every projection of a dense model; attention and experts, never a router, of a mixture.

    peft's `all-linear` would adapt the router of a mixture, and experts at 4 bits cannot be targeted at all. peft also
    has no dropout for experts, which are bare parameters.
    """
    from peft import LoraConfig

    options: dict[str, Any] = {"target_modules": projection_names(model) or "all-linear"}
    if ModelShape.of(config).experts:
        options = {"target_modules": _ATTENTION}
        if not load_in_4bit:
            options["target_parameters"] = _FUSED_EXPERTS
            dropout = 0.0
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", task_type="CAUSAL_LM", **options)


def projection_names(model: Any) -> list[str]:
    """The last names of a model's linear layers, without its output head: what vLLM knows adapters by."""
    import torch

    head = model.get_output_embeddings()
    linear = {
        name.rsplit(".", 1)[-1]
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    }
    return sorted(linear)


def fused_layers(model: Any) -> int:
    """Give a peft model's plain LoRA layers the CPU's fused path, where a CPU computes, and return how many took it."""
    if not computes_on_cpu():
        return 0
    from tunesmith.tools.cpu.lora import use_fused_lora

    return use_fused_lora(model)


def can_share_prefix(config: dict[str, Any]) -> bool:
    """Whether keys and values of a shared prefix may be computed once: full causal attention in every layer."""
    text = {**config, **config.get("text_config", {})}
    kinds = text.get("layer_types") or []
    window = text.get("sliding_window") if text.get("use_sliding_window", True) else None
    return all(kind == "full_attention" for kind in kinds) and not window


def has_plain_head(model: Any) -> bool:
    """Whether logits are the output matrix times the backbone's last hidden state and nothing else; tried on 8 tokens.

    Tried, because soft caps and scales (Gemma, Granite, Cohere) have many names in configs. In doubt the answer is no.
    """
    import torch

    seen: dict[str, Any] = {}

    def of_backbone(module: Any, given: Any, made: Any) -> None:
        seen["hidden"] = getattr(made, "last_hidden_state", None)

    def of_head(module: Any, given: Any, made: Any) -> None:
        seen["given"], seen["made"] = given[0], made

    head = model.get_output_embeddings()
    hooks = [model.base_model.register_forward_hook(of_backbone), head.register_forward_hook(of_head)]
    training = model.training
    try:
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.arange(8, device=model.device)[None], use_cache=False).logits
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    pairs = ((seen.get("given"), seen.get("hidden")), (seen.get("made"), logits))
    return all(a is not None and b is not None and torch.equal(a.float(), b.float()) for a, b in pairs)
