"""Terms of training's memory that follow from how its loss and its experts are computed."""

from __future__ import annotations

from tunesmith.tools.models.shape import ModelShape

_CHUNK_BYTES = 64 << 20
"""Of one fp32 copy of a chunk's logits."""
_FEWEST_TOKENS = 16


def chunk_tokens(vocab: int) -> int:
    """Labelled tokens whose logits exist at once."""
    return max(_FEWEST_TOKENS, _CHUNK_BYTES // (4 * vocab))


def head_bytes(vocab: int, hidden: int, labelled_tokens: int, *, value_bytes: int = 2) -> int:
    """Peak memory of the output head and the loss beside the model's weights.

    Of one chunk's logits three fp32 copies (log-probabilities of model and base, the base's probabilities) and two at
    the model's precision; of every labelled token its hidden state, the base's, and the gradient.
    """
    chunk = min(chunk_tokens(vocab), labelled_tokens)
    return chunk * vocab * (3 * 4 + 2 * value_bytes) + 3 * labelled_tokens * hidden * value_bytes


def unpacked_experts_bytes(shape: ModelShape, *, value_bytes: int = 2) -> int:
    """The experts of one layer at the precision that is computed in: 4-bit ones are unpacked a layer at a time."""
    return shape.expert_parameters * value_bytes
