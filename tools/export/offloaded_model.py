"""A whole model's forward pass in the memory of its largest module, by accelerate's disk offload."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput
from tunesmith.tools.export.stored_layout import for_an_adapter
from tunesmith.tools.models.shape import ModelShape

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


@contextmanager
def offloaded_model(folder: Path, dtype: torch.dtype | str, scratch: Path) -> Iterator[PreTrainedModel]:
    """The model in `folder`, computing in `dtype`; a module's weights are in memory only while it computes.

    `auto` is the type of the weights. They are read from the checkpoint itself; what transformers converts first, such
    as a mixture's experts that are stored one by one, is written below `scratch` for as long as the model is in use.
    Raises BadInput where the checkpoint lacks a weight.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)  # that weights lie on the disk is the purpose
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    options = ModelShape.of(config.to_dict()).attention_options
    converted = scratch / ".offloaded"
    shutil.rmtree(converted, ignore_errors=True)  # of a step that was killed
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, device_map={"": "disk"}, offload_folder=converted,
            output_loading_info=True, local_files_only=True, **options,
        )  # fmt: skip
        if missing := info["missing_keys"]:
            raise BadInput(f"{folder} holds no {min(missing)}, which a {type(model).__name__} has")
        del model.hf_device_map  # with it, peft takes accelerate's hooks off and loads the model
        yield model
    finally:
        shutil.rmtree(converted, ignore_errors=True)


def stored_weights(model: PreTrainedModel) -> Mapping[str, torch.Tensor]:
    """Every weight of an offloaded model by its name, mapped from its file as it is asked for."""
    maps = (getattr(getattr(module, "_hf_hook", None), "weights_map", None) for module in model.modules())
    # Each hook knows the weights of all modules, and asks for them by the beginning that its own have.
    weights: Mapping[str, torch.Tensor] = next(found.dataset for found in maps if found is not None)
    return weights


def keep_layers(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Leave out all decoder layers but these, by their numbers."""
    from torch import nn

    decoder = model.get_decoder()
    decoder.layers = nn.ModuleList([decoder.layers[number] for number in layers])


def put_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """An offloaded model with an adapter, which stays in memory."""
    from peft import PeftModel
    from peft.tuners.lora.layer import ParamWrapper

    for_an_adapter(model)
    # Read into memory, without random values first: the base itself lies on the disk.
    adapted = PeftModel.from_pretrained(model, adapter, torch_device="cpu", low_cpu_mem_usage=True)
    for module in adapted.modules():
        # Outermost first: of a module with several adapted parameters, one wrapper is around the other.
        if isinstance(module, ParamWrapper) and hasattr(module.get_base_layer(), "_hf_hook"):
            _bring_earlier(module, module.get_base_layer())
    return adapted


def _bring_earlier(wrapper: nn.Module, experts: nn.Module) -> None:
    """Have the weights of experts read as their wrapper is called: it adds the update before it calls them."""
    from accelerate.hooks import remove_hook_from_module

    # accelerate has no call that hands out its hook; what it does is done by hand below, at another time.
    hook = experts._hf_hook
    remove_hook_from_module(experts)

    def bring(*_: object) -> None:
        hook.pre_forward(experts)

    def drop(*_: object) -> None:
        hook.post_forward(experts, None)

    wrapper.register_forward_pre_hook(bring)
    wrapper.register_forward_hook(drop)
