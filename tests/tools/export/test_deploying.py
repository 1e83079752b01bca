"""What is deployed, and in which format, is decided by the card that serves it; what is typed stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.fixtures.tables import table
from tests.gpu_rehearsal.tables import machine, model_of
from tunesmith.tools.core.stage import Facts, Plan, expected
from tunesmith.tools.export.deploying import DEPLOYS, arm_for
from tunesmith.tools.export.quantize import STAGE, QuantizeRequest
from tunesmith.tools.machine.cards import card_of
from tunesmith.tools.models.measuring import MEASURED_AT
from tunesmith.tools.pipeline.fits import ROW_TOKENS, ROWS, with_card
from tunesmith.tools.serving.budget import serving_memory


def known(name: str, card: str = "", *, capability: str = "9.0") -> Facts:
    """Of a machine with a card, or without any, and a run that was merged."""
    here = with_card(machine(), card_of(card)) if card else Facts(Path(), machine(), "", "vllm")
    gpus = tuple(replace(gpu, compute_capability=capability) for gpu in here.machine.gpus)
    model = model_of(name)
    meta = {"name": name, "parameters": model.parameters, "config": dict(model.config), MEASURED_AT: "auto"}
    base = expected("base", 2 * model.parameters, **meta)
    dataset = expected("dataset", train_rows=ROWS, tokens_per_row=ROW_TOKENS)
    artifacts = {"base": base, "merged": replace(base, kind="merged"), "dataset": dataset}
    return replace(here, machine=replace(here.machine, gpus=gpus), artifacts=artifacts)


def quantized(facts: Facts, **fields: Any) -> Plan:
    return STAGE.plan(QuantizeRequest(**fields), facts, STAGE.usual_context(facts))


@table(
    ("name", "card", "capability", "scheme", "why"),
    [
        ("qwen3-8b", "24", "8.9", "FP8", "multiplies FP8; at 8 bits its server needs"),
        ("qwen3-8b", "24", "8.6", "W8A8", "multiplies 8-bit integers; at 8 bits its server needs"),
        ("qwen3-8b", "24", "8.0", "W8A8", "(compute capability 8.0)"),
        ("qwen3-30b-a3b", "24", "9.0", "W4A16", "at 8 bits its server needs"),
        ("qwen3-30b-a3b", "48", "9.0", "FP8", "at 8 bits its server needs"),
        ("qwen2.5-14b", "2x24", "9.0", "FP8", "on each of 2 cards"),
        ("llama-3.2-1b", "", "", "W4A16", "four bits take a quarter of the memory"),
    ],
)
def test_the_scheme_is_the_one_that_the_serving_card_multiplies_and_holds(
    name: str, card: str, capability: str, scheme: str, why: str
) -> None:
    plan = quantized(known(name, card, capability=capability or "9.0"))
    assert plan.request["scheme"] == scheme and why in plan.reasons["scheme"] and not plan.refusals
    again = quantized(known(name, card, capability=capability or "9.0"), **plan.request)
    assert again.request == plan.request, "what a plan decided is decided so again"


@table(
    ("typed", "scheme"),
    [
        ({"scheme": "W4A16"}, "W4A16"),
        ({"rounding": "gptq"}, "W8A8"),
        ({"rounding": "nearest"}, "FP8"),
        ({"rounding": "autoround"}, "W4A16"),
        ({"group_size": 64}, "W4A16"),
    ],
)
def test_what_is_typed_wins_over_the_card(typed: dict[str, Any], scheme: str) -> None:
    plan = quantized(known("qwen3-8b", "24"), **typed)
    assert plan.request["scheme"] == scheme and not plan.refusals
    assert typed.items() <= plan.request.items()


@table(
    ("name", "card", "arm", "why"),
    [
        (
            "qwen3-4b",
            "16",
            "adapter",
            "both need 12.7 GiB of VRAM at 16 bits, there is room for 15.4; merge and quantize",
        ),
        ("qwen2.5-14b", "2x24", "adapter", "both need 18.9 GiB of VRAM at 16 bits, there is room for 23.4"),
        ("qwen3-8b", "12", "quantized", "as its base is measured at 4 bits"),
        ("qwen3-30b-a3b", "24", "quantized", "as its base is measured at 4 bits"),
        ("qwen3-30b-a3b", "8", "quantized", "adapter and base need"),
        ("llama-3.2-1b", "", "quantized", "of memory at 16 bits, there is room for 31.6; it needs"),
    ],
)
def test_the_adapter_is_deployed_where_a_card_holds_it_on_its_base_at_16_bits(
    name: str, card: str, arm: str, why: str
) -> None:
    chosen, said = arm_for(model_of(name).config, known(name, card))
    assert chosen == arm and said.startswith(f"{DEPLOYS}the {arm}") and why in said
    assert ("--quantize) would bring" in said) == (arm == "adapter"), "what the other arm would bring"


def test_a_config_without_sizes_goes_the_whole_arc() -> None:
    assert arm_for({"model_type": "llama"}, known("qwen3-8b", "24"))[0] == "quantized"


def test_what_was_quantized_needs_room_for_one_sequence_and_other_models_for_several() -> None:
    merged = known("qwen3-4b", "8").artifacts["merged"]
    small, usual = (serving_memory(one, 4096).cache_bytes for one in (replace(merged, kind="quantized"), merged))
    assert small == max(1 << 30, usual // 4) < usual
