"""The quantized base: rounded file by file, audited as any quantized model, its routers untouched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tunesmith.memory.errors import StepFailed
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.round_to_nearest import round_base
from tunesmith.tools.models.full_precision import assert_full_precision, full_precision_layers
from tunesmith.tools.models.measuring import quantized_bytes
from tunesmith.tools.models.tensor_file import TensorFileWriter, TensorSpec, read_headers, weight_files

pytestmark = pytest.mark.lab


def rounded(model: Path, out: Path) -> Path:
    out.mkdir()
    seen: list[tuple[float, float]] = []
    made = round_base(model, out, lambda done, total, note: seen.append((done, total)))
    assert seen[-1] == (made.layers, made.layers) and len(seen) == made.layers
    return out


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3_moe", "mixtral", "qwen2_moe"])
def test_every_family_passes_the_audit_with_its_routers_at_full_precision(kind: str, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", kind)
    out = rounded(model, tmp_path / "q")
    config = json.loads((model / "config.json").read_text())
    audit = audit_quantized(out, model, (), group_size=64)
    assert not audit.faults, audit.faults
    assert assert_full_precision(out, full_precision_layers(config)).quantized_layers == audit.quantized_layers >= 14
    assert "quantization_config" not in config and quantized_bytes(config) == pytest.approx(audit.bytes, rel=0.02)


def test_a_model_in_shards_stays_in_shards_with_an_index_of_its_own(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", shard_size="60KB")
    out = rounded(model, tmp_path / "q")
    assert [file.name for file in weight_files(out)] == [file.name for file in weight_files(model)]
    assert len(weight_files(out)) > 1 and not audit_quantized(out, model, ()).faults


def test_experts_in_one_tensor_are_refused_by_name(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", "qwen3_moe")
    headers = read_headers(weight_files(model))
    name = "model.layers.0.mlp.experts.gate_up_proj"
    held_with_it = {**headers, name: TensorSpec("BF16", (2, 4, 4))}
    with TensorFileWriter(model / "model.safetensors", held_with_it.items()) as writer:
        for held, spec in held_with_it.items():
            writer.write(held, bytes(spec.bytes))
    (tmp_path / "q").mkdir()
    with pytest.raises(StepFailed, match=r"experts as one tensor .*gate_up_proj.* measuring=16"):
        round_base(model, tmp_path / "q", lambda *_: None)


def test_another_models_codes_do_not_pass_for_this_base(tmp_path: Path) -> None:
    one = write_tiny_model(tmp_path / "one")
    other = write_tiny_model(tmp_path / "other", intermediate_size=128, initializer_range=0.5)
    faults = audit_quantized(rounded(one, tmp_path / "q"), other, ()).faults
    assert any(fault.kind in ("other model", "precision") for fault in faults)
