"""The golden plans and the pages' tables are what the plans say today; the whole way is told as it is."""

from __future__ import annotations

from tests.gpu_rehearsal.tables import GOLDEN, golden, machine, model_of, pages
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.pipeline.fits import plans_of, with_card


def test_the_plans_of_published_models_are_the_golden_ones() -> None:
    """Run `make tables` where a formula has changed, and look at what it changes."""
    assert golden().splitlines() == GOLDEN.read_text().splitlines()


def test_the_tables_of_the_pages_are_current() -> None:
    assert {page: page.read_text() for page in pages()} == pages()


THE_WAY = ("base", "baseline", "generate", "preflight at 4 bits", "train at 4 bits", "evaluate", "merge", "quantize",
           "deploy W4A16")  # fmt: skip


def test_on_24_gb_large_models_fit_from_the_base_to_the_served_model_and_are_measured_at_4_bits() -> None:
    for name in ("qwen2.5-14b", "qwen2.5-32b", "qwen3-30b-a3b"):
        plans = plans_of(model_of(name), with_card(machine(), 24))
        fitting = {step for step, plan in plans.items() if not plan.refusals}
        assert set(THE_WAY) <= fitting, name
        for step in ("baseline", "generate", "preflight at 4 bits", "evaluate"):
            assert QUANTIZED_BASE in plans[step].inputs, "all are served from the quantized base"
        assert QUANTIZED_BASE not in plans["train at 4 bits"].inputs, "training has the base's own weights"
        assert plans["base"].request["measuring"] == "4" and "at 4 bits" in plans["base"].reasons["measuring"]
        assert max(plans[step].estimate.peak_ram_bytes for step in fitting) < 16 * GIB


def test_the_smallest_models_stay_at_16_bits() -> None:
    plans = plans_of(model_of("llama-3.2-3b"), with_card(machine(), 24))
    assert plans["base"].request["measuring"] == "16" and not any(QUANTIZED_BASE in p.inputs for p in plans.values())
