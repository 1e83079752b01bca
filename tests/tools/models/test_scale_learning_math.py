"""What learning the scales of a rounded model is priced at."""

from __future__ import annotations

from typing import Any

from tunesmith.tools.core.rates import Rates
from tunesmith.tools.models.families import find_known
from tunesmith.tools.models.memory_math import quantize_memory_bytes
from tunesmith.tools.models.scale_learning_math import (
    learning_after_gptq_bytes,
    learning_scales_bytes,
    learning_scales_seconds,
)

MEASURED_BYTES = 2_958_240_768
"""Peak of a worker that quantized the bundled model in groups of 32 and then learned its scales; rows of 256 tokens."""


def config_of(name: str) -> dict[str, Any]:
    model = find_known(name)
    assert model
    return dict(model.config)


def test_the_price_holds_what_was_measured_and_not_much_more() -> None:
    config = config_of("smollm2 135m")
    gptq = quantize_memory_bytes(config, seq_len_tokens=256)
    priced = learning_after_gptq_bytes(config, seq_len_tokens=256, group_size=32, gptq_bytes=gptq)
    assert 1.0 <= priced / MEASURED_BYTES <= 1.15


def test_a_larger_model_takes_at_least_its_16_bits_and_finer_groups_more() -> None:
    config = config_of("llama 3.1 8b")
    coarse, fine = (learning_scales_bytes(config, seq_len_tokens=256, group_size=group) for group in (128, 32))
    assert 16e9 < coarse <= fine < 32e9


def test_seconds_follow_steps_and_not_rows_alone() -> None:
    rates = Rates(bf16_flops=8e11, fp32_flops=2e11, memory_bytes_s=1.1e10, disk_bytes_s=1e9)
    config = config_of("smollm2 135m")

    def seconds(steps: int) -> float:
        return learning_scales_seconds(config, rates, steps=steps, rows=200, tokens_a_row=110, on_card=False).variable

    assert seconds(200) - seconds(100) > 3 * (seconds(100) - (seconds(200) - seconds(100)))
    # 100 steps took 170 s on two idle cores of these rates, and 340 on a slow day
    assert 85 <= seconds(100) <= 510
