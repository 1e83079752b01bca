"""Parameters by a config alone, held against the models that transformers builds and the sizes that makers state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.models.families import KNOWN_MODELS, find_known
from tunesmith.tools.models.shape import ModelShape

SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 300,
}  # fmt: skip
MIXTURE: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {}, "qwen2": {}, "qwen3": {}, "mistral": {}, "gemma2": {}, "gemma3_text": {}, "phi3": {"pad_token_id": 0},
    "smollm3": {"pad_token_id": 0}, "olmo2": {}, "granite": {},
    "qwen3_moe": MIXTURE, "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2, "head_dim": 16},
    "qwen2_moe": MIXTURE | {"shared_expert_intermediate_size": 96},
}  # fmt: skip
STATED = {
    "Qwen/Qwen2.5-7B-Instruct": 7.62, "Qwen/Qwen3-30B-A3B": 30.5, "meta-llama/Llama-3.1-8B-Instruct": 8.03,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46.7, "google/gemma-2-9b-it": 9.24, "microsoft/phi-4": 14.7,
    "allenai/OLMoE-1B-7B-0125-Instruct": 6.92, "Qwen/Qwen3-32B": 32.8, "google/gemma-3-1b-it": 1.0,
}  # fmt: skip


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


@table("name", STATED)
def test_known_models_have_the_size_that_their_makers_state(name: str) -> None:
    [known] = [model for model in KNOWN_MODELS if model.name == name]
    assert ModelShape.of(known.config).parameters / 1e9 == pytest.approx(STATED[name], rel=0.005)


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
