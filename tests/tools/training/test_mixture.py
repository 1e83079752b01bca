"""A mixture at 4 bits: its experts too, its routers not, right gradients through both, and a figure where it fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tunesmith.memory.errors import StepFailed
from tunesmith.tools.training import four_bit
from tunesmith.tools.training.four_bit import need_four_bits, router_bytes, weights_by_kind
from tunesmith.tools.training.lora_settings import LoraSettings
from tunesmith.tools.training.model import load_base, lora_config
from tunesmith.tools.training.train_job import ToTrain, train_lora

pytestmark = pytest.mark.lab

KINDS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {},
}


@pytest.fixture(scope="module", params=KINDS)
def mixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "base"
    return write_tiny_model(folder, request.param, **KINDS[request.param])


@pytest.fixture(scope="module")
def one_mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("one") / "base", "qwen3_moe")


def stored(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors: dict[str, Any] = load_file(folder / "model.safetensors")
    return tensors


def test_everything_but_routers_embeddings_and_norms_is_at_four_bits(mixture: Path) -> None:
    kinds = weights_by_kind(load_base(mixture, precision="bf16", load_in_4bit=True))
    whole = weights_by_kind(load_base(mixture, precision="bf16", load_in_4bit=False))
    assert {kind: of.parameters for kind, of in kinds.items()} == {kind: of.parameters for kind, of in whole.items()}
    assert sum(of.parameters for of in whole.values()) == sum(tensor.numel() for tensor in stored(mixture).values())
    assert {of.bytes_per_parameter for of in whole.values()} == {2.0}
    assert kinds["experts"].bytes_per_parameter < 0.6
    assert kinds["dense"].bytes_per_parameter < 1.0, "a tiny model's norms and tables of scales weigh much"
    assert kinds["router"].bytes_per_parameter == kinds["embeddings"].bytes_per_parameter == 2.0
    need_four_bits(kinds)


def test_gradients_through_packed_experts_are_those_through_what_they_stand_for(mixture: Path) -> None:
    import torch
    from peft import get_peft_model

    config = json.loads((mixture / "config.json").read_text())
    packed = load_base(mixture, precision="fp32", load_in_4bit=True)
    plain = load_base(mixture, precision="fp32", load_in_4bit=False)
    seen: dict[str, Any] = {}
    for path, module in packed.named_modules():
        if hasattr(module, "parametrizations"):
            seen |= {f"{path}.{name}": getattr(module, name) for name in module.parametrizations}
        elif (state := getattr(getattr(module, "weight", None), "quant_state", None)) is not None:
            from bitsandbytes.functional import dequantize_4bit

            seen[f"{path}.weight"] = dequantize_4bit(module.weight.data, state)
    for name, value in seen.items():
        plain.get_parameter(name).data.copy_(value)
    assert sum(".experts." in name for name in seen) == 4

    def gradients(model: Any, checkpointing: bool) -> Any:
        torch.manual_seed(1)
        lora = lora_config(model, config, LoraSettings(lora_rank=4, lora_alpha=8, load_in_4bit=True))
        lora.init_lora_weights = False
        adapted = get_peft_model(model, lora).train()
        if checkpointing:
            adapted.gradient_checkpointing_enable({"use_reentrant": False})
        for parameter in adapted.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
        ids = torch.arange(3, 43)[None]
        adapted(input_ids=ids, use_cache=False).logits.pow(2).mean().backward()
        return torch.cat([p.grad.flatten() for p in adapted.parameters() if p.requires_grad])

    expected, found = gradients(plain, checkpointing=False), gradients(packed, checkpointing=True)
    assert expected.norm() > 0
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_training_leaves_routers_as_they_are_and_records_what_the_base_takes(
    one_mixture: Path, rows_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    settings = LoraSettings(
        lora_rank=4, lora_alpha=8, learning_rate=5e-3, max_steps=2, batch_size=4, load_in_4bit=True,
        activation_checkpointing="on",
    )  # fmt: skip
    trained = train_lora(
        ToTrain(one_mixture, rows_file, tmp_path / "adapter", settings, checkpoints_dir=tmp_path / "checkpoints")
    )
    assert trained.bytes_per_parameter["experts"] < 0.6
    assert trained.bytes_per_parameter["router"] == 2.0
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in adapter} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert all(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)


def test_the_routers_bytes_are_those_on_disk_and_a_change_shows(mixture: Path) -> None:
    loaded = load_base(mixture, precision="bf16", load_in_4bit=True)
    before = router_bytes(loaded)
    on_disk = {name: tensor for name, tensor in stored(mixture).items() if four_bit.is_router(name)}
    assert len(before) >= 2 and len(before) == len(on_disk)
    assert sorted(before.values()) == sorted(raw(tensor) for tensor in on_disk.values())
    name = next(iter(before))
    loaded.get_parameter(name).data[0, 0] += 1
    assert router_bytes(loaded)[name] != before[name]


def raw(tensor: Any) -> bytes:
    import torch

    data: bytes = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return data


def test_a_model_that_is_not_covered_is_refused_with_the_figure(
    one_mixture: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(four_bit, "is_expert_stack", lambda name, parameter: False)
    settings = replace(LoraSettings(), max_steps=2, load_in_4bit=True, activation_checkpointing="on")
    told = r"the experts weights of this model would take 2\.00 bytes a parameter \(0\.00 GiB\).*load_in_4bit=false"
    with pytest.raises(StepFailed, match=told):
        train_lora(ToTrain(one_mixture, rows_file, tmp_path / "adapter", settings, checkpoints_dir=tmp_path / "checks"))
