"""GPTQ's inner loop on a CPU with few calls per column.

llm-compressor's eager loop spends its time in the dispatch of some twenty small operations per column, 150,000 times
for a model of 135M parameters. Registered through the library's own backend table, this one does the same arithmetic
on a transposed copy, where a column is contiguous, in six calls. It serves integer weights on CPU; every other case
falls through to the library's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs
    from torch import Tensor


def use_fast_blocks() -> bool:
    """Register the loop, once per process; says whether it was registered now."""
    from compressed_tensors.utils.impl_backend import ImplBackend
    from llmcompressor.modifiers.gptq import gptq_quantize

    # _fn_registry: the table has no way to ask, and raises for a name that is there. Without the hook, an older
    # release.
    if cpu_gptq_block_update.__name__ in ImplBackend._fn_registry or not hasattr(gptq_quantize, "gptq_block_update"):
        return False
    ImplBackend.register("gptq_block_update", _serves, 1)(cpu_gptq_block_update)
    return True


def _serves(
    work: Tensor, *args: object, quant_args: QuantizationArgs, global_scale: Tensor | None = None, **kwargs: object
) -> bool:
    kind = getattr(quant_args.type, "value", quant_args.type)
    # Anything else (a card, float codes, NVFP4's second scale) is computed by llm-compressor itself: not proven equal
    # here.
    return work.device.type == "cpu" and work.dim() == 3 and kind == "int" and global_scale is None


def cpu_gptq_block_update(
    work: Tensor,
    hessian_inverse: Tensor,
    quantized: Tensor,
    errors: Tensor,
    losses: Tensor,
    *,
    scale: Tensor,
    zero_point: Tensor | None,
    global_scale: Tensor | None,
    g_idx: Tensor | None,
    quant_args: QuantizationArgs,
    i1: int,
) -> None:
    """One block of GPTQ (section 3.4 of arXiv:2203.07259), in place, on tensors of shape (batch, rows, block)."""
    import torch
    from llmcompressor.modifiers.gptq.helpers import column_scale_window

    rows, width = work.shape[-2:]
    scales, zeros = column_scale_window(
        scale, zero_point, global_scale, g_idx, quant_args, num_rows=rows, i1=i1, i2=i1 + width
    )
    low, high = -(2 ** (quant_args.num_bits - 1)), 2 ** (quant_args.num_bits - 1) - 1
    if zeros is not None and not quant_args.symmetric and zeros.dtype == torch.uint8:
        low, high = 0, 2**quant_args.num_bits - 1
    shape = work.shape
    columns = work.transpose(1, 2).contiguous()  # (batch, block, rows)
    steps = scales.float().expand(shape).transpose(1, 2).contiguous()  # in memory as the loop takes them
    shift = None if zeros is None else zeros.float().expand(shape).transpose(1, 2).contiguous()
    result, wrong = torch.empty_like(columns), torch.empty_like(columns)
    for i in range(width):
        column, step = columns[:, i], steps[:, i]
        code = column / step
        if shift is None:
            code.round_().clamp_(low, high)
        else:
            code.add_(shift[:, i]).round_().clamp_(low, high).sub_(shift[:, i])
        torch.mul(code, step, out=result[:, i])
        error = torch.sub(column, result[:, i], out=wrong[:, i]).div_(hessian_inverse[:, i, i, None])
        if i + 1 < width:
            columns[:, i + 1 :].baddbmm_(hessian_inverse[:, i, i + 1 :, None], error[:, None, :], alpha=-1)
    work.copy_(columns.transpose(1, 2))
    quantized.copy_(result.transpose(1, 2))
    errors.copy_(wrong.transpose(1, 2))
    torch.square(errors, out=losses)
