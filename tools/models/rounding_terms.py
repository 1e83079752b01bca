"""The ways of rounding a model's weights, and what the one that searches for a better one holds of a layer in memory.

AutoRound (Cheng et al. 2023, arXiv 2309.05516) learns for every weight whether it is rounded up or down, by signed
gradient descent, and needs for each what training it would need: 4-bit integers of dense models alone, here.
"""

from __future__ import annotations

from typing import Literal

from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.training_terms import backward_bytes, plain_activation_bytes

Rounding = Literal["gptq", "nearest", "autoround"]
AUTOROUND: Rounding = "autoround"
ROUNDING_STEPS = 200
"""Of signed gradient descent on each layer: what AutoRound recommends."""
_BF16, _FP32 = 2, 4
_LEARNED_WEIGHT = 24
"""Of a weight whose rounding is learned, in bytes: its offset, the gradient of that and the best offset so far, in
fp32; of the graph the rounded code before and after it is cut to the range, in fp32, and the weight that comes of it
twice in bf16."""


def autoround_bytes(shape: ModelShape, *, tokens: int, row_tokens: int, rows_at_once: int) -> int:
    """AutoRound on a layer, beside its weights and one batch of rows: `_LEARNED_WEIGHT` a weight, activations, tokens.

    Activations: what training keeps of a step's rows in one layer, and their gradients. Of every calibration token: the
    input and the output as the merged model has them, the same as the rounded layers make them, cosine and sine, and
    its row of the attention mask. Five fp32 copies of the largest matrix on the way back.
    """
    step = rows_at_once * row_tokens * (plain_activation_bytes(shape) + backward_bytes(shape))
    calibration = _BF16 * tokens * (4 * shape.hidden + 2 * shape.head_dim + row_tokens)
    learned = _LEARNED_WEIGHT * (shape.attention_parameters + shape.mlp_parameters)
    return learned + step + calibration + 5 * _FP32 * shape.largest_matrix
