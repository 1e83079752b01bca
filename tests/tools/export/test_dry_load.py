"""Dry load: a tiny model of an architecture stands for the real one, where asking first is worth its price."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tests.fixtures.tiny_model import CONFIG
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.machine import Gpu, Machine
from tunesmith.tools.core.stage import Estimate, Facts, Plan
from tunesmith.tools.export.dry_load import (
    PAYS_FROM_TIMES,
    DryLoad,
    dry_load_key,
    dry_load_seconds,
    keep_dry_load,
    known_dry_loads,
    tiny_config,
    with_dry_load,
)
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.models.memory_math import group_size_for
from tunesmith.tools.models.shape import ModelShape

GIB = 1 << 30
LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
MIXTURE = LLAMA | {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 128, "num_experts": 128,
    "num_experts_per_tok": 8, "moe_intermediate_size": 768, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
GEMMA = LLAMA | {
    "model_type": "gemma3_text", "head_dim": 256, "hidden_size": 1152, "num_attention_heads": 4,
    "num_key_value_heads": 1, "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 4,
}  # fmt: skip
LONG_S = 10 * PAYS_FROM_TIMES * dry_load_seconds(on_card=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A vllm program with its packages beside it."""
    for package in ("vllm-0.32.0+cpu", "torch-2.13.0+cpu"):
        (tmp_path / f"venv/lib/python3.11/site-packages/{package}.dist-info").mkdir(parents=True)
    (tmp_path / "venv/bin").mkdir()
    (tmp_path / "venv/bin/vllm").touch()
    return tmp_path / "venv/bin/vllm"


def facts(program: Path | None, *, free_bytes: int = 16 * GIB) -> Facts:
    machine = Machine("cpu", 2, free_bytes, free_bytes, 0, 99 * GIB)
    return Facts(Path("/h"), machine, "r1", vllm=str(program) if program else None)


def priced(seconds: float, dry_load: str = "auto") -> Plan:
    """A plan of quantizing."""
    request = {"scheme": "W4A16", "keep": [], "dry_load": dry_load}
    estimate = Estimate(seconds=seconds, basis="b", peak_ram_bytes=GIB)
    return Plan(stage="quantize", run="r1", summary="s", steps=("quantize",), request=request, estimate=estimate)


def outcome(program: Path, **changes: Any) -> DryLoad:
    key = dry_load_key(LLAMA, "W4A16", 128, (), program=str(program), device="cpu")
    return DryLoad(key=key, **{"served": True, **changes})


def test_it_is_asked_first_where_what_it_insures_is_worth_several_times_its_price(program: Path) -> None:
    plan = with_dry_load(priced(LONG_S), facts(program), LLAMA, 128, ())
    assert plan.request["dry_load"] == "on" and "tiny model" in plan.steps[0]
    assert plan.estimate.seconds == pytest.approx(LONG_S + dry_load_seconds(on_card=False))
    assert plan.estimate.peak_ram_bytes > GIB, "the server of the tiny model is priced too"
    short = with_dry_load(priced(20.0), facts(program), LLAMA, 128, ())
    assert short.request["dry_load"] == "off" and "it pays from 5 times on" in short.reasons["dry_load"]
    assert short.estimate.seconds == 20.0
    forced = with_dry_load(priced(20.0, "on"), facts(program), LLAMA, 128, ())
    assert forced.request["dry_load"] == "on"


def test_of_floats_vllm_is_asked_first_on_a_cpu_whatever_it_costs(program: Path) -> None:
    short = priced(20.0)
    floats = short.model_copy(update={"request": {**short.request, "scheme": "FP8"}})
    asked = with_dry_load(floats, facts(program), LLAMA, 16, ())
    assert asked.request["dry_load"] == "on" and "on a CPU vLLM serves few formats" in asked.reasons["dry_load"]
    off = floats.model_copy(update={"request": {**floats.request, "dry_load": "off"}})
    assert with_dry_load(off, facts(program), LLAMA, 16, ()).request["dry_load"] == "off"
    assert with_dry_load(floats, facts(None), LLAMA, 16, ()).request["dry_load"] == "off"
    machine = replace(facts(program).machine, gpus=(Gpu(0, "Card", 80 * GIB, 80 * GIB, "9.0", "570"),))
    assert with_dry_load(floats, replace(facts(program), machine=machine), LLAMA, 16, ()).request["dry_load"] == "off"


