"""Head and loss by chunks: the same sums and gradients as by all logits at once, and never all logits at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tunesmith.tools.models import training_terms
from tunesmith.tools.models.training_terms import head_bytes
from tunesmith.tools.training.head_loss import Head, head_loss

pytestmark = pytest.mark.lab

TOKENS, HIDDEN, VOCAB = 100, 32, 1500
HEADS = {"plain": (1.0, 0.0), "scaled": (0.25, 0.0), "capped": (1.0, 2.0), "both": (0.5, 3.0)}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_terms, "_CHUNK_BYTES", 4 * VOCAB * 16)


def made(dtype: Any, kind: str) -> tuple[Head, Any, Any, Any]:
    """A head, hidden states, targets, and the base's hidden states."""
    import torch

    torch.manual_seed(1)
    hidden = torch.randn(TOKENS, HIDDEN).to(dtype).requires_grad_()
    head = Head(torch.randn(VOCAB, HIDDEN).to(dtype) / 4, torch.randn(VOCAB).to(dtype) / 8, *HEADS[kind])
    return head, hidden, torch.randint(0, VOCAB, (TOKENS,)), torch.randn(TOKENS, HIDDEN).to(dtype)


def plain(head: Head, hidden: Any, targets: Any, reference: Any) -> Any:
    """All logits at once, by autograd."""
    import torch
    from torch.nn.functional import cross_entropy, kl_div, linear

    def logits(states: Any) -> Any:
        raw = linear(states, head.weight, head.bias).float() * head.scale
        return head.cap * torch.tanh(raw / head.cap) if head.cap else raw

    if reference is None:
        return cross_entropy(logits(hidden), targets, reduction="sum")
    own, base = logits(hidden).log_softmax(-1), logits(reference).log_softmax(-1)
    return kl_div(own, base, reduction="sum", log_target=True)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("kl", [False, True], ids=["cross-entropy", "divergence"])
@pytest.mark.parametrize(("name", "within"), [("float32", 1e-5), ("bfloat16", 1e-3)])
def test_sums_and_gradients_are_those_of_all_logits_at_once(kind: str, kl: bool, name: str, within: float) -> None:
    import torch

    head, hidden, targets, base = made(getattr(torch, name), kind)
    reference = base if kl else None
    expected = plain(head, hidden, targets, reference)
    (expected * 0.3).backward()
    wanted, hidden.grad = hidden.grad, None
    found = head_loss(head, hidden, targets, reference, weight=0.3)
    found.weighted.backward()
    assert found.sum.item() == pytest.approx(expected.item(), rel=within)
    assert found.weighted.item() == pytest.approx(0.3 * expected.item(), rel=within)
    assert (hidden.grad.float() - wanted.float()).norm() <= within * wanted.float().norm()
    assert int(found.right) == int((head.logits(hidden.detach()).argmax(-1) == targets).sum())


@contextmanager
def largest_tensor(sizes: list[int]) -> Iterator[None]:
    """Numbers of elements of all that is computed inside."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(one.numel() for one in (out if isinstance(out, tuple) else (out,)) if hasattr(one, "numel"))
            return out

    with Watch():
        yield
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kl", [False, True])
def test_the_logits_of_all_tokens_never_exist_at_once(kl: bool) -> None:
    import torch

    head, hidden, targets, base = made(torch.float32, "plain")
    chunked: list[int] = []
    with largest_tensor(chunked):
        head_loss(head, hidden, targets, base if kl else None).weighted.backward()
    assert max(chunked) == max(16 * VOCAB, head.weight.numel())
    at_once: list[int] = []
    with largest_tensor(at_once):
        plain(head, hidden, targets, base if kl else None).backward()
    assert max(at_once) == TOKENS * VOCAB, "the watch sees them where there are any"


def test_without_a_token_there_is_no_loss_and_no_gradient() -> None:
    import torch

    head, hidden, targets, _ = made(torch.float32, "plain")
    none = head_loss(head, hidden[:0], targets[:0])
    none.weighted.backward()
    assert (none.sum.item(), int(none.right)) == (0.0, 0) and not hidden.grad.any()


def test_its_memory_stops_growing_with_the_vocabulary_times_the_tokens() -> None:
    few, many = (head_bytes(152_000, 4096, tokens) for tokens in (1000, 2000))
    assert many - few == 3 * 1000 * 4096 * 2, "what grows are hidden states"
    assert many < 2000 * 152_000 * 4 / 2, "less than half of one fp32 copy of the logits"
