"""The golden plans and the pages' tables are what the plans say today; the whole way is told as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fixtures.tables import table
from tests.gpu_rehearsal.tables import (
    CARDS,
    GOLDEN,
    MODELS,
    README_MODELS,
    cell,
    golden,
    machine,
    model_of,
    on_card,
    pages,
    plans,
    priced,
)  # fmt: skip
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.models.schemes import SCHEMES
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
@table(("name", "card"), [(name, card) for name in README_MODELS for card in CARDS])
def test_a_cell_is_what_the_plan_does_and_fits_says_the_same(name: str, card: str) -> None:
    """Thirty pairs: no plan says yes where `fits` says no, and a cell's bits are those of its plan's steps."""
    (plan, prices, why_not), said = priced(name, card), cell(name, card)
    told, by = fits(model_of(name), on_card(card)).decided, {price.stage: price for price in reversed(prices)}
    assert bool(why_not) == ("–" in said) == bool(told.lacks) == any(price.lacks for price in prices)
    assert by["preflight"].decided["load_in_4bit"] is by["train"].decided["load_in_4bit"] is (told.trained == 4)
    assert by["base"].decided["measuring"] == str(told.measured)
    arms = [spec.fields["arm"] for spec in plan.steps if spec.stage in ("evaluate", "deploy")]
    scheme = by["quantize"].decided["scheme"] if "quantize" in by else ""
    assert ("quantized" in arms) is bool(scheme) is (arms[-1] == "quantized")
    assert told.deployed == (SCHEMES[str(scheme)].bits if scheme else told.measured)
    bits = (str(told.trained), str(told.measured), str(told.deployed))
    assert all(shown in (each, "–") for shown, each in zip(said, bits, strict=True))
    for price in prices if not why_not else ():
        assert price.estimate and price.estimate.peak_vram_bytes <= on_card(card).machine.vram_free_bytes, price.stage


@pytest.mark.heavy
def test_the_pairs_hold_yes_and_no_every_precision_and_both_arms() -> None:
    """The control of the test above: a table of one answer would hold anything."""
    cells = [cell(name, card) for name in README_MODELS for card in CARDS]
    assert len(cells) == 30 and 20 <= sum("–" not in one for one in cells) < 30
    assert {one.trained for one in cells} == {"4", "16", "–"}
    assert {one.deployed for one in cells} == {"4", "8", "16", "–"}
    assert str(cell("qwen3-30b-a3b", "24")) == "**4 · 4 · 4**" and "–" in cell("qwen3-30b-a3b", "8")


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
