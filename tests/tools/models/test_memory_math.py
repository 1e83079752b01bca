"""The arithmetic that refuses a step before it is started."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.models.bundled import QWEN_CODER, SMOLLM2
from tunesmith.tools.models.families import find_known
from tunesmith.tools.models.fitting import Training, quantizing_that_fits
from tunesmith.tools.models.memory_math import (
    COMPARED_POSITIONS,
    RUNTIME_BYTES,
    ServerMemory,
    adapter_slot_bytes,
    expert_slot_bytes,
    group_size_for,
    merge_memory_bytes,
    quantize_cache_bytes,
    quantize_memory_bytes,
    quantized_weight_bytes,
    server_memory,
    serving_peaks,
)
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.training_terms import (
    activation_bytes,
    adapted_experts_bytes,
    plain_activation_bytes,
    unpacked_bytes,
)

GIB = 1 << 30
SMOL: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
QWEN: dict[str, Any] = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
MOE: dict[str, Any] = SMOL | {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256}


def test_parameters_are_those_of_the_published_models() -> None:
    assert ModelShape.of(SMOL).parameters == 134_515_008
    assert ModelShape.of(QWEN).parameters == pytest.approx(1_543_714_304, rel=1e-4)


def test_lora_parameters_are_rank_times_in_plus_out() -> None:
    per_layer = 2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)
    assert ModelShape.of(SMOL).lora_parameters(16) == 16 * 30 * per_layer


def test_quantizing_grows_with_neither_depth_nor_rows_and_a_large_mixture_takes_a_layer() -> None:
    def need(config: dict[str, Any], **more: Any) -> int:
        return quantize_memory_bytes(config, seq_len_tokens=256, **more)

    assert need(SMOL) == need(SMOL | {"num_hidden_layers": 300})
    qwen3 = find_known("qwen3 30b a3b")
    assert qwen3 and need(dict(qwen3.config)) < 12 * GIB
    assert need(dict(qwen3.config), on_gpu=True) < 4 * GIB
    assert quantize_memory_bytes(SMOL, seq_len_tokens=4096) > need(SMOL)


def test_what_is_proposed_for_quantizing_fits_and_gptq_is_given_up_last() -> None:
    """Down from enough memory: nothing, shorter rows, rounding without GPTQ, and in the end nothing that would fit."""
    tokens, proposed = 2048, []
    most = quantize_memory_bytes(QWEN, seq_len_tokens=tokens)
    for free in range(most, most // 4, -(most // 200)):
        found = quantizing_that_fits(QWEN, seq_len_tokens=tokens, free_ram_bytes=free, free_vram_bytes=None)
        proposed.append(found[0].settings if found else "")
        assert all(fitting.peak_bytes <= free for fitting in found)
    order = list(dict.fromkeys(proposed))
    first = next(place for place, settings in enumerate(order) if settings.startswith("rounding=nearest"))
    assert order[0] == "" and order[1].startswith("max_seq_len_tokens=1024") and first > 1 and proposed[-1] == ""
    assert all(settings.startswith("rounding=nearest") for settings in order[first:])
    few, many = (quantize_cache_bytes(SMOL, samples=count, seq_len_tokens=256) for count in (32, 512))
    assert many == 16 * few


def test_measured_peaks_stay_below_the_estimates() -> None:
    # Peak resident sizes of real runs on a CPU, and not more than twice below: an estimate must also be useful.
    for measured, estimated in (
        (0.94e9, quantize_memory_bytes(SMOL, seq_len_tokens=110)),
        (2.35e9, quantize_memory_bytes(QWEN, seq_len_tokens=512)),
        (2.06e9, Training(8, 119, 16).memory_bytes(SMOL)),
        (0.82e9, merge_memory_bytes(SMOL)),
        (1.43e9, merge_memory_bytes(QWEN)),
    ):
        assert measured * 0.85 <= estimated <= 2 * measured


@table(
    ("rows", "tokens", "rank", "checkpointing", "peak_bytes"),
    [
        (1, 256, 16, False, 1_332_297_728),
        (8, 256, 16, False, 2_925_780_992),
        (2, 1024, 16, False, 3_093_884_928),
        (8, 512, 16, True, 1_545_236_480),
        (6, 96, 16, False, 1_542_275_072),
        (3, 384, 8, False, 2_198_962_176),
        (1, 3072, 16, True, 1_624_793_088),
    ],
)
def test_what_training_took_on_a_cpu_fits_its_price_and_little_is_left(
    rows: int, tokens: int, rank: int, checkpointing: bool, peak_bytes: int
) -> None:
    """Peaks of resident bytes of the 135M model, by `tests/bench/training_memory`; none may be told too little."""
    told = Training(rows, tokens, rank, checkpointing=checkpointing, on_cpu=True).memory_bytes(SMOL)
    assert 1 <= told / peak_bytes <= 1.15


def test_every_remedy_that_an_error_names_really_needs_less() -> None:
    def need(**changes: Any) -> int:
        return replace(Training(8, 512, 16), **changes).memory_bytes(QWEN)

    for change in (
        {"rows_at_once": 4},
        {"longest_row_tokens": 256},
        {"lora_rank": 8},
        {"load_in_4bit": True},
        {"checkpointing": True},
    ):
        assert need(**change) < need()
    assert need(precision="fp32") > need()


def test_experts_count_in_weights_but_only_the_chosen_ones_in_activations() -> None:
    dense, moe = ModelShape.of(SMOL), ModelShape.of(MOE)
    assert moe.mlp_parameters == 3 * 576 * 8 * 256 > dense.mlp_parameters
    assert quantize_memory_bytes(MOE, seq_len_tokens=1) > RUNTIME_BYTES + 2 * moe.parameters // moe.layers
    way = Training(8, 512, 16)
    assert way.memory_bytes(MOE | {"num_experts_per_tok": 4}) > way.memory_bytes(MOE)


def test_four_bits_hold_the_experts_of_a_mixture_too_but_for_the_layer_at_work() -> None:
    shape = ModelShape.of(MOE)
    four, whole = (Training(1, 16, 1, load_in_4bit=bits).memory_bytes(MOE) for bits in (True, False))
    saved = (2 - 0.516) * shape.linear_parameters - 2 * shape.expert_parameters
    adapters = 16 * (shape.lora_parameters(1) - shape.lora_parameters(1, experts=False))
    sums = shape.layers * adapted_experts_bytes(shape) + 3 * 2 * shape.expert_parameters
    routed = shape.layers * 16 * 2 * shape.experts_per_token * (shape.hidden + shape.expert_intermediate)
    assert whole - four == pytest.approx(saved + adapters + sums + routed, rel=0.01)


def test_adapted_experts_at_16_bits_keep_their_sums_in_every_layer_unless_computed_again() -> None:
    def need(**more: Any) -> int:
        return Training(1, 16, 8, **more).memory_bytes(MOE)

    shape = ModelShape.of(MOE)
    assert need() - need(checkpointing=True) > (shape.layers - 1) * adapted_experts_bytes(shape)
    assert adapted_experts_bytes(shape) > 2 * shape.expert_parameters


def test_checkpointing_keeps_one_layer_whole_and_the_inputs_of_the_others() -> None:
    def need(**more: Any) -> int:
        return Training(8, 512, 16, **more).memory_bytes(QWEN)

    shape = ModelShape.of(QWEN)
    layer, inputs = 8 * 512 * activation_bytes(shape, lora_rank=16), shape.layers * 8 * 512 * 2 * shape.hidden
    assert need() - need(checkpointing=True) == (shape.layers - 1) * layer - inputs
    assert need(fused=False) - need() == shape.layers * (8 * 512 * plain_activation_bytes(shape) - layer) > 0


def test_a_merge_needs_no_more_for_more_layers_and_holds_a_mixtures_layer_twice() -> None:
    shape = ModelShape.of(QWEN)
    deeper = QWEN | {"num_hidden_layers": 10 * shape.layers}
    assert merge_memory_bytes(deeper) == merge_memory_bytes(QWEN) < RUNTIME_BYTES + 2 * shape.parameters
    large = MOE | {"num_experts": 128, "num_hidden_layers": 48, "moe_intermediate_size": 768}
    mixture = ModelShape.of(large)
    layer = 2 * 2 * (mixture.attention_parameters + mixture.mlp_parameters)
    logits_and_head = 2 * mixture.vocab * (mixture.hidden + 3 * COMPARED_POSITIONS)
    needed = merge_memory_bytes(large) - RUNTIME_BYTES
    assert layer < needed < layer + logits_and_head


def published(name: str) -> ModelShape:
    known = find_known(name)
    assert known is not None, name
    return ModelShape.of(known.config)


THIRTY = published("qwen3-30b-a3b")
OF_EXPERTS = {16: 1.55, 32: 3.09, 64: 6.19}


@table("rank", OF_EXPERTS)
def test_a_server_of_a_mixture_holds_two_factors_for_each_matrix_of_each_expert(rank: int) -> None:
    """As vllm/lora/layers/fused_moe.py makes them in bf16, a layer: w13 twice, w2 once, each A and B of all experts."""
    shape, experts, hidden, width = THIRTY, 128, 2048, 768
    w13 = 2 * (experts * rank * hidden + experts * width * rank)
    w2 = experts * rank * width + experts * hidden * rank
    assert expert_slot_bytes(shape, rank) == 2 * 48 * (w13 + w2)
    assert round(expert_slot_bytes(shape, rank) / GIB, 2) == OF_EXPERTS[rank]
    every, alone = (adapter_slot_bytes(shape, rank, attention_only=only) for only in (False, True))
    assert alone == 2 * shape.lora_parameters(rank, experts=False) < 0.02 * every
    assert every - alone - expert_slot_bytes(shape, rank) == 2 * 2 * rank * (151_936 + hidden), "input matrix and head"


def test_slots_for_adapters_are_in_the_price_of_a_server_wherever_it_runs() -> None:
    def need(slots: int) -> ServerMemory:
        return server_memory(GIB, kv_bytes_per_token=1 << 17, context_tokens=2048, sequences=64, slot_bytes=slots)

    assert need(GIB).vram_bytes - need(0).vram_bytes == GIB == need(GIB).ram_bytes - need(0).ram_bytes
    assert need(GIB).cache_bytes == need(0).cache_bytes


def test_at_4_bits_one_matrix_is_unpacked_at_a_time() -> None:
    shape = published("llama-3.3-70b")
    assert unpacked_bytes(shape) == 2 * 8192 * 28672, "0.44 GiB"
    assert unpacked_bytes(ModelShape.of(MOE)) == 2 * ModelShape.of(MOE).expert_parameters
    phi = published("phi-4")
    assert phi.largest_matrix == 2 * phi.hidden * phi.intermediate, "gate and up are one matrix"
    wider, deeper = (QWEN | {name: 2 * QWEN[name]} for name in ("intermediate_size", "num_hidden_layers"))
    assert unpacked_bytes(ModelShape.of(wider)) == 2 * unpacked_bytes(ModelShape.of(deeper))


@table(("weight_bytes", "kv_bytes", "card_gib"), [(3.09e9, 28_672, 8), (6.17e9, 36_864, 12), (16.06e9, 131_072, 24)])
def test_a_server_on_a_gpu_fits_the_card_that_its_model_is_served_on_everywhere(
    weight_bytes: float, kv_bytes: int, card_gib: int
) -> None:
    memory = server_memory(int(weight_bytes), kv_bytes_per_token=kv_bytes, context_tokens=2048, sequences=64)
    needed = serving_peaks(memory, on_gpu=True)["vram_bytes"]
    assert 1.15 * weight_bytes < needed <= 0.92 * card_gib * GIB


def test_the_cache_of_a_server_on_a_gpu_grows_with_what_it_is_asked_to_hold_up_to_a_bound() -> None:
    def need(context: int, sequences: int, whole: int = 4) -> int:
        memory = server_memory(
            GIB, kv_bytes_per_token=1 << 17, context_tokens=context, sequences=sequences, whole=whole
        )
        return memory.cache_bytes

    assert need(2048, 2) == 2 * need(2048, 1) and need(2048, 64) == need(2048, 1000)
    assert need(8192, 64) == need(8192, 4) > need(2048, 4)
    for context in (2048, 8192, 32_768):
        assert need(context, 64, whole=1) > context << 17, "one of full length, and the block that vLLM holds back"


def test_the_bytes_of_a_quantized_model_are_those_of_its_tensors() -> None:
    """W8A8 of the bundled model with down_proj kept: 189,680,256 bytes in its file, scales for each output."""
    made = quantized_weight_bytes(SMOL, bits=8, unquantized=("down_proj",))
    assert made == pytest.approx(189_680_256, rel=2e-3)
    every = quantized_weight_bytes(QWEN, bits=4, group_size=128)
    linear, rest = ModelShape.of(QWEN).linear_parameters, ModelShape.of(QWEN).embedding_parameters
    assert every == pytest.approx(linear * (0.5 + 2 / 128) + 2 * rest, rel=1e-3)
    assert quantized_weight_bytes(MOE, bits=4, group_size=64) < quantized_weight_bytes(MOE, bits=8)


def test_the_bundled_models_are_known_before_they_are_here() -> None:
    for model in (SMOLLM2, QWEN_CODER):
        shape = ModelShape.of(model.config)
        assert shape.parameters == pytest.approx(model.parameters, rel=1e-3)
        assert model.folder_bytes == pytest.approx(2 * shape.parameters, rel=0.02)


@table(
    ("changes", "expected"),
    [
        ({}, 64),  # 576 is 9 · 64
        ({"hidden_size": 512, "num_attention_heads": 8}, 128),
        ({"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 96}, 32),
        ({"hidden_size": 72, "num_attention_heads": 3, "intermediate_size": 144}, 0),
        ({"hidden_size": 512, "num_attention_heads": 8, "num_experts": 4, "moe_intermediate_size": 96}, 32),
        ({"hidden_size": 512, "num_attention_heads": 8, "head_dim": 24}, 64),  # o_proj's input is 192
    ],
)
def test_the_group_divides_the_inputs_of_every_layer(changes: dict[str, int], expected: int) -> None:
    assert group_size_for(SMOL | changes) == expected
