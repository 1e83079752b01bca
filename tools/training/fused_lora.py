"""A LoRA layer's forward and backward as matrix products only, over 16-bit, 32-bit and NF4 weights.

peft computes `base(x) + scale · B(A(x))` with the adapter in fp32: every projection then pays five passes over
full-size tensors for casts, scaling and addition, and autograd keeps an fp32 copy of every input. Here the same value
comes from products that accumulate in place, with the adapter cast to the activations' type on the way (it is tiny) and
its own weights kept in fp32. One input in its own type is what is kept. An NF4 weight is unpacked for its product and
again in the backward pass; the unpacked one is never kept.

Not covered (peft's own forward stays): dropout, DoRA, other quantized bases, several active adapters, biases on A or B.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING

from tunesmith.tools.core.settled import FOUR_BITS

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.autograd.function import FunctionCtx

    from tunesmith.tools.training.library import LoraLayer, Model, QuantState


def use_fused_lora(model: Model) -> int:
    """Give every plain LoRA layer of a peft model the fused path and return how many took it."""
    from peft.tuners.lora.layer import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer) and _is_plain(module)]
    forward = _fused_forward()
    for layer in layers:
        layer.forward = MethodType(forward, layer)
    return len(layers)


def _is_plain(layer: LoraLayer) -> bool:
    import torch
    from peft.tuners.lora.layer import Linear

    kinds = [(Linear, torch.nn.Linear), *_four_bit_kinds()]
    if len(layer.active_adapters) != 1 or (type(layer), type(layer.base_layer)) not in kinds:
        return False
    name = layer.active_adapters[0]
    dropout = layer.lora_dropout[name]
    return (
        isinstance(dropout, torch.nn.Identity)
        and not layer.use_dora.get(name, False)
        and not getattr(layer, "fan_in_fan_out", False)  # only some of peft's layers have it
        and layer.lora_A[name].bias is None
        and layer.lora_B[name].bias is None
    )


def _four_bit_kinds() -> list[tuple[type, type]]:
    """peft's layer and bitsandbytes' below it; empty where nothing has loaded that, so that no layer is of it."""
    if FOUR_BITS not in sys.modules:
        return []
    from bitsandbytes.nn import Linear4bit as Base
    from peft.tuners.lora.bnb import Linear4bit

    return [(Linear4bit, Base)]


def unpacked(weight: Tensor, state: QuantState | None, dtype: torch.dtype) -> Tensor:
    """A weight as a matrix of (out, in): itself, or what an NF4 one stands for."""
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight, state).to(dtype)


def _fused_forward() -> Callable[..., Tensor]:
    import torch

    class FusedLora(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: FunctionCtx,
            x: Tensor,
            weight: Tensor,
            state: QuantState | None,
            bias: Tensor | None,
            a: Tensor,
            b: Tensor,
            scale: float,
        ) -> Tensor:
            rows = x.reshape(-1, x.shape[-1])  # (tokens, in)
            a_cast, b_cast = a.to(x.dtype), (b * scale).to(x.dtype)  # (rank, in), (out, rank)
            low = rows @ a_cast.t()  # (tokens, rank)
            matrix = unpacked(weight, state, x.dtype)
            out = rows @ matrix.t() if bias is None else torch.addmm(bias, rows, matrix.t())
            out.addmm_(low, b_cast.t())
            ctx.save_for_backward(rows, weight, a_cast, b_cast, low)
            ctx.scale, ctx.shape, ctx.state = scale, x.shape, state
            return out.view(*x.shape[:-1], b.shape[0])

        @staticmethod
        def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
            rows, weight, a_cast, b_cast, low = ctx.saved_tensors
            grad = grad.reshape(-1, grad.shape[-1])  # (tokens, out)
            grad_low = grad @ b_cast  # (tokens, rank)
            grad_a = (grad_low.t() @ rows).float()
            grad_b = (grad.t() @ low).float() * ctx.scale
            grad_x = None
            if ctx.needs_input_grad[0]:
                matrix = unpacked(weight, ctx.state, grad.dtype)
                grad_x = (grad @ matrix).addmm_(grad_low, a_cast).view(ctx.shape)
            return grad_x, None, None, None, grad_a, grad_b, None

    def forward(layer: LoraLayer, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        if layer.disable_adapters or layer.merged:
            return type(layer).forward(layer, x, *args, **kwargs)
        name = layer.active_adapters[0]
        base, a, b = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight
        state = getattr(base.weight, "quant_state", None)
        bias = None if base.bias is None else base.bias.to(x.dtype)
        return FusedLora.apply(x, base.weight, state, bias, a, b, layer.scaling[name])

    return forward
