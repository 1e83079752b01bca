"""Causal attention of rows alone, maybe in a window, maybe behind keys that come before.

On a GPU it is PyTorch's. On a CPU PyTorch's takes twice as long in 16 bits (of 512 tokens; 1.4 times of 128) and
autograd keeps its output; plain products keep every score in 16 and in 32 bits. Here a block of queries is computed at
a time, over the keys that it sees, and nothing but queries, keys and values is kept: the backward pass computes the
weights again. Softmax and its gradient are one pass each over a block's scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.autograd.function import Function, FunctionCtx

BLOCK_TOKENS = 128
"""Queries that are computed at once: 64 to 256 take the same time, fewer hold less."""


def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float = 0.0, window: int | None = None
) -> Tensor:
    """(rows, heads, queries, width), with keys of fewer heads and maybe more places, which come before the queries."""
    from torch.nn.functional import scaled_dot_product_attention

    heads, queries, keys = query.shape[1], query.shape[2], key.shape[2]
    window = None if window is None or window >= keys else window
    if query.device.type == "cpu" and not dropout:
        return _in_blocks().apply(query, key, value, scale, window)
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    if keys == queries and window is None:
        return scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scale)
    mask = causal_mask(queries, keys - queries, window, query.device)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)


def causal_mask(queries: int, before: int, window: int | None, device: torch.device) -> Tensor:
    """(queries, before + queries) bool: which keys a query sees, of those before it and its own, the window back."""
    import torch

    distance = torch.arange(queries, device=device)[:, None] + before - torch.arange(before + queries, device=device)
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


class _Block(NamedTuple):
    """Some queries and the keys that any of them sees; query heads that share a key head are rows of one product."""

    queries: slice
    keys: slice
    unseen: Tensor
    """(queries, last keys) bool: which of the last keys a query does not see; it sees all before them."""

    @classmethod
    def of(cls, queries: int, before: int, window: int | None) -> Iterator[_Block]:
        """All blocks of so many queries that stand behind so many keys."""
        for start in range(0, queries, BLOCK_TOKENS):
            end = min(queries, start + BLOCK_TOKENS)
            first = 0 if window is None else max(0, before + start + 1 - window)
            earlier = 0 if window is None else before + start - first
            unseen = ~causal_mask(end - start, earlier, window, "cpu")  # blocks are a CPU's alone
            yield cls(slice(start, end), slice(first, before + end), unseen)

    def rows_of(self, states: Tensor, key_heads: int) -> Tensor:
        """(rows, heads, tokens, width) → (rows, key heads, query heads of each · queries, width)."""
        rows, _heads, _tokens, width = states.shape
        return states[:, :, self.queries].reshape(rows, key_heads, -1, width)

    def weights(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        """(rows, key heads, query heads of each · queries, keys): what each query sees of each key."""
        rows, heads = query.shape[:2]
        scores = (self.rows_of(query, key.shape[1]) * scale) @ key[:, :, self.keys].transpose(-1, -2)
        queries, last = self.unseen.shape
        scores.view(rows, heads, queries, -1)[..., -last:].masked_fill_(self.unseen, float("-inf"))  # exp of it is 0
        return scores.softmax(-1)


@cache
def _in_blocks() -> type[Function]:
    import torch

    class InBlocks(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
        ) -> Tensor:
            # Queries come transposed: their layout would be taken over, and every block written across it.
            out = torch.empty_like(query, memory_format=torch.contiguous_format)
            for block in _Block.of(query.shape[2], key.shape[2] - query.shape[2], window):
                seen = block.weights(query, key, scale) @ value[:, :, block.keys]
                out[:, :, block.queries] = seen.view(*query.shape[:2], -1, query.shape[3])
            ctx.save_for_backward(query, key, value)
            ctx.scale, ctx.window = scale, window
            return out

        @staticmethod
        def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
            query, key, value = ctx.saved_tensors
            of_query = torch.empty_like(query, memory_format=torch.contiguous_format)
            of_key, of_value = (torch.zeros(key.shape, dtype=torch.float32) for _ in range(2))  # sums over blocks
            for block in _Block.of(query.shape[2], key.shape[2] - query.shape[2], ctx.window):
                weights = block.weights(query, key, ctx.scale)
                asked, wanted = (block.rows_of(one, key.shape[1]) for one in (query, grad))
                of_weights = wanted @ value[:, :, block.keys].transpose(-1, -2)
                # Private: what torch's own autograd calls; written out it takes several passes over all scores.
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                moved = of_scores @ key[:, :, block.keys]
                of_query[:, :, block.queries] = moved.mul_(ctx.scale).view(*query.shape[:2], -1, query.shape[3])
                of_key[:, :, block.keys] += of_scores.transpose(-1, -2) @ asked
                of_value[:, :, block.keys] += weights.transpose(-1, -2) @ wanted
            return of_query, of_key.mul_(ctx.scale).to(key.dtype), of_value.to(value.dtype), None, None

    return InBlocks
