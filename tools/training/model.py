"""The frozen base with its trainable adapter, by architecture and precision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.tools.machine.device import computes_on_cpu, this_rank
from tunesmith.tools.models.shape import ATTENTION, ModelShape
from tunesmith.tools.training.four_bit import four_bit_config
from tunesmith.tools.training.lora_settings import LoraSettings

if TYPE_CHECKING:
    from peft import LoraConfig

    from tunesmith.tools.training.library import Model

_FUSED_EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def load_base(base_dir: Path, *, precision: str, load_in_4bit: bool) -> Model:
    """The base, frozen by whoever wraps it: bf16, fp32, or NF4 with double quantization."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    options: dict[str, object] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    options |= ModelShape.of(json.loads((base_dir / "config.json").read_text())).attention_options
    if not computes_on_cpu():
        options["device_map"] = {"": this_rank().local_process_index}
    if load_in_4bit:
        options["quantization_config"] = four_bit_config(dtype)
    model: Model = AutoModelForCausalLM.from_pretrained(base_dir, **options)
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # bitsandbytes would repack such a layer when it is first asked without a gradient, and the repacked one
            # gives none any more.
            layer.support_avx512bf16_for_cpu = False
    if load_in_4bit and computes_on_cpu():
        _leave_the_file(model)
    return model


def _leave_the_file(model: Model) -> None:
    """Copy what is not quantized out of the mapped file, which counts as this process's memory as long as one tensor
    lies in it: the 16-bit weights of the whole model."""
    from tunesmith.tools.cpu.freed_memory import return_freed_memory

    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()  # in memory of our own
    return_freed_memory()


def lora_config(model: Model, config: Mapping[str, object], settings: LoraSettings) -> LoraConfig:
    """A peft LoraConfig: every projection of a dense model; attention and experts, never a router, of a mixture.

    peft's `all-linear` would adapt the router of a mixture, and experts at 4 bits cannot be targeted at all. peft also
    has no dropout for experts, which are bare parameters.
    """
    from peft import LoraConfig

    options: dict[str, object] = {"target_modules": projection_names(model) or "all-linear"}
    options |= {"r": settings.lora_rank, "lora_alpha": settings.lora_alpha, "lora_dropout": settings.lora_dropout}
    if ModelShape.of(config).experts:
        options["target_modules"] = list(ATTENTION)
        options |= {} if settings.load_in_4bit else {"target_parameters": _FUSED_EXPERTS, "lora_dropout": 0.0}
    return LoraConfig(bias="none", task_type="CAUSAL_LM", **options)


def projection_names(model: Model) -> list[str]:
    """The last names of a model's linear layers, without its output head: what vLLM knows adapters by.

    Linear attention is left out: vLLM joins its projections in other ways than transformers, and none was tried.
    """
    import torch

    head = model.get_output_embeddings()
    linear = {
        name.rsplit(".", 1)[-1]
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head and "linear_attn" not in name
    }
    return sorted(linear)