@pytest.mark.parametrize("how", ["off", "no vllm", "no room"])
def test_it_is_left_out_where_nobody_can_be_asked(program: Path, how: str) -> None:
    given = facts(None if how == "no vllm" else program, free_bytes=GIB if how == "no room" else 16 * GIB)
    plan = with_dry_load(priced(LONG_S, "off" if how == "off" else "auto"), given, LLAMA, 128, ())
    assert plan.request["dry_load"] == "off" and plan.estimate.seconds == LONG_S and not plan.refusals


def test_what_is_known_is_paid_for_once_and_a_refusal_is_one_of_the_plan(program: Path) -> None:
    served = with_dry_load(priced(LONG_S), facts(program), LLAMA, 128, [outcome(program)])
    assert served.request["dry_load"] == "off" and not served.refusals and served.estimate.seconds == LONG_S
    refusal = {"served": False, "refusal": "No WNA16 MoE backend", "by_transformers": True}
    refused = with_dry_load(priced(20.0), facts(program), LLAMA, 128, [outcome(program, **refusal)])
    [why] = refused.refusals
    assert "No WNA16 MoE backend" in why and "vllm 0.32.0+cpu" in why and "transformers loads and runs it" in why
    assert "dry_load=off" in why
    for other in ({"scheme": "W8A8"}, {"group_size": 64}, {"device": "NVIDIA H100"}, {"program": "/other"}):
        key = outcome(program).key.model_copy(update=other)
        unknown = with_dry_load(priced(LONG_S), facts(program), LLAMA, 128, [DryLoad(key=key, served=False)])
        assert unknown.request["dry_load"] == "on" and not unknown.refusals, other


def test_another_vllm_beside_the_program_is_asked_anew(tmp_path: Path, program: Path) -> None:
    keep_dry_load(tmp_path, outcome(program))
    keep_dry_load(tmp_path, outcome(program))
    assert known_dry_loads(tmp_path) == (outcome(program),)
    packages = program.parent.parent / "lib/python3.11/site-packages"
    (packages / "vllm-0.32.0+cpu.dist-info").rename(packages / "vllm-0.33.0.dist-info")
    assert known_dry_loads(tmp_path) == ()


@table("config", [LLAMA, MIXTURE, GEMMA])
def test_a_tiny_config_is_the_architecture_small(config: dict[str, Any]) -> None:
    tiny = tiny_config(config, group_size_for(config))
    shape, real = ModelShape.of(tiny), ModelShape.of(config)
    assert shape.parameters - (1 if shape.tied else 2) * shape.vocab * shape.hidden < 12_000_000
    assert group_size_for(tiny) == group_size_for(config) or group_size_for(tiny) == 128
    assert (shape.head_dim, shape.vocab, shape.family) == (real.head_dim, real.vocab, real.family)
    assert (shape.experts > 0, shape.kv_heads < shape.heads) == (real.experts > 0, real.kv_heads < real.heads)
    assert set(tiny.get("layer_types", ())) == set(config.get("layer_types", ()))


def test_a_plan_of_a_run_says_what_was_decided(tmp_path: Path, program: Path) -> None:
    from tunesmith.tools.export.quantize import STAGE, QuantizeRequest

    merged = Artifact("a1", "r1", "s1", "merged", tmp_path, "s", 9, meta={"config": CONFIG, "parameters": 32})
    dataset = Artifact("a2", "r1", "s1", "dataset", tmp_path, "d", 9, meta={"train_rows": 9, "tokens_per_row": 50})
    given = replace(facts(program), artifacts={"merged": merged, "dataset": dataset})
    plan = STAGE.plan(QuantizeRequest(scheme="W8A16"), given, None)
    assert plan.request["dry_load"] == "off" and "dry load" in plan.reasons["dry_load"]


@pytest.mark.lab
@pytest.mark.parametrize("config", [LLAMA, MIXTURE, GEMMA], ids=["llama", "mixture", "gemma"])
def test_the_tiny_model_is_quantized_as_the_real_one_would_be(config: dict[str, Any], tmp_path: Path) -> None:
    from tunesmith.tools.export.dry_load_job import loads_in_transformers, make_tiny
    from tunesmith.tools.export.quantize_job import quantize_with

    small = config | {"vocab_size": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    group = group_size_for(config)
    whole, batch = make_tiny(tmp_path, small, tmp_path / "whole", group)
    made = tmp_path / "quantized"
    request = QuantizeRequest(scheme="W4A16", group_size=group)
    proof = quantize_with([batch], whole, made, request, lambda *_: None)
    assert proof.quantized_layers and loads_in_transformers(made)
