"""The golden plans and the pages' tables are what the plans say today; the whole way is told as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.gpu_rehearsal.tables import CARDS, GOLDEN, MODELS, golden, machine, model_of, on_card, pages, plans, ways
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.pipeline.fits import fits, plan_of, plans_of, with_card

pytestmark = pytest.mark.xdist_group("tables")  # the plans of a model on a card are made once


@pytest.mark.heavy
def test_the_plans_of_published_models_are_the_golden_ones() -> None:
    """Run `make tables` where a formula has changed, and look at what it changes."""
    assert golden().splitlines() == GOLDEN.read_text().splitlines()


@pytest.mark.heavy
def test_the_tables_of_the_pages_are_current() -> None:
    now = pages()
    assert {page: page.read_text() for page in now} == now


@pytest.mark.heavy
def test_what_a_cell_says_fits_is_refused_by_none_of_its_plans() -> None:
    """Every cell of the README and of docs/models.md: of a bold one all steps, from the base to the served model."""
    bold = 0
    for name in MODELS:
        for card in CARDS:
            said, known = ways(name, card), plans(name, card)
            whole = "–" not in said
            bold += whole
            for step in said.steps if whole else ():
                assert not known[step].refusals, (name, card, str(said), step)
                assert known[step].estimate.peak_vram_bytes <= on_card(card).machine.vram_free_bytes < card * GIB
    assert bold >= 60


@pytest.mark.heavy
def test_a_base_is_fetched_for_a_precision_that_its_baseline_accepts_where_any_is() -> None:
    for name in MODELS:
        for gib in (8, 11, 14, 17, 20, 23.4, 45, 70, 75):
            facts = with_card(machine(), gib)
            possible = [task for task in fits(model_of(name), facts).of("measure") if task.fits]
            assert bool(plan_of("baseline", model_of(name), facts).refusals) == (not possible), (name, gib)


THE_WAY = ("base", "baseline", "generate", "preflight at 4 bits", "train at 4 bits", "evaluate", "merge", "quantize",
           "deploy W4A16")  # fmt: skip


def test_on_24_gb_large_models_fit_from_the_base_to_the_served_model_and_are_measured_at_4_bits() -> None:
    for name in ("qwen2.5-14b", "qwen3-30b-a3b"):
        known = plans(name, 24)
        fitting = {step for step, plan in known.items() if not plan.refusals}
        assert set(THE_WAY) <= fitting, name
        for step in ("baseline", "generate", "preflight at 4 bits", "evaluate"):
            assert QUANTIZED_BASE in known[step].inputs, "all are served from the quantized base"
        assert QUANTIZED_BASE not in known["train at 4 bits"].inputs, "training has the base's own weights"
        assert known["base"].request["measuring"] == "4" and "at 4 bits" in known["base"].reasons["measuring"]
        assert max(known[step].estimate.peak_ram_bytes for step in fitting) < 16 * GIB


def test_32b_on_24_gb_trains_only_where_its_card_was_measured_to_need_no_margin() -> None:
    measured = plans_of(model_of("qwen2.5-32b"), replace(with_card(machine(), 23.4), margin=1.0))
    assert plans("qwen2.5-32b", 24)["train at 4 bits"].refusals and not measured["train at 4 bits"].refusals


def test_the_smallest_models_stay_at_16_bits() -> None:
    known = plans_of(model_of("llama-3.2-3b"), with_card(machine(), 24))
    assert known["base"].request["measuring"] == "16" and not any(QUANTIZED_BASE in p.inputs for p in known.values())
