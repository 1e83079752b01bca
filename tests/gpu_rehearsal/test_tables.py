"""The golden plans and the README's table are what the plans say today; the whole way is told as it is."""

from __future__ import annotations

from tests.gpu_rehearsal.tables import GOLDEN, README, golden, machine, model_of, with_table
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.pipeline.fits import plans_of, with_card


def test_the_plans_of_published_models_are_the_golden_ones() -> None:
    """Run `make tables` where a formula has changed, and look at what it changes."""
    assert golden().splitlines() == GOLDEN.read_text().splitlines()


def test_the_readmes_table_is_current() -> None:
    assert README.read_text() == with_table(README.read_text())


def test_on_24_gb_large_models_are_trained_merged_quantized_and_served_and_the_base_is_not_measured_yet() -> None:
    for name in ("qwen2.5-14b", "qwen2.5-32b", "qwen3-30b-a3b"):
        plans = plans_of(model_of(name), with_card(machine(), 24))
        fitting = {step for step, plan in plans.items() if not plan.refusals}
        assert {"train at 4 bits", "merge", "quantize", "deploy W4A16"} <= fitting, name
        assert not {"baseline", "evaluate", "generate", "preflight"} & fitting, name
        assert any("measured" in note and "for now" in note for note in plans["baseline"].notes)
        assert max(plans[step].estimate.peak_ram_bytes for step in fitting) < 16 * GIB
