"""What a search for a better rounding takes, by arithmetic: above what it was seen to take, and not far above."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.tools.core.rates import Rates
from tunesmith.tools.models.bundled import QWEN_CODER, SMOLLM2
from tunesmith.tools.models.fitting import quantizing_that_fits
from tunesmith.tools.models.memory_math import quantize_cache_bytes, quantize_memory_bytes, quantize_vram_bytes
from tunesmith.tools.models.rounding_terms import AUTOROUND, Rounding
from tunesmith.tools.models.time_math import autoround_seconds, gptq_seconds

SMALL, LARGE = dict(SMOLLM2.config), dict(QWEN_CODER.config)


def need(config: dict[str, object], rounding: Rounding, samples: int = 64, tokens: int = 256) -> int:
    return quantize_memory_bytes(config, seq_len_tokens=tokens, rounding=rounding, samples=samples)


def test_a_search_grows_with_rows_and_widths_and_not_with_depth(rounding: Rounding = AUTOROUND) -> None:
    deep: dict[str, Any] = SMALL | {"num_hidden_layers": 300}
    assert need(SMALL, rounding) == need(deep, rounding)
    assert need(SMALL, rounding) < need(SMALL, rounding, samples=512) < need(LARGE, rounding, samples=512)
    assert need(LARGE, "nearest") < need(LARGE, rounding)


def test_of_a_large_layer_learning_the_rounding_takes_most() -> None:
    assert need(LARGE, "autoround") > need(LARGE, "gptq")
    on_card = quantize_vram_bytes(LARGE, seq_len_tokens=256, rounding="autoround", samples=64)
    assert on_card > quantize_vram_bytes(LARGE, seq_len_tokens=256, rounding="gptq")
    ways: tuple[Rounding, ...] = ("gptq", "autoround")
    less, more = (quantize_cache_bytes(LARGE, samples=64, seq_len_tokens=256, rounding=way) for way in ways)
    assert less < more


def test_where_a_search_does_not_fit_shorter_rows_come_first_then_gptq_then_the_nearest_step() -> None:
    tokens, order = 2048, dict[str, None]()
    most = need(LARGE, "autoround", tokens=tokens)
    for free in range(most, most // 6, -(most // 300)):
        found = quantizing_that_fits(LARGE, seq_len_tokens=tokens, free_ram_bytes=free, free_vram_bytes=None,
                                     rounding="autoround", samples=64)  # fmt: skip
        assert all(fitting.peak_bytes <= free for fitting in found)
        order[found[0].settings.split(",")[0].split("=max")[0] if found else ""] = None
    ways = [name for name in order if name.startswith("rounding=")]
    assert next(iter(order)) == "" and list(order)[1] == "max_seq_len_tokens=1024"
    assert ways == ["rounding=gptq", "rounding=nearest"]


XEON = Rates(2.36e12, 3.2e11, 1.32e10, 1.5e9)
"""Two cores with AMX, as `probe_job` measured them beside other programs."""


def test_what_a_search_took_is_priced() -> None:
    """Of 135M in groups of 32 on 64 rows, 6,650 tokens: peak resident sizes, and processor seconds of two cores.

    AutoRound's whole 200 steps were timed on one layer: 65 processor seconds.
    """
    assert 0.94e9 * 0.85 <= need(SMALL, "autoround") <= 2 * 0.94e9
    layers = 30
    learned = autoround_seconds(SMALL, XEON, tokens=6650, tokens_a_step=2048, on_card=False)
    assert learned.variable / layers == pytest.approx(65 / 2, rel=0.35)
    assert gptq_seconds(SMALL, XEON, tokens=6650).total < learned.total
