"""Parameters by a config alone, held against the models that transformers builds and the sizes that makers state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures import families as lab
from tests.fixtures.tables import table
from tunesmith.tools.models.families import FAMILIES, KNOWN_MODELS, config_of, find_known
from tunesmith.tools.models.memory_math import kv_bytes_per_token
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.training.model import projection_names

SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 300,
}  # fmt: skip
MIXTURE: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
HYBRID: dict[str, Any] = {
    "num_hidden_layers": 5, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": {}, "qwen2": {}, "qwen3": {}, "mistral": {}, "gemma2": {}, "gemma3_text": {}, "phi3": {"pad_token_id": 0},
    "smollm3": {"pad_token_id": 0}, "olmo2": {}, "olmo3": {}, "granite": {}, "seed_oss": {},
    "qwen3_moe": MIXTURE, "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2, "head_dim": 16},
    "qwen2_moe": MIXTURE | {"shared_expert_intermediate_size": 96},
    "qwen3_next": HYBRID | MIXTURE | {"shared_expert_intermediate_size": 96}, "qwen3_5_text": HYBRID,
    "qwen3_5_moe_text": HYBRID | MIXTURE | {"shared_expert_intermediate_size": 96},
}  # fmt: skip
STATED = {
    "Qwen/Qwen2.5-7B-Instruct": 7.62, "Qwen/Qwen3-30B-A3B": 30.5, "meta-llama/Llama-3.1-8B-Instruct": 8.03,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46.7, "google/gemma-2-9b-it": 9.24, "microsoft/phi-4": 14.7,
    "Qwen/Qwen3-4B-Instruct-2507": 4.022, "Qwen/Qwen3-30B-A3B-Instruct-2507": 30.5,
    "allenai/OLMoE-1B-7B-0125-Instruct": 6.92, "Qwen/Qwen3-32B": 32.8, "google/gemma-3-1b-it": 1.0,
}  # fmt: skip

BUILT = {
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 79_674_391_296, "allenai/Olmo-3-7B-Instruct": 7_298_011_136,
    "allenai/Olmo-3.1-32B-Instruct": 32_233_522_176, "ByteDance-Seed/Seed-OSS-36B-Instruct": 36_151_104_512,
}  # fmt: skip
"""Parameters that transformers builds of the listed models whose kinds no lab test takes through the chain."""


@pytest.mark.lab
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_a_family_is_counted(kind: str, tied: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **(SMALL | KINDS[kind]), tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert ModelShape.of(config.to_dict()).parameters == sum(p.numel() for p in model.parameters())


def test_linear_attention_keeps_no_keys_and_values() -> None:
    plain = {**SMALL, "num_hidden_layers": 8, "model_type": "qwen3"}
    hybrid = {**plain, **HYBRID, "linear_conv_kernel_dim": 4, "model_type": "qwen3_5_text", "num_hidden_layers": 8}
    assert 4 * kv_bytes_per_token(hybrid) == kv_bytes_per_token(plain), "every fourth layer is of full attention"
    named = hybrid | {"layer_types": ["linear_attention"] * 5 + ["full_attention"] * 3}
    assert 8 * kv_bytes_per_token(named) == 3 * kv_bytes_per_token(plain)


@pytest.mark.lab
def test_a_hybrids_adapter_has_the_projections_that_vllm_is_known_to_serve() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("qwen3_5_text", **(SMALL | HYBRID))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    names = projection_names(model)
    assert names == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    adapted = [m for n, m in model.named_modules() if n.rsplit(".", 1)[-1] in names]
    counted = ModelShape.of(config.to_dict()).lora_parameters(8)
    assert counted == 8 * sum(layer.in_features + layer.out_features for layer in adapted)


@table("name", STATED)
def test_known_models_have_the_size_that_their_makers_state(name: str) -> None:
    [known] = [model for model in KNOWN_MODELS if model.name == name]
    assert ModelShape.of(known.config).parameters / 1e9 == pytest.approx(STATED[name], rel=0.005)


@table("name", BUILT)
def test_a_listed_model_of_an_untried_kind_is_counted_exactly(name: str) -> None:
    assert ModelShape.of(config_of(name)).parameters == BUILT[name]


def test_a_bias_of_attention_counts_its_output_unless_the_config_says_no() -> None:
    plain = {**SMALL, "model_type": "llama"}
    keys, hidden, layers = SMALL["num_key_value_heads"] * SMALL["head_dim"], SMALL["hidden_size"], 3
    queries, bare = SMALL["num_attention_heads"] * SMALL["head_dim"], ModelShape.of(plain).parameters
    biased = ModelShape.of(plain | {"attention_bias": True}).parameters
    assert biased - bare == layers * (queries + 2 * keys + hidden)
    without = ModelShape.of(plain | {"attention_bias": True, "attention_out_bias": False}).parameters
    assert biased - without == layers * hidden


def test_a_kind_counts_as_tried_where_the_lab_takes_it_through_the_chain_and_nowhere_else() -> None:
    assert set(lab.FAMILIES) == FAMILIES
    untried = {model.name for model in KNOWN_MODELS if model.config["model_type"] not in FAMILIES}
    assert untried == set(BUILT)


def test_a_token_of_a_mixture_meets_its_chosen_experts_alone() -> None:
    shape = ModelShape.of(next(model.config for model in KNOWN_MODELS if model.name == "Qwen/Qwen3-30B-A3B"))
    assert shape.active_parameters / 1e9 == pytest.approx(3.0, rel=0.03)


@table(
    ("words", "name"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("qwen3 8b", "Qwen/Qwen3-8B"),
        ("Qwen2.5 7B", "Qwen/Qwen2.5-7B-Instruct"),
        ("qwen2.5-coder 7b", "Qwen/Qwen2.5-Coder-7B-Instruct"),
        ("llama3 8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("30B-A3B", "Qwen/Qwen3-30B-A3B"),
        ("phi-4", "microsoft/phi-4"),
    ],
)
def test_a_model_is_found_by_what_people_call_it(words: str, name: str) -> None:
    found = find_known(words)
    assert found is not None and found.name == name


@table("words", ["", "the model", "grok", "qwen9 8b"])
def test_what_names_no_known_model_finds_none(words: str) -> None:
    assert find_known(words) is None
