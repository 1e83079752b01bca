"""Merging: the sum that peft computes, without peft; resumable, and nothing that is more than a sum."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_adapter, write_tiny_model
from tunesmith.memory.errors import StepFailed
from tunesmith.tools.export.merge_job import compare_logits, lora_scale, merge_adapter
from tunesmith.tools.models.tensor_file import INDEX_NAME

MIXTURES: dict[str, dict[str, Any]] = {"qwen3_moe": {}, "mixtral": {"num_local_experts": 4}}
_ADAPTED = "model.layers.0.self_attn.q_proj.weight"
pytestmark = pytest.mark.lab


def quiet(*_: Any) -> None:
    """No progress."""


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def peft_merged(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """What peft's merge saves, in fp32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
    return tensors(out)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8}, "alpha_pattern": {"v_proj": 32}},
        {"target_modules": ["q_proj", "down_proj"]},
    ],
    ids=["plain", "rslora", "patterns", "two-targets"],
)
def test_the_sum_is_pefts_rounded_once(tiny_llama: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    import torch

    adapter = write_adapter(tiny_llama, tmp_path / "adapter", **options)
    merge_adapter(tiny_llama, adapter, tmp_path / "merged", quiet)
    expected, base = peft_merged(tiny_llama, adapter, tmp_path / "peft"), tensors(tiny_llama)
    changed = 0
    for name, value in tensors(tmp_path / "merged").items():
        assert value.dtype == torch.bfloat16
        assert torch.allclose(value.float(), expected[name], atol=1e-6, rtol=2**-8), name
        changed += not torch.equal(value, base[name])
    assert compare_logits(tiny_llama, adapter, tmp_path / "merged", quiet)["weight_error"] < 1e-6
    assert changed == sum("lora_A" in name for name in tensors(adapter))


def test_an_fp32_merge_has_the_logits_of_base_and_adapter(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = write_tiny_model(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).save_pretrained(base)
    adapter = write_adapter(base, tmp_path / "adapter")
    merge_adapter(base, adapter, tmp_path / "merged", quiet)
    measured = compare_logits(base, adapter, tmp_path / "merged", quiet)
    assert measured["argmax_agreement"] == 1.0
    assert measured["update_error"] < 1e-4 and abs(measured["update_share"] - 1) < 1e-4


def test_everything_beside_the_weights_is_the_bases_own(tiny_llama: Path, tmp_path: Path) -> None:
    merge_adapter(tiny_llama, write_adapter(tiny_llama, tmp_path / "adapter"), tmp_path / "merged", quiet)
    for file in tiny_llama.iterdir():
        if file.suffix != ".safetensors":
            assert (tmp_path / "merged" / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in tiny_llama.iterdir()} == {file.name for file in (tmp_path / "merged").iterdir()}


def test_a_merge_cut_off_does_not_redo_a_finished_shard(tmp_path: Path) -> None:
    import torch

    base = write_tiny_model(tmp_path / "base", shard_size="40KB")
    adapter = write_adapter(base, tmp_path / "adapter")

    class Cut(Exception):
        pass

    def cut_at_third(done: float, total: float, note: str) -> None:
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        merge_adapter(base, adapter, tmp_path / "merged", cut_at_third)
    first = sorted((tmp_path / "merged").glob("*.safetensors"))
    assert len(first) == 2
    stamps = {path: path.stat().st_mtime_ns for path in first}
    merge_adapter(base, adapter, tmp_path / "merged", quiet)
    assert {path: path.stat().st_mtime_ns for path in first} == stamps
    expected = peft_merged(base, adapter, tmp_path / "peft")
    for name, value in tensors(tmp_path / "merged").items():
        assert torch.allclose(value.float(), expected[name], atol=1e-6, rtol=2**-8), name


def test_what_another_adapter_left_half_done_is_not_taken_over(tmp_path: Path) -> None:
    import torch

    base = write_tiny_model(tmp_path / "base", shard_size="40KB")
    one = write_adapter(base, tmp_path / "one")
    other = write_adapter(base, tmp_path / "other", lora_alpha=64)

    def cut(done: float, total: float, note: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_adapter(base, one, tmp_path / "merged", cut)
    merge_adapter(base, other, tmp_path / "merged", quiet)
    expected = peft_merged(base, other, tmp_path / "peft")
    for name, value in tensors(tmp_path / "merged").items():
        assert torch.allclose(value.float(), expected[name], atol=1e-6, rtol=2**-8), name


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
def test_an_experts_adapter_is_merged_shard_by_shard_as_peft_merges_it(kind: str, tmp_path: Path) -> None:
    import torch

    base = write_tiny_model(tmp_path / "base", kind, shard_size="60KB", **MIXTURES[kind])
    targets = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
    adapter = write_adapter(base, tmp_path / "adapter", use_rslora=kind == "mixtral", **targets)
    merge_adapter(base, adapter, tmp_path / "merged", quiet)
    expected, before, changed = peft_merged(base, adapter, tmp_path / "peft"), tensors(base), set()
    for name, value in tensors(tmp_path / "merged").items():
        assert value.dtype == torch.bfloat16
        assert torch.allclose(value.float(), expected[name], atol=1e-6, rtol=2**-8), name
        changed |= set() if value.equal(before[name]) else {name}
    assert changed == {name for name in before if "q_proj" in name or ".experts." in name}
    assert (tmp_path / "merged" / INDEX_NAME).read_bytes() == (base / INDEX_NAME).read_bytes()
    measured = compare_logits(base, adapter, tmp_path / "merged", quiet)
    assert measured["argmax_agreement"] > 0.9 and measured["update_error"] < 0.2


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"peft_type": "IA3"},
        {"init_lora_weights": "pissa"},
    ],
)
def test_more_than_a_low_rank_sum_is_refused_by_name(tiny_llama: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    adapter = write_adapter(tiny_llama, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StepFailed, match=next(iter(change))):
        merge_adapter(tiny_llama, adapter, tmp_path / "merged", quiet)


def test_an_adapter_of_another_base_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    deeper = write_tiny_model(tmp_path / "deeper", num_hidden_layers=3)
    adapter = write_adapter(deeper, tmp_path / "adapter")
    with pytest.raises(StepFailed, match="another base"):
        merge_adapter(tiny_llama, adapter, tmp_path / "merged", quiet)


def test_a_merge_that_never_happened_is_found(tiny_llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_llama, tmp_path / "adapter", lora_alpha=64)
    with pytest.raises(StepFailed, match=r"_proj\.weight is off from base \+ adapter by 100%"):
        compare_logits(tiny_llama, adapter, tiny_llama, quiet)


def test_scales_are_pefts() -> None:
    config = {"lora_alpha": 16, "alpha_pattern": {"v_proj": 4, "layers.1.mlp.up_proj": 8}}
    assert lora_scale(config, "model.layers.0.self_attn.q_proj", 8) == 2
    assert lora_scale(config, "model.layers.0.self_attn.v_proj", 8) == 0.5
    assert lora_scale(config, "model.layers.1.mlp.up_proj", 8) == 1
    assert lora_scale(config | {"use_rslora": True}, "x.q_proj", 16) == 16 / math.sqrt(16)
