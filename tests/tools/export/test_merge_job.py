"""Merging: the sum that peft computes, without peft; resumable, and nothing that is more than a sum."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_adapter, write_tiny_model
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import GIB, Facts, Machine
from tunesmith.tools.export import merge
from tunesmith.tools.export.merge_job import compare_logits, lora_scale, merge_adapter, stored_dtype
from tunesmith.tools.models.memory_math import merge_memory_bytes
from tunesmith.tools.pipeline.planning_facts import inputs_of

MOE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
MOE |= {"num_experts": 4, "moe_intermediate_size": 64}
pytestmark = pytest.mark.alone


def quiet(*_: Any) -> None:
    """No progress."""


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def peft_merged(base: Path, adapter: Path) -> dict[str, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged: dict[str, Any] = PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    return merged


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
    expected, base = peft_merged(tiny_llama, adapter), tensors(tiny_llama)
    changed = 0
    for name, value in tensors(tmp_path / "merged").items():
        assert value.dtype == torch.bfloat16
        assert torch.allclose(value.float(), expected[name], atol=1e-6, rtol=2**-8), name
        changed += not torch.equal(value, base[name])
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
    assert measured["max_logit_difference"] < 1e-4


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
    expected = peft_merged(base, adapter)
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
    expected = peft_merged(base, other)
    for name, value in tensors(tmp_path / "merged").items():
        assert torch.allclose(value.float(), expected[name], atol=1e-6, rtol=2**-8), name


@pytest.mark.parametrize("kind", ["qwen3_moe", "qwen2_moe"])
def test_expert_adapters_merge_through_peft(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = write_tiny_model(tmp_path / "base", kind)
    targets = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
    adapter = write_adapter(base, tmp_path / "adapter", **targets)
    loads: list[Any] = []
    real = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *a, **k: (loads.append(k["dtype"]), real(*a, **k))[1]
    )
    merge_adapter(base, adapter, tmp_path / "merged", quiet)
    assert loads == [torch.float32], "the price holds one model"
    before, after = tensors(base), tensors(tmp_path / "merged")
    assert set(before) == set(after)
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    changed = {name for name in before if not before[name].equal(after[name])}
    assert any("experts" in name for name in changed)
    assert not any(name.endswith("mlp.gate.weight") for name in changed)
    assert compare_logits(base, adapter, tmp_path / "merged", quiet)["argmax_agreement"] > 0.9


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


def test_a_wrong_merge_is_found_by_its_logits(tiny_llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_llama, tmp_path / "adapter", lora_alpha=64)
    with pytest.raises(StepFailed, match="agrees with base"):
        compare_logits(tiny_llama, adapter, tiny_llama, quiet)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"dtype": "float16"}, "float16"),
        ({"torch_dtype": "torch.bfloat16"}, "bfloat16"),
        ({"text_config": {"dtype": "float32"}}, "float32"),
        ({}, "bfloat16"),
    ],
)
def test_the_stored_precision_is_the_configs_else_the_weights(
    tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    folder = make_tiny_model(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(config))
    assert stored_dtype(folder) == named


@pytest.mark.parametrize("experts", [True, False])
def test_a_merge_is_priced_by_what_its_adapter_holds(tmp_path: Path, experts: bool) -> None:
    store = Store(tmp_path / "home")
    run = store.new_run("test")
    step = store.propose(run, "base", plan_hash="p")
    base = store.add_artifact(Artifact("", run, step, "base", tmp_path, "0" * 64, GIB, (), {"config": MOE}))
    made = store.propose(run, "train", plan_hash="p", inputs={"base": base.id})
    (tmp_path / "adapter_config.json").write_text(json.dumps({"target_parameters": ["x"] if experts else None}))
    adapter = store.add_artifact(Artifact("", run, made, "adapter", tmp_path, "1" * 64, 1, (), {}))
    machine = Machine("cpu", 2, 64 * GIB, 64 * GIB, 0, 64 * GIB)
    context = merge.inspect_inputs(merge.MergeRequest(), inputs_of(store, run))
    facts = Facts(tmp_path, machine, run, artifacts={"base": base, "adapter": adapter})
    priced = merge.plan(merge.MergeRequest(), facts, context).estimate.peak_ram_bytes
    assert priced == merge_memory_bytes(MOE, GIB, adapts_experts=experts)
    assert (priced > 2.5 * GIB) == experts


def test_scales_are_pefts() -> None:
    config = {"lora_alpha": 16, "alpha_pattern": {"v_proj": 4, "layers.1.mlp.up_proj": 8}}
    assert lora_scale(config, "model.layers.0.self_attn.q_proj", 8) == 2
    assert lora_scale(config, "model.layers.0.self_attn.v_proj", 8) == 0.5
    assert lora_scale(config, "model.layers.1.mlp.up_proj", 8) == 1
    assert lora_scale(config | {"use_rslora": True}, "x.q_proj", 16) == 16 / math.sqrt(16)
