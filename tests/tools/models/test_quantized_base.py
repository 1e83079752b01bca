"""What is said of an existing quantized checkpoint before anything of it is copied: its price, or why it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tiny_model import make_tiny_model
from tests.gpu_rehearsal.tables import machine, model_of
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import GIB, Inputs
from tunesmith.tools.export.round_to_nearest import quantization
from tunesmith.tools.models import base
from tunesmith.tools.models.packing import Packing
from tunesmith.tools.models.quantized_base import Existing, Source
from tunesmith.tools.pipeline.fits import with_card

COMMIT = "0123456789abcdef" * 2 + "01234567"
OURS = dict(quantization(32, ["lm_head"]))
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True, "sym": True}


def weights(**changes: Any) -> dict[str, Any]:
    """compressed-tensors' words with others for its weights."""
    group: dict[str, Any] = OURS["config_groups"]["group_0"]  # type: ignore[index]
    return {**OURS, "config_groups": {"group_0": {**group, "weights": {**group["weights"], **changes}}}}


def asked(tmp_path: Path, quantization_config: Any, **fields: Any) -> base.BaseContext:
    """What is inspected for a base and a checkpoint of these words; `config` are changes of the checkpoint's own."""
    config = fields.pop("config", {})
    model = make_tiny_model(tmp_path / "base")
    folder = make_tiny_model(tmp_path / "q", **config, quantization_config=quantization_config)
    request = base.BaseRequest(**{"model": str(model), "quantized": str(folder), **fields})
    return base.inspect_inputs(request, Inputs(Store(tmp_path / "home"), ""))


def test_what_can_be_held_against_the_base_is_taken(tmp_path: Path) -> None:
    existing = asked(tmp_path, OURS).existing
    assert existing is not None and existing.bytes and existing.fingerprint
    assert Packing.of({"quantization_config": GPTQ}, "it").ordered
    assert Packing.of({"quantization_config": {**GPTQ, "group_size": -1}}, "it").group == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"quant_method": "awq", "bits": 4}, "AWQ folds its scales into the norms, so an adapter .* see other inputs"),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes"),
        ({"quant_method": "hqq"}, "quant_method is hqq, which is not known here"),
        (None, "is not quantized"),
        ({"quant_method": "compressed-tensors"}, "not whole"),
        ({**OURS, "config_groups": {"a": {}, "b": {}}}, "2 groups of layers"),
        ({**OURS, "kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
        ({**OURS, "transform_config": {"config_groups": {"u": {}}}}, "transform_config"),
        (weights(num_bits=8), r"8 bits \(int\)"),
        (weights(symmetric=False), "zero points"),
        (weights(dynamic=True), "scales are not stored"),
        ({**GPTQ, "bits": 8}, "8 bits"),
        ({**GPTQ, "sym": False}, "zero points"),
        ({**GPTQ, "dynamic": {"-:.*": {}}}, "sets dynamic"),
        ({**GPTQ, "checkpoint_format": "marlin"}, "marlin"),
    ],
)
def test_every_other_quantization_is_refused_by_name_with_what_to_do(words: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"quantized=.*{told}.*; give a compressed-tensors .* or leave quantized out"):
        asked(tmp_path, words)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"num_hidden_layers": 2}, "num_hidden_layers is 2 there and 1 in the base"),
        ({"hidden_size": 32}, "hidden_size is 32 there and 16"),
        ({"intermediate_size": 64}, "intermediate_size is 64 there and 32"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1 there and 2"),
        ({"vocab_size": 300}, "vocab_size is 300 there and 258"),
        ({"model_type": "qwen2"}, "model_type is qwen2 there and llama"),
        ({"rope_theta": 5e5}, ""),
    ],
)
def test_another_architecture_or_size_is_refused_with_both_figures(config: Any, told: str, tmp_path: Path) -> None:
    if not told:  # which the base's config does not say
        assert asked(tmp_path, OURS, config=config).existing
        return
    with pytest.raises(BadInput, match=rf"is another model: {told}.*made from this base, or leave quantized out"):
        asked(tmp_path, OURS, config=config)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"measuring": "16"}, "measured at 4 bits, and measuring=16 measures something else; leave one of the two out"),
        ({"measuring": "stored"}, "measuring=stored"),
        ({"role": "teacher"}, "is for a base; a teacher answers as it is stored"),
        ({"quantized": "org/name"}, "neither a folder nor a hub id at a commit; .*40 hex digits"),
        ({"quantized": f"org/name@{COMMIT[:12]}"}, "at a commit"),
        ({"quantized": "/nowhere/at/all"}, "not a folder"),
    ],
)
def test_what_has_no_place_beside_it_is_refused_in_one_sentence(
    fields: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        asked(tmp_path, OURS, **fields)
    assert "\n" not in str(caught.value)


def test_a_quantized_base_has_no_place_for_another(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "quantized-base", quantization_config=OURS)
    with pytest.raises(BadInput, match="this base is quantized already; leave quantized out"):
        asked(tmp_path, OURS, model=str(model))


def test_code_that_would_come_along_is_refused_as_of_every_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="auto_map"):
        asked(tmp_path, OURS, config={"auto_map": {"AutoModel": "evil.Evil"}})


def test_the_price_holds_the_download_and_the_audit() -> None:
    config = dict(model_of("qwen2.5-14b").config)
    request = base.BaseRequest(model="a/b", revision="0" * 40, quantized=f"org/name@{COMMIT}")
    found = Existing(Source.of(request.quantized), 9 * GIB, config={**config, "quantization_config": GPTQ})
    context = base.BaseContext(False, 28 * GIB, config=config, existing=found)
    facts = with_card(machine(), 80)
    plan, without = (
        base.plan(request, facts, context),
        base.plan(
            base.BaseRequest(model="a/b", revision="0" * 40), facts, base.BaseContext(False, 28 * GIB, config=config)
        ),
    )
    assert plan.request["measuring"] == "4", "whatever would fit"
    assert plan.reasons["measuring"] == f"org/name@{COMMIT[:12]} is taken as its quantized base"
    assert plan.estimate.disk_bytes - without.estimate.disk_bytes == 9 * GIB
    assert plan.estimate.seconds - without.estimate.seconds > 9 * GIB / 2e7
    assert plan.estimate.peak_ram_bytes >= without.estimate.peak_ram_bytes and "9.00 GiB" in plan.writes[-1]
    unknown = base.plan(
        request, facts, base.BaseContext(False, 28 * GIB, config=config, existing=Existing(found.source))
    )
    assert "neither its time nor its disk" in " ".join(unknown.steps) and "size unknown" in unknown.writes[-1]


def test_a_forecast_measures_at_4_bits(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "base")
    made = base.expected_artifact(base.BaseRequest(model=str(model), quantized="./q"), {})
    assert made is not None and made.meta["measured_at"] == "4"
