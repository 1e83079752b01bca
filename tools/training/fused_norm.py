"""RMS normalisation that keeps its input in its own type, and computes in half as many passes over memory.

transformers makes an fp32 copy of every input, which autograd keeps, and five more tensors of its size forward and
backward. Here the values are the same, the input is kept as it came, and the weights, which are frozen, get no
gradient. A module is tried before it is trusted: one with another formula (Gemma's) keeps its own.
"""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import Any


def use_fused_norms(model: Any) -> int:
    """Give every RMS norm of a model whose weights are frozen the fused path, and return how many took it."""
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    taken = [norm for norm in norms if not norm.weight.requires_grad and _same(norm)]
    for norm in taken:
        norm.forward = MethodType(_forward, norm)
    return len(taken)


def _eps(norm: Any) -> float | None:
    found: float | None = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return found


def _forward(norm: Any, hidden: Any) -> Any:
    return _fused().apply(hidden, norm.weight, _eps(norm))


def _same(norm: Any) -> bool:
    """Whether a module computes what the fused path does, tried on four vectors."""
    import torch

    if _eps(norm) is None or norm.weight.ndim != 1:
        return False
    weight = norm.weight
    given = torch.linspace(-3, 2, 4 * len(weight), device=weight.device).view(1, 4, -1).to(weight.dtype)
    try:
        with torch.no_grad():
            own, fused = norm(given), _forward(norm, given)
    except (TypeError, RuntimeError):
        return False
    near = 1e-5 if weight.dtype == torch.float32 else 1e-2
    return bool(own.dtype == fused.dtype and torch.allclose(own.float(), fused.float(), rtol=near, atol=near))


@cache
def _fused() -> Any:
    import torch

    class FusedNorm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any, eps: float) -> Any:
            length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
            scale = length.square_().div_(hidden.shape[-1]).add_(eps).rsqrt_()  # (…, 1)
            ctx.save_for_backward(hidden, weight, scale)
            return torch.mul(hidden, scale).to(hidden.dtype).mul_(weight)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            hidden, weight, scale = ctx.saved_tensors
            grad, values = (grad * weight).float(), hidden.float()
            along = (grad * values).sum(-1, keepdim=True).mul_(scale**3).div_(-hidden.shape[-1])
            return grad.mul_(scale).addcmul_(values, along).to(hidden.dtype), None, None

    return FusedNorm
