"""The output head with its loss, a few labelled tokens at a time, so that the logits of a batch never exist at once.

For a vocabulary of 152k the fp32 logits of 2,048 tokens are 1.2 GiB, and autograd keeps three such tensors. Here each
chunk's logits are made, turned into the loss's sum and into the gradient of the hidden states, and thrown away: what
stays is one gradient of (labelled, hidden). The head itself is frozen, so its own gradient is never needed.

Covers heads that are a matrix, with a bias or not, whose logits may be scaled (Granite, Cohere) and softly capped
(Gemma). Whatever else a model does to its logits shows itself when `find_head` tries, and there is no head then.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.memory.json_values import as_float, as_object
from tunesmith.tools.models.training_terms import chunk_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from torch.autograd.function import Function, FunctionCtx

    from tunesmith.tools.training.library import Model


class Head(NamedTuple):
    """A frozen output head: logits = cap · tanh(scale · (hidden · weightᵀ + bias) / cap); without a cap, no tanh."""

    weight: Tensor
    """(vocab, hidden)."""
    bias: Tensor | None = None
    """(vocab,), or None."""
    scale: float = 1.0
    cap: float = 0.0
    """0: none."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, hidden) → (tokens, vocab) in fp32."""
        import torch

        raw = torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()
        if self.scale != 1.0:
            # In place where autograd does not watch: a copy of a chunk's logits is as large as they are.
            raw = raw.mul_(self.scale) if not raw.requires_grad else raw * self.scale
        return self.cap * torch.tanh(raw / self.cap) if self.cap else raw

    def gradient(self, of_logits: Tensor, logits: Tensor) -> Tensor:
        """Gradient of the hidden states (tokens, hidden) from that of the logits, both (tokens, vocab)."""
        if self.cap:
            of_logits = of_logits * (1 - (logits / self.cap) ** 2)
        return (of_logits.to(self.weight.dtype) @ self.weight) * self.scale


def find_head(model: Model, config: Mapping[str, object]) -> Head | None:
    """The head of a model, tried on 8 tokens against its own logits; None where they are made in another way."""
    import torch

    module = model.get_output_embeddings()
    if module is None or type(module) is not torch.nn.Linear:
        return None
    text = {**config, **as_object(config.get("text_config", {}))}
    cap = as_float(text.get("final_logit_softcapping") or 0.0)
    # Cohere multiplies by its scale, Granite divides by its own.
    scale = as_float(text.get("logit_scale") or 1.0) / as_float(text.get("logits_scaling") or 1.0)
    training = model.training
    # Eight tokens, low ids that every vocabulary has: enough to hold both heads against each other.
    ids = torch.arange(8, device=model.device)[None]
    try:
        with torch.no_grad():
            own = model.eval()(input_ids=ids, use_cache=False).logits[0].float()  # no cache: nothing goes on from it
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    finally:
        model.train(training)
    head = Head(module.weight.detach(), None if module.bias is None else module.bias.detach(), scale, cap)
    # Of the largest logit: bf16 rounds by 0.4 %, and what a head of another kind does is far more.
    near = 1e-2 if own.abs().max() > 0 and hidden.dtype != torch.float32 else 1e-5
    same = (head.logits(hidden) - own).abs().max() <= near * own.abs().max()
    return head if bool(same) else None


class HeadLoss(NamedTuple):
    """The loss of some tokens."""

    weighted: Tensor
    """weight · sum, with its gradient."""
    sum: Tensor
    """Over tokens, without a gradient."""
    right: Tensor
    """How many tokens the model would have chosen."""


def head_loss(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    reference: Tensor | None = None,
    *,
    weight: float = 1.0,
    each: Tensor | None = None,
) -> HeadLoss:
    """The loss of `hidden` (tokens, hidden) before the head against `targets` (tokens,).

    It is cross-entropy; with `reference`, the base's hidden states for the same tokens, it is KL(base ‖ model) over the
    vocabulary, in nats. `weight`, and `each` (tokens,) of every token beside it, go into the gradient before that is
    rounded to the model's precision.
    """
    return HeadLoss(*_chunked().apply(hidden, head, targets, reference, weight, each))


@cache
def _chunked() -> type[Function]:
    import torch

    class ChunkedLoss(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: FunctionCtx,
            hidden: Tensor,
            head: Head,
            targets: Tensor,
            reference: Tensor | None,
            weight: float,
            each: Tensor | None,
        ) -> tuple[Tensor, Tensor, Tensor]:
            grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
            total, weighted = (torch.zeros((), device=hidden.device) for _ in range(2))
            right = torch.zeros((), device=hidden.device, dtype=torch.long)
            size = chunk_tokens(len(head.weight))
            for start in range(0, len(hidden), size):
                some = slice(start, start + size)
                logits, wanted = head.logits(hidden[some]), targets[some, None]
                right += (logits.argmax(-1) == wanted[:, 0]).sum()
                log_p = logits.log_softmax(-1)  # (chunk, vocab)
                logits = logits if head.cap else None
                if reference is None:
                    costs = -log_p.gather(1, wanted)[:, 0]
                    total += costs.sum()
                    weighted += (costs if each is None else costs * each[some]).sum()
                else:
                    log_q = head.logits(reference[some].to(hidden.device)).log_softmax(-1)
                    q = log_q.exp()
                    total += torch.dot(q.flatten(), log_q.sub_(log_p).flatten())
                    weighted = total
                if grad is None:
                    continue
                of_logits = log_p.exp_()  # minus the distribution that is wanted, the gradient of either loss
                if reference is None:
                    of_logits.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=of_logits.dtype))
                else:
                    of_logits.sub_(q)
                of_logits.mul_(weight if each is None else weight * each[some, None])
                grad[some] = head.gradient(of_logits, logits)
            ctx.save_for_backward(grad)
            ctx.mark_non_differentiable(total, right)
            return weighted * weight, total, right

        @staticmethod
        def backward(ctx: FunctionCtx, of_weighted: Tensor, *others: object) -> tuple[Tensor | None, ...]:
            (grad,) = ctx.saved_tensors
            return grad * of_weighted, None, None, None, None, None

    return ChunkedLoss
