"""What the items are held against, by hand for a small config."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.tools.core.rates import Rates
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.models.fitting import Training
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.pipeline.gpu_check.check import Sizes
from tunesmith.tools.pipeline.gpu_check.expected import (
    PEAK,
    four_bit_bytes,
    quantizing_bytes,
    rates_within,
    step_seconds,
    tensors_bytes,
)

SMALL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "tie_word_embeddings": True,
}  # fmt: skip
WAY = Training(rows_at_once=4, longest_row_tokens=32, lora_rank=8)
RATES = Rates(1e12, 2e11, 1e11, 1e9)
LINEAR = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
OTHER = 256 * 64 + 2 * 2 * 64 + 64
"""Embeddings and norms."""


def test_a_peak_is_its_tensors_alone() -> None:
    tokens, adapter = 4 * 32, 2 * 8 * ((64 + 64) * 2 + (64 + 32) * 2 + 3 * (64 + 128))
    # q/k/v and gate/up inputs, five times the queries, ranks, the MLP's four; norms in fp32
    layer = tokens * (2 * (2 * 64 + 5 * 64 + 7 * 8 + 4 * 128) + 4 * 2 * 64)
    backward = tokens * 2 * (3 * 128 + 4 * 64)
    head = tokens * 256 * (12 + 4) + 3 * tokens * 64 * 2
    expected = 2 * (LINEAR + OTHER) + 16 * adapter + 2 * layer + backward + head
    assert tensors_bytes(SMALL, WAY) == expected


def test_checkpointing_and_four_bits_take_less_of_it() -> None:
    plain = tensors_bytes(SMALL, WAY)
    assert tensors_bytes(SMALL, Training(4, 32, 8, checkpointing=True)) < plain
    four = tensors_bytes(SMALL, Training(4, 32, 8, load_in_4bit=True))
    unpacked = 2 * ModelShape.of(SMALL).largest_matrix
    assert plain - four == pytest.approx(LINEAR * (2 - 0.5159) - unpacked, rel=1e-3)


def test_four_bits_are_counted_by_weight() -> None:
    predicted = four_bit_bytes(SMALL)
    assert predicted["all"] == pytest.approx(LINEAR * (0.5 + 1 / 64 + 4 / 64 / 256) + 2 * OTHER, abs=1)
    assert predicted["experts"] == 0
    mixture = Sizes().mixture
    stacks = 4 * 32 * 3 * 1024 * 512
    assert four_bit_bytes(mixture)["experts"] == pytest.approx(stacks * 0.515869, rel=1e-5)


def test_a_step_is_priced_without_loading_and_without_the_programs_start() -> None:
    tokens, shape = 4 * 32, ModelShape.of(SMALL)
    products = 2 * 2 * tokens * shape.active_parameters / (0.55 * 1e12)
    moved = 4 * tokens * 2 * (16 * 64 + 7 * 128) * 2 / (0.75 * 1e11)
    assert step_seconds(SMALL, RATES, WAY, on_card=True) == pytest.approx(products + moved + 2 * 6e-4)
    assert step_seconds(SMALL, RATES, WAY, on_card=False) > step_seconds(SMALL, RATES, WAY, on_card=True)


def test_quantizing_is_counted_without_its_context() -> None:
    assert 0 < quantizing_bytes(SMALL, 64) < 64 << 20


def test_what_is_allowed_is_what_is_promised() -> None:
    assert PEAK == (0.85, 1.15)
    assert rates_within(Rates(1, 1, 1, 1, spread=3.0)) == (1 / 3, 3.0)


def test_the_usual_sizes_are_for_a_card_of_8_gb() -> None:
    sizes = Sizes()
    ways = [
        (sizes.dense, Training(sizes.rows, sizes.tokens, 16)),
        (sizes.mixture, Training(sizes.rows, sizes.tokens, 16)),
        (sizes.large, Training(sizes.large_rows, sizes.large_tokens, 16)),
    ]
    for config, way in ways:
        assert 0.5 * GIB < way.peak_bytes(config) < 7 * GIB, "worth measuring, and small enough"
