"""A vLLM plugin for its CPU backend: a quicker start, norms by its own kernel, and LoRA that is right beside the base.

It runs inside vLLM, which finds it by its entry point once this folder is on its PYTHONPATH.

1. vLLM 0.32 has a CPU kernel for RMSNorm and does not use it: its plain PyTorch one, six passes that each wait for
   every thread, takes half of a small model's step. With the kernel, 64 answers of the bundled model at once come at
   more than twice the pace.
2. It gathers both LoRA matrices once per token in fp32, and reads index -1 (a request without adapter) as the last
   slot: a base request in a batch with an adapter's got the adapter too. Here each run of tokens of one adapter is two
   plain products, as peft computes them, and none is taken on the output layer for an adapter without a part there.
   Not covered: tensor-parallel CPU servers keep vLLM's own way.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

_LOGITS_PARAMETERS = ["self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "buffer", "kwargs"]
# in vLLM's order: two methods differ in this one
_PARAMETERS = [*_LOGITS_PARAMETERS[:6], "output_slices", *_LOGITS_PARAMETERS[6:]]


class _Wrapper(Protocol):
    """What is used of vLLM's PunicaWrapperCPU."""

    no_lora: bool
    prefill_metadata: tuple[Tensor, ...]
    sampler_indices: Tensor


def register() -> None:
    """Replace the CPU backend's norms and linear LoRA; called by vLLM in each of its processes.

    Does nothing on other backends, and nothing but a warning where a vLLM release has changed what is replaced.
    """
    # Ignored here and below: vLLM has an environment of its own, and the plugin's folder is on the path there alone.
    from vllm.platforms import current_platform  # type: ignore[import-not-found,unused-ignore]

    if not current_platform.is_cpu():
        return
    import tunesmith_engine  # type: ignore[import-not-found,unused-ignore]
    import tunesmith_norms  # type: ignore[import-not-found,unused-ignore]

    tunesmith_engine.register()
    tunesmith_norms.register(current_platform)
    from vllm.lora.punica_wrapper.punica_cpu import (  # type: ignore[import-not-found,unused-ignore]
        PunicaWrapperCPU,
    )

    known = {"add_lora_linear": _PARAMETERS, "add_lora_logits": _LOGITS_PARAMETERS}
    if any(list(inspect.signature(getattr(PunicaWrapperCPU, name)).parameters) != known[name] for name in known):
        logging.getLogger("vllm").warning("tunesmith: this vLLM's CPU LoRA is not the known one; left as it is")
        return
    PunicaWrapperCPU.add_lora_linear = add_lora_linear
    PunicaWrapperCPU.add_lora_logits = add_lora_logits


def add_lora_linear(
    self: _Wrapper,
    y: Tensor,
    x: Tensor,
    lora_a_stacked: tuple[Tensor, ...],
    lora_b_stacked: tuple[Tensor, ...],
    scale: float,
    output_slices: tuple[int, ...],
    *,
    buffer: object = None,
    **kwargs: object,
) -> None:
    """Add each token's adapter to the layer's output `y` in place; tokens without one are left alone."""
    if self.no_lora:
        return
    x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])  # (tokens, in), (tokens, out)
    _, lengths, slots, *_ = self.prefill_metadata
    start = 0
    for length, slot in zip(lengths.tolist(), slots.tolist(), strict=True):
        end = start + length
        if slot >= 0:
            _add(y[start:end], x[start:end], slot, lora_a_stacked, lora_b_stacked, scale, output_slices)
        start = end


def add_lora_logits(
    self: _Wrapper,
    y: Tensor,
    x: Tensor,
    lora_a_stacked: Tensor,
    lora_b_stacked: Tensor,
    scale: float,
    *,
    buffer: object = None,
    **kwargs: object,
) -> None:
    """Add each row's adapter to its logits `y` in place, of adapters that have a part there; most have none."""
    if self.no_lora:
        return
    x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])  # (rows, hidden), (rows, vocab)
    slots = self.sampler_indices[: len(x)]
    for slot in slots.unique().tolist():
        if slot >= 0 and lora_b_stacked[slot].any():
            rows = slots == slot
            down, up = lora_a_stacked[slot, 0], lora_b_stacked[slot, 0]  # (rank, hidden), (vocab, rank)
            hidden = x[rows] @ down.to(x.dtype).T * scale
            y[rows] += hidden.to(y.dtype) @ up.to(y.dtype).T


def _add(
    y: Tensor, x: Tensor, slot: int, a: tuple[Tensor, ...], b: tuple[Tensor, ...], scale: float, slices: tuple[int, ...]
) -> None:
    left = 0
    for index, width in enumerate(slices):
        down, up = a[index][slot, 0], b[index][slot, 0]  # (rank, in), (out, rank)
        hidden = x @ down.to(x.dtype).T
        if scale != 1.0:
            hidden *= scale
        y[:, left : left + width].addmm_(hidden.to(y.dtype), up.to(y.dtype).T)
        left += width
