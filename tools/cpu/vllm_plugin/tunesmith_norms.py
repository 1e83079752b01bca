"""vLLM's own C++ RMSNorm for CPUs, registered as the first choice of its operator table.

It runs inside vLLM. vLLM reads the annotations below to describe the operators to PyTorch, so they are no strings: no
`from __future__ import annotations` here.
"""

import logging
from typing import Any

import torch
from torch import Tensor

_PROVIDER = "tunesmith"
_VECTOR = 16
"""Values that the kernel computes at a time; rows of another multiple it refuses."""


def register(platform: Any) -> None:
    """Put the kernels before PyTorch's six passes; a warning and nothing else where vLLM has changed what is used."""
    try:
        from vllm import ir  # type: ignore[import-not-found,unused-ignore]  # of vLLM's own environment

        platform.import_kernels()
        usual = platform.get_default_ir_op_priority
        # a release without them: else the first request fails
        assert torch.ops._C.rms_norm and torch.ops._C.fused_add_rms_norm
        norm, fused = ir.ops.rms_norm, ir.ops.fused_add_rms_norm
        if _PROVIDER in norm.impls:
            return
        norm.register_impl(_PROVIDER, supports_args=_fits)(rms_norm)
        fused.register_impl(_PROVIDER, supports_args=_fits_both, inplace=True)(fused_add_rms_norm)
    except Exception as error:  # whatever a release has changed: slower is better than no server
        logging.getLogger("vllm").warning("tunesmith: this vLLM's CPU norms are not the known ones: %r", error)
        return

    def preferred(cls: object, vllm_config: object) -> object:
        priority = usual(vllm_config)
        for operator in (priority.rms_norm, priority.fused_add_rms_norm):
            operator.insert(0, _PROVIDER)
        return priority

    type(platform).get_default_ir_op_priority = classmethod(preferred)


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    """`x` (..., hidden) over its root mean square, times `weight` (hidden,)."""
    out = torch.empty_like(x)
    torch.ops._C.rms_norm(out, x, weight, epsilon)  # its kernels have no other name in Python
    return out


def fused_add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The norm of the sum, and the sum; both take the place of what was given."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)  # its kernels have no other name in Python
    return x, x_residual


def _fits(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    whole = variance_size is None and weight is not None and weight.dtype == x.dtype
    return whole and x.shape[-1] % _VECTOR == 0 and bool(x.is_contiguous())


def _fits_both(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    alike = x_residual.dtype == x.dtype and bool(x_residual.is_contiguous())
    return alike and _fits(x, weight, epsilon, variance_size)
