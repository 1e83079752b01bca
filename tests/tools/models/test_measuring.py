"""A run's measuring precision: chosen by arithmetic, sayable, and the same for everything that answers for the base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tests.gpu_rehearsal.tables import machine, model_of
from tunesmith.memory.arms import under_test
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import STORE_BYTES
from tunesmith.tools.core.stage import GIB, Facts, expected
from tunesmith.tools.evaluation.protocol import differences
from tunesmith.tools.models import base
from tunesmith.tools.models.find import find_model
from tunesmith.tools.models.measuring import (
    MEASURED_AT,
    QUANTIZED_BASE,
    adapted_modules,
    choose,
    measured_as,
    measured_base,
    measuring_bytes,
    quantized_bytes,
)
from tunesmith.tools.models.memory_math import GPU_MARGIN_BYTES, PLANNED_CONTEXT_TOKENS, RUNTIME_BYTES, serving_peaks
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.pipeline.catalog import BY_NAME
from tunesmith.tools.pipeline.fits import with_card
from tunesmith.tools.serving.budget import AT_FOUR_BITS, bases_served, serving_memory
from tunesmith.tools.serving.model_server import precision_label, weights_of

CONFIG = dict(model_of("qwen2.5-14b").config)


def made(kind: str, sha256: str, **meta: Any) -> Artifact:
    return Artifact(f"a-{sha256}", "r1", "s1", kind, Path(), sha256, 10, (), {"config": CONFIG, **meta})


def on_card(gib: float, **artifacts: Artifact) -> Facts:
    return replace(with_card(machine(), gib), artifacts=artifacts)


def test_16_bits_where_they_fit_else_4_and_the_reason_has_the_numbers() -> None:
    assert choose("auto", CONFIG, on_card(80)).bits == "16"
    four = choose("auto", CONFIG, on_card(24))
    assert four.bits == "4" and "there is room for 24.0" in four.reason and "at 4 bits 13.2" in four.reason
    neither = choose("auto", CONFIG, on_card(12))
    assert neither.bits == "16" and "does not fit either" in neither.reason


@pytest.mark.parametrize("bits", ["16", "4"])
def test_what_is_chosen_by_itself_is_what_needs_no_more_than_there_is(bits: Any) -> None:
    exactly = measuring_bytes(CONFIG, on_card(24), bits) / GIB
    other = {"16": "4", "4": "16"}[bits]  # below 4 bits' need nothing fits, and 16 are refused with the numbers
    assert choose("auto", CONFIG, on_card(exactly)).bits == bits
    assert choose("auto", CONFIG, on_card(exactly - 0.01)).bits == other


def test_what_the_user_says_goes_before_the_arithmetic() -> None:
    assert choose("16", CONFIG, on_card(24)) == ("16", "asked for")
    assert choose("4", CONFIG, on_card(80)) == ("4", "asked for")


def test_a_checkpoint_that_is_quantized_already_is_measured_as_it_is() -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": "compressed-tensors"}}
    assert choose("auto", config, on_card(24)).bits == "stored" == choose("stored", config, on_card(24)).bits
    for asked in ("16", "4"):
        with pytest.raises(BadInput, match=f"measuring={asked} cannot be had"):
            choose(asked, config, on_card(24))  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", ["train", "preflight"])
def test_nothing_is_trained_on_a_quantized_checkpoint(stage: str) -> None:
    stored = made("base", "b", name="n", parameters=1, **{MEASURED_AT: "stored"})
    stored = replace(stored, meta={**stored.meta, "config": {**CONFIG, "quantization_config": {"quant_method": "awq"}}})
    facts = on_card(24, base=stored, dataset=expected("dataset", train_rows=10, tokens_per_row=10))
    assert measured_base(facts) is stored
    declared = BY_NAME[stage].load()
    with pytest.raises(BadInput, match="adapters are trained on original weights"):
        declared.plan(declared.request(), facts, None)


def test_of_a_size_that_nobody_knows_16_bits_are_assumed() -> None:
    assert choose("auto", {}, on_card(24)).bits == choose("auto", {"model_type": "x"}, on_card(24)).bits == "16"


def test_a_teacher_is_not_measured() -> None:
    context = base.BaseContext(False, 1, config=CONFIG)
    planned = base.plan(base.BaseRequest(model="a/b", revision="0" * 40, role="teacher"), on_card(24), context)
    assert planned.request["measuring"] == "auto" and not planned.reasons
    with pytest.raises(BadInput, match="is for a base"):
        base.plan(base.BaseRequest(role="teacher", measuring="4"), on_card(24), context)


def test_the_plan_of_a_base_prices_the_quantized_base_with_it() -> None:
    context = base.BaseContext(False, 1, config=CONFIG)
    request = base.BaseRequest(model="a/b", revision="0" * 40)
    four, sixteen = base.plan(request, on_card(24), context), base.plan(request, on_card(80), context)
    assert four.request["measuring"] == "4" and four.reasons["measuring"]
    assert four.estimate.disk_bytes - sixteen.estimate.disk_bytes > 7 * GIB
    assert four.estimate.seconds > sixteen.estimate.seconds and "without data" in " ".join(four.steps)
    again = base.plan(request, on_card(24), replace(context, here=True, quantized_here=True))
    assert again.estimate.disk_bytes == STORE_BYTES and "which is here already" in again.steps[-1]


def test_what_answers_for_a_base_is_its_own_quantized_base_or_nothing() -> None:
    four, sixteen = made("base", "b", **{MEASURED_AT: "4"}), made("base", "b", **{MEASURED_AT: "16"})
    own, others = made(QUANTIZED_BASE, "q", base_sha256="b"), made(QUANTIZED_BASE, "q", base_sha256="c")
    assert measured_as(sixteen, own) is sixteen and measured_as(four, own) is own
    assert measured_as(made("base", "of an earlier version"), None).kind == "base"
    for wrong in (others, None):
        with pytest.raises(BadInput, match="its quantized base is not there"):
            measured_as(four, wrong)


def test_a_forecast_measures_at_what_the_base_will_be_fetched_for() -> None:
    def forecast(asked: str) -> Artifact:
        return measured_base(on_card(80, base=expected("base", parameters=1, config=CONFIG, **{MEASURED_AT: asked})))

    assert forecast("auto").kind == "base" and forecast("4").kind == QUANTIZED_BASE
    assert 0 < forecast("4").bytes < 10 * GIB


def test_a_base_at_16_bits_that_does_not_fit_is_told_what_would() -> None:
    facts = on_card(24, base=made("base", "b", **{MEASURED_AT: "16"}))
    [way] = bases_served(facts)
    assert way.settings == AT_FOUR_BITS and way.peak_bytes <= 24 * GIB


def test_a_quantized_base_on_a_card_has_room_for_one_long_conversation_where_others_have_four() -> None:
    """4 bits are chosen where memory is short; how many wait for their turn changes no answer."""
    needed = [serving_memory(made(kind, "x")).vram_bytes for kind in ("base", QUANTIZED_BASE)]
    assert needed[1] < needed[0]


def test_what_measuring_needs_is_what_the_baseline_s_server_needs_and_no_process_beside_it_on_a_card() -> None:
    for bits, kind in (("16", "base"), ("4", QUANTIZED_BASE)):
        weights = 2 * ModelShape.of(CONFIG).parameters if bits == "16" else quantized_bytes(CONFIG)
        server = serving_memory(replace(made(kind, "x"), bytes=weights), PLANNED_CONTEXT_TOKENS)
        needed = measuring_bytes(CONFIG, on_card(24), bits)  # type: ignore[arg-type]
        assert needed == serving_peaks(server, on_gpu=True)["vram_bytes"]
    on_cpu = replace(on_card(24), machine=machine())
    assert measuring_bytes(CONFIG, on_cpu, "4") == server.ram_bytes + RUNTIME_BYTES


def test_a_mixture_that_is_measured_at_4_bits_has_adapters_of_attention_alone() -> None:
    mixture = dict(model_of("qwen3-30b-a3b").config)
    assert adapted_modules(mixture, quantized_base=True) == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert adapted_modules(mixture, quantized_base=False) == () == adapted_modules(CONFIG, quantized_base=True)
    taken = replace(made(QUANTIZED_BASE, "x"), meta={"config": mixture})
    ranks = [serving_memory(taken, rank=rank).vram_bytes for rank in (16, 64)]
    assert ranks[1] - ranks[0] < GIB // 10, "slots of experts would be 4.6 GiB more"


def test_the_precision_is_a_part_of_the_key_in_which_base_and_adapter_must_agree(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"dtype": "bfloat16"}')
    sixteen = replace(made("base", "b"), path=tmp_path)
    quantized = replace(made(QUANTIZED_BASE, "0123456789abcdef", base_sha256="b"), path=tmp_path)
    other = replace(quantized, sha256="fedcba9876543210")
    assert weights_of(sixteen) == weights_of(quantized) == "b", "the same weights, at another precision"
    keys = [{"weights": weights_of(a), "precision": precision_label(a)} for a in (sixteen, quantized, other)]
    assert len({key["precision"] for key in keys}) == 3, "nor are two quantizations of one base the same"
    for key in keys[1:]:
        assert differences(keys[0], key, under_test("base", "adapter")) == ["precision"]
        assert differences(keys[0], key, under_test("base", "prompted")) == ["precision"]
        assert not differences(keys[0], key, under_test("base", "merged")), "that hop changes the precision too"


@table(
    ("changes", "parameters", "noted"),
    [({}, 1.0, False), ({}, 1.2, False), ({}, 0.96, True), ({"model_type": "mamba"}, 0.5, False), ({}, 0, False),
     ({"quantization_config": {"quant_method": "awq"}}, 0.3, False)],
)  # fmt: skip
def test_weights_that_lack_what_their_config_describes_are_noted_before_they_are_copied(
    changes: dict[str, object], parameters: float, noted: bool
) -> None:
    config = {**CONFIG, **changes}
    whole = ModelShape.of(config).parameters
    context = base.BaseContext(False, 1, config=config, parameters=int(parameters * whole))
    notes = base.plan(base.BaseRequest(), on_card(80), context).notes
    assert sum(f"of the {whole:,} parameters" in note for note in notes) == noted
    untried = [note for note in notes if note.startswith("mamba models were never tried here: ")]
    assert len(untried) == (changes.get("model_type") == "mamba") and len(notes) == noted + len(untried)
    assert base.plan(base.BaseRequest(role="teacher"), on_card(80), context).notes == notes[:noted], "it is not trained"


def test_a_copy_of_a_folder_needs_its_own_bytes_of_disk_and_no_more(tmp_path: Path) -> None:
    plan = base.plan(
        base.BaseRequest(model=str(tmp_path)), on_card(80), base.BaseContext(False, 3 * GIB, config=CONFIG)
    )
    written = plan.estimate.disk_bytes - STORE_BYTES
    assert written == 3 * GIB, "beside it only the store is written: a disk with so much room is enough"


def test_the_precision_is_chosen_for_the_context_of_a_whole_plan() -> None:
    """Its longest case asks for more than the usual context, and nothing is refused after the download for that."""
    model, facts = find_model("gemma-2-9b")[0], on_card(23.4)
    usual = serving_memory(replace(made("base", "x"), bytes=2 * model.parameters, meta={"config": dict(model.config)}))
    assert usual.vram_bytes + GPU_MARGIN_BYTES < facts.serving_room_bytes < measuring_bytes(model.config, facts, "16")
    assert choose("auto", model.config, facts).bits == "4"
