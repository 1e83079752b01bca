"""What learning the scales of a rounded model takes (`export.scale_distillation`): bytes and seconds."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.tools.core.rates import Rates, Seconds
from tunesmith.tools.models.memory_math import RUNTIME_BYTES
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import training_seconds
from tunesmith.tools.models.training_terms import backward_bytes, head_bytes, plain_kept_bytes

ROWS_A_STEP = 8
_BF16 = 2
_A_SCALE = 16
"""The factor, its gradient and Adam's two moments, in fp32."""
_STORED_SCALE = 4


def learning_scales_bytes(config: Mapping[str, object], *, seq_len_tokens: int, group_size: int) -> int:
    """Peak memory: runtime, and the larger of the 16-bit model and what learning holds.

    That is a byte for each code, a scale with its factor for each group, what is not rounded, one layer's weights made,
    as codes at the model's precision, and with their gradient, the inputs of all layers, one layer's activations, and
    a chunk of the head.
    """
    shape = ModelShape.of(config)
    codes, tokens = shape.linear_parameters, ROWS_A_STEP * seq_len_tokens
    scales = codes // group_size if group_size else codes // shape.hidden
    other = _BF16 * (shape.parameters - codes)
    made = 3 * _BF16 * codes // shape.layers
    activations = tokens * (_BF16 * shape.hidden * shape.layers + plain_kept_bytes(shape) + backward_bytes(shape))
    learning = codes + scales * (_A_SCALE + _STORED_SCALE) + other + made + activations
    learning += head_bytes(shape.vocab, shape.hidden, tokens)
    return RUNTIME_BYTES + max(_BF16 * shape.parameters, learning)


def learning_after_gptq_bytes(
    config: Mapping[str, object], *, seq_len_tokens: int, group_size: int, gptq_bytes: int
) -> int:
    """Peak RAM where GPTQ ran in the same process before, on the CPU, and its heap is still there.

    Both peaks and a tenth: of the bundled model they are 1.14 and 1.62 GB, and 2.96 GB were measured.
    """
    learning = learning_scales_bytes(config, seq_len_tokens=seq_len_tokens, group_size=group_size)
    return (gptq_bytes + learning) * 11 // 10


def learning_scales_seconds(
    config: Mapping[str, object], rates: Rates, *, steps: int, rows: int, tokens_a_row: int, on_card: bool
) -> Seconds:
    """The rows once through the merged model, then training with activations computed again.

    Beside what LoRA training does (`training_seconds`), each weight has a gradient of its own, which takes the products
    of another forward pass, and is made from its code three times a step (16 bytes each time, read and written).
    """
    shape = ModelShape.of(config)
    tokens = steps * ROWS_A_STEP * tokens_a_row
    trained = training_seconds(
        config,
        rates,
        tokens=tokens,
        micro_steps=steps,
        on_card=on_card,
        read_tokens=rows * tokens_a_row + tokens,
        checkpointing=True,
    )
    return trained + Seconds(train=3 * 16 * steps * shape.linear_parameters / rates.memory_bytes_s)
