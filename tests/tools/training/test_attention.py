"""Attention in blocks is attention: the same values and gradients, for rows of any length, prefix, window and heads."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.tools.training.attention import BLOCK_TOKENS, causal_attention, causal_mask

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize(
    ("queries", "before", "window"),
    [
        (1, 0, None),
        (BLOCK_TOKENS, 0, None),
        (2 * BLOCK_TOKENS + 45, 0, None),
        (BLOCK_TOKENS + 1, 37, None),
        (2 * BLOCK_TOKENS + 45, 0, 1),
        (2 * BLOCK_TOKENS + 45, 60, 5),
        (2 * BLOCK_TOKENS + 45, 60, BLOCK_TOKENS + 7),
        (9, 0, 4096),
    ],
)
def test_blocks_change_no_value_and_no_gradient(
    kind: str, heads: tuple[int, int], queries: int, before: int, window: int | None
) -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    torch.manual_seed(queries)
    dtype, (of_query, of_key) = getattr(torch, kind), heads
    shapes = [(2, of_query, queries, 16), *[(2, of_key, before + queries, 16)] * 2]
    states = [torch.randn(shape).to(dtype) for shape in shapes]
    wanted = torch.randn(2, of_query, queries, 16)

    def run(attend: Any, precise: bool) -> list[Any]:
        own = [(one.float() if precise else one).clone().requires_grad_() for one in states]
        out = attend(*own)
        return [out, *torch.autograd.grad(out, own, wanted.to(out.dtype))]

    def whole(query: Any, key: Any, value: Any) -> Any:
        key, value = (one.repeat_interleave(of_query // of_key, dim=1) for one in (key, value))
        mask = causal_mask(queries, before, window, "cpu")
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3)

    found = run(lambda *own: causal_attention(*own, scale=0.3, window=window), precise=False)
    for one, other in zip(found, run(whole, precise=True), strict=True):
        near = 1e-5 if dtype == torch.float32 else 0.02
        assert one.dtype == dtype and one.shape == other.shape
        assert (one.float() - other).norm() <= near * (other.norm() + 0.1 * wanted.norm())
