"""A base at 4 bits with everything covered that is meant to be: a mixture's fused experts too.

transformers has bitsandbytes quantize linear layers alone. A mixture's experts are stacks of matrices in one parameter,
and would stay at 16 bits: nine tenths of its weights. Here each stack is quantized as soon as it is read, so that the
16-bit model never exists, and unpacked when its layer computes. Routers, norms, embeddings and the head keep their
precision. An unpacked stack is kept for the backward pass wherever activations are: a mixture at 4 bits is trained with
activation checkpointing. peft cannot adapt such experts; with bf16 experts (`load_in_4bit=false`) it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.machine.device import computes_on_cpu

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import BitsAndBytesConfig

    from tunesmith.tools.training.library import Model, QuantState

    Stack: TypeAlias = Tensor | list[Tensor]

_METHOD = "tunesmith_nf4"
_MOST_BYTES = 1.0
"""A parameter, of a kind that is held at 4 bits: NF4 takes 0.52, and a kind's norms and biases something more."""
QUANTIZED_KINDS = ("dense", "experts")


class Weights(NamedTuple):
    """Of one kind of a model's weights."""

    parameters: int
    bytes: int

    @property
    def bytes_per_parameter(self) -> float:
        return self.bytes / max(self.parameters, 1)


def four_bit_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantization for `from_pretrained`, of linear layers and of fused experts."""
    return _registered()(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def is_expert_stack(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a stack of experts' matrices; their biases are no matrices."""
    return parameter.dim() == 3 and ".experts." in f".{name}"


@cache
def _registered() -> type[BitsAndBytesConfig]:
    """The config class of the quantizer below, which transformers finds by it."""
    from bitsandbytes.functional import quantize_4bit
    from bitsandbytes.nn.parametrize import replace_parameter_4bit_prequantized
    from torch.nn import Parameter
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import Bnb4bitQuantize
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    @register_quantization_config(_METHOD)
    class Config(BitsAndBytesConfig):
        def __init__(self, **options: object) -> None:
            super().__init__(**options)
            self.quant_method = _METHOD

    class Quantize(Bnb4bitQuantize):
        def convert(self, input_dict: dict[str, Stack], model: Model, **more: object) -> dict[str, Tensor]:
            stacks = {name for name in input_dict if is_expert_stack(name, model.get_parameter(name))}
            rest = {name: value for name, value in input_dict.items() if name not in stacks}
            quantized = super().convert(rest, model=model, **more) if rest else {}
            for name in stacks:
                [value] = input_dict[name] if isinstance(input_dict[name], list) else [input_dict[name]]
                packed, state = quantize_4bit(value, compress_statistics=True, quant_type="nf4")
                self.hf_quantizer.states[name] = state
                quantized[name] = Parameter(packed, requires_grad=False)
            _leave_whole(input_dict.values())
            return quantized

    @register_quantizer(_METHOD)
    class Quantizer(Bnb4BitHfQuantizer):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)
            self.states: dict[str, QuantState] = {}

        def get_modules_to_not_convert(self, model: Model, *args: object, **more: object) -> list[str]:
            routers = [name for name, _ in model.named_modules() if is_router(name)]
            return [*super().get_modules_to_not_convert(model, *args, **more), *routers]

        def param_needs_quantization(self, model: Model, param_name: str, **more: object) -> bool:
            whole: bool = super().param_needs_quantization(model, param_name, **more)
            return whole or is_expert_stack(param_name, model.get_parameter_or_buffer(param_name))

        def get_quantize_ops(self) -> Quantize:
            return Quantize(self)

        def _process_model_after_weight_loading(self, model: Model, **more: object) -> Model:
            for name, state in self.states.items():
                path, _, last = name.rpartition(".")
                module = model.get_submodule(path)
                device = getattr(module, last).device
                replace_parameter_4bit_prequantized(module, last, state.as_dict(packed=True), device)
            self.states.clear()
            # transformers' place to finish a loaded model; it is theirs to call, and may be another in a release.
            loaded: Model = super()._process_model_after_weight_loading(model, **more)
            return loaded

    return Config


def _leave_whole(values: Iterable[Stack]) -> None:
    """Let go of what 16-bit weights took that were quantized: on a CPU they are pages of a mapped file, and the heap of
    a worker would keep what their quantization needed."""
    if not computes_on_cpu():
        return
    from tunesmith.tools.cpu.freed_memory import leave_pages, return_freed_memory

    for value in values:
        for tensor in value if isinstance(value, list) else [value]:
            leave_pages(tensor.data_ptr(), tensor.numel() * tensor.element_size())
    return_freed_memory()


def weights_by_kind(model: Model) -> dict[str, Weights]:
    """Parameters and the bytes that they take as loaded: dense, experts, router, embeddings, head; none that is empty.

    A head that is tied to the embeddings is counted with these.
    """
    kinds: dict[str, Weights] = {}
    for kind, parameters, size in _counted(model):
        old = kinds.get(kind, Weights(0, 0))
        kinds[kind] = Weights(old.parameters + parameters, old.bytes + size)
    return kinds


def _counted(model: Model) -> Iterator[tuple[str, int, int]]:
    """Kind, parameters and bytes of each parameter of the base."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    own, seen = {id(embeddings.weight): "embeddings"}, set[int]()
    if head is not None:
        own.setdefault(id(head.weight), "head")  # a tied one is the embeddings, and counted as such
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if "lora_" in path or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            # only a packed one has it; experts' stacks keep it elsewhere
            state = getattr(parameter, "quant_state", None) or _stack_state(model, path, name)
            count = parameter.numel() if state is None else math.prod(state.shape)
            size = parameter.numel() * parameter.element_size() + (0 if state is None else _state_bytes(state))
            yield own.get(id(parameter)) or _kind(f"{path}.{name}"), count, size


def _stack_state(model: Model, path: str, name: str) -> QuantState | None:
    """How a quantized stack was packed: bitsandbytes keeps that beside it."""
    if name != "original" or ".parametrizations." not in path:
        return None
    return next((state for one in model.get_submodule(path) if (state := getattr(one, "quant_state", None))), None)


def _state_bytes(state: QuantState) -> int:
    import torch

    return sum(v.numel() * v.element_size() for v in state.as_dict().values() if isinstance(v, torch.Tensor))


def _kind(name: str) -> str:
    if ".experts." in name:
        return "experts"
    return "router" if is_router(name) else "dense"


def is_router(name: str) -> bool:
    """Whether a parameter chooses experts, by its name: `mlp.gate`, `block_sparse_moe.gate`, a `router` of any kind."""
    segments = name.split(".")
    return "router" in name or "gate" in segments or "shared_expert_gate" in segments


def need_four_bits(kinds: Mapping[str, Weights]) -> None:
    """Raise StepFailed with the figure where a kind that is meant to be at 4 bits is not."""
    for kind in QUANTIZED_KINDS:
        weights = kinds.get(kind)
        if weights and weights.bytes_per_parameter > _MOST_BYTES:
            raise StepFailed(
                f"at 4 bits the {kind} weights of this model would take {weights.bytes_per_parameter:.2f} bytes a "
                # 0.52: four bits, and scales of 64 weights, themselves in 8 bits.
                f"parameter ({weights.bytes / 2**30:.2f} GiB) where NF4 takes 0.52: bitsandbytes does not cover them; "
                "try load_in_4bit=false"
            )


def router_bytes(model: Model) -> dict[str, bytes]:
    """The raw bytes of every router, by name."""
    import torch

    return {
        name: parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()  # as bytes: numpy knows no bf16
        for name, parameter in model.named_parameters()
        if is_router(name) and "lora_" not in name
    }
