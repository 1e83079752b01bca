"""Layers that must not be quantized, and the proof on headers that were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import StepFailed
from tunesmith.tools.models.full_precision import assert_full_precision, full_precision_layers
from tunesmith.tools.models.tensor_file import TensorFileWriter, TensorSpec

DENSE = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8, "intermediate_size": 64}
MOE = DENSE | {"num_experts": 4, "moe_intermediate_size": 32}
GOOD = {
    "model.embed_tokens.weight": "BF16",
    "lm_head.weight": "BF16",
    "model.layers.0.mlp.gate.weight": "BF16",
    "model.layers.0.mlp.shared_expert_gate.weight": "F32",
    "model.layers.0.mlp.experts.0.gate_proj.weight_packed": "I32",
    "model.layers.0.mlp.experts.0.gate_proj.weight_scale": "BF16",
}


def written(folder: Path, dtypes: dict[str, str]) -> Path:
    specs = [(name, TensorSpec(dtype, (2,))) for name, dtype in dtypes.items()]
    with TensorFileWriter(folder / "model.safetensors", specs) as writer:
        for name, spec in specs:
            writer.write(name, b"\0" * spec.bytes)
    return folder


def test_routers_are_kept_only_where_there_are_experts() -> None:
    assert full_precision_layers(DENSE) == ("lm_head",)
    assert len(full_precision_layers(MOE)) > 1


def test_what_was_asked_to_stay_is_proven_too(tmp_path: Path) -> None:
    layer = "model.layers.0.self_attn.o_proj"
    packed = written(tmp_path, GOOD | {f"{layer}.weight_packed": "I32", f"{layer}.weight_scale": "BF16"})
    assert assert_full_precision(packed, full_precision_layers(MOE)).quantized_layers == 2
    with pytest.raises(StepFailed, match=r"o_proj had to stay full precision"):
        assert_full_precision(packed, full_precision_layers(MOE, ["o_proj"]))


def test_floats_where_they_must_be_are_proven_and_the_mlp_gate_projection_is_no_router(tmp_path: Path) -> None:
    proof = assert_full_precision(written(tmp_path, GOOD), full_precision_layers(MOE))
    assert proof.quantized_layers == 1
    assert set(proof.full_precision) == {name for name in GOOD if "experts.0" not in name}


@table("layer", ["lm_head", "model.layers.0.mlp.gate", "model.layers.0.mlp.shared_expert_gate"])
def test_a_packed_layer_is_named(tmp_path: Path, layer: str) -> None:
    bad = {name: dtype for name, dtype in GOOD.items() if name != f"{layer}.weight"}
    bad |= {f"{layer}.weight_packed": "I32", f"{layer}.weight_scale": "BF16"}
    with pytest.raises(StepFailed, match=layer.replace(".", r"\.")):
        assert_full_precision(written(tmp_path, bad), full_precision_layers(MOE))


def test_an_integer_weight_under_the_plain_name_is_found_too(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="I8"):
        assert_full_precision(written(tmp_path, GOOD | {"lm_head.weight": "I8"}), full_precision_layers(MOE))


def test_a_mixture_without_a_visible_router_is_not_believed(tmp_path: Path) -> None:
    hidden = {name: dtype for name, dtype in GOOD.items() if "gate.weight" not in name}
    with pytest.raises(StepFailed, match="no router"):
        assert_full_precision(written(tmp_path, hidden), full_precision_layers(MOE))


def test_a_model_in_which_nothing_was_quantized_is_refused(tmp_path: Path) -> None:
    plain = {name: dtype for name, dtype in GOOD.items() if "experts.0" not in name}
    with pytest.raises(StepFailed, match="no layer is quantized"):
        assert_full_precision(written(tmp_path, plain), full_precision_layers(MOE))
