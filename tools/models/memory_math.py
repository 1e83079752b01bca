"""How much memory each stage needs at its peak, by arithmetic on a model's config alone.

Formulas are upper estimates, not fits: each states its terms, so that a plan that refuses can be checked by hand.
Covers decoder-only transformers with gated MLPs, dense or mixture-of-experts, tied or untied embeddings. Does not
cover vision towers or state-space layers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tunesmith.tools.models.rounding_terms import Rounding, autoround_bytes
from tunesmith.tools.models.shape import ModelShape

CONTEXT_TOKENS = 2048
"""Tokens of a conversation, question and answer together, that a server of a model under test takes: rows of behaviours
have some hundred, and the cache grows with each."""
SERVED_SEQUENCES = 64
"""Sequences that a server of a model under test works on at once; the cache grows with each."""
FP32_BELOW_PARAMETERS = 1_000_000_000
"""Below it the logits of a merge are compared in fp32, so that the stored rounding is all that is seen."""
COMPARED_POSITIONS = 168
"""Positions of all texts together whose logits a merge compares: three models' logits of 49k words are 100 MB then."""
CALIBRATION_ROWS = 8
"""Rows that go through a layer at once while a model is quantized, at most: calibration computes attention eagerly,
with all scores of each row."""
CALIBRATION_TOKENS = 2048
"""Tokens of such rows, at most, where a row alone has no more: a layer of a 1.5B leaves half a GB of activations
then."""
RUNTIME_BYTES = 900 << 20
"""Resident size of a Python process that has imported torch, transformers and peft or llm-compressor (measured)."""
SERVER_BYTES = 22 * (1 << 30) // 10
"""Resident size of a vLLM CPU server beyond its weights and its key-value cache: by the bundled model's, 3.3 GB in all,
on the safe side."""
GPU_SERVER_BYTES = 1536 << 20
"""Of a vLLM server on a GPU beside weights, adapters and cache: CUDA context, activations, captured graphs. An
estimate."""
GPU_MARGIN_BYTES = 1 << 30
"""What a plan keeps free beyond a server's need, for all that the estimate got wrong."""
PLANNED_CONTEXT_TOKENS = 4096
"""Of a whole plan: the longest case of the bundled suites asks for more than the usual context."""
WHOLE_SEQUENCES = 4
"""Sequences of full length that a server on a GPU has room for at once, where nothing is short."""
USUAL_KV_BYTES = 128 << 10
"""Of a token, where a config does not say: a dense model of eight billion parameters."""
CUDA_BYTES = 900 << 20
"""What a process takes of a GPU beside its tensors: the CUDA context, and the workspaces of libraries. An estimate."""
CARD_LINK_BYTES = 1 << 29
"""Of each of several cards that serve one model, beside: NCCL's and vLLM's buffers for what they exchange. An
estimate."""
TOKENS_AN_INPUT = 4
"""Of calibration, for each input of the widest layer: with fewer, GPTQ corrects what these rows have by chance."""
_MOST_CALIBRATION_TOKENS = 512 * 2048
"""Those of the largest published recipes."""
_STACKED_MATRICES, _STACKED_BYTES = 8, 1 << 29
"""Most matrices of experts that are quantized together, and most bytes of their Hessians: more of a large mixture's
would not fit beside its layer."""
_LEAST_KV_BYTES = 1 << 30  # a tiny model's sequences all fit into it: none of them has to wait
_BLOCK_TOKENS = 256  # of the cache vLLM holds one block back, whose size depends on its attention kernel
_BF16, _FP32 = 2, 4
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per weight: 4 bits, an 8-bit scale per 64, a 32-bit scale of scales per 256 of those (double quantization)."""


def loaded_bytes(shape: ModelShape, *, load_in_4bit: bool, value_bytes: int = _BF16) -> int:
    """Of a model's weights as training loads them: with 4 bits, every linear layer and fused expert as NF4."""
    covered = shape.linear_parameters if load_in_4bit else 0
    return int(nf4_bytes(covered) + (shape.parameters - covered) * value_bytes)


def nf4_bytes(parameters: int) -> float:
    """Of so many weights in NF4 with double quantization."""
    return parameters * _NF4_BYTES


def merge_memory_bytes(config: Mapping[str, object]) -> int:
    """Peak of a merge: runtime + the larger of its two phases; neither grows with the number of layers.

    Merging holds the largest projection three times as it is stored: mapped, summed, being written. Comparing logits
    afterwards holds one part of the model at a time, a decoder layer or the head, in fp32 where the model is small; a
    mixture's layer twice, since its experts are put together from several tensors. Beside it the logits of three
    models.
    """
    shape = ModelShape.of(config)
    size = _FP32 if shape.parameters < FP32_BELOW_PARAMETERS else _BF16
    layer = (shape.attention_parameters + shape.mlp_parameters) * (2 if shape.experts else 1)
    # 3: base, adapter's and merged model's logits.
    logits = 3 * COMPARED_POSITIONS * shape.vocab
    compared = size * (max(layer, shape.vocab * shape.hidden) + logits)
    return RUNTIME_BYTES + max(3 * _BF16 * shape.largest_matrix, compared)


def quantize_memory_bytes(
    config: Mapping[str, object],
    *,
    seq_len_tokens: int,
    on_gpu: bool = False,
    rounding: Rounding = "gptq",
    samples: int = 0,
) -> int:
    """Peak host memory of quantizing one layer at a time: it does not grow with depth.

    Runtime, and the larger of two phases. The start: the input matrix, and a copy of it on its way into the first
    shard. A layer's turn on the CPU: see `_layer_bytes`; on a GPU the host holds the layer once more than the card.
    AutoRound keeps something of all tokens, so that it grows with `samples`, rows of `seq_len_tokens` at most.
    """
    shape = ModelShape.of(config)
    start = 2 * _BF16 * shape.vocab * shape.hidden
    turn = _layer_bytes(shape, seq_len_tokens, rounding, samples)
    if on_gpu:
        turn = _layer_weights(shape)
        if rounding == "autoround":  # what it keeps of tokens and the best offsets so far lie in the host's memory
            turn += autoround_bytes(shape, tokens=samples * seq_len_tokens, row_tokens=seq_len_tokens, rows_at_once=0)
    return RUNTIME_BYTES + max(start, turn)


def quantize_vram_bytes(
    config: Mapping[str, object], *, seq_len_tokens: int, rounding: Rounding = "gptq", samples: int = 0
) -> int:
    """Peak VRAM of quantizing: a layer's turn, or the input matrix, whichever is larger, beside the CUDA context."""
    shape = ModelShape.of(config)
    turn = _layer_bytes(shape, seq_len_tokens, rounding, samples)
    return CUDA_BYTES + max(_BF16 * shape.vocab * shape.hidden, turn)


def quantize_cache_bytes(
    config: Mapping[str, object], *, samples: int, seq_len_tokens: int, rounding: Rounding = "gptq"
) -> int:
    """Disk that calibration takes: two layers' hidden states of all tokens, and their bf16 attention masks.

    AutoRound keeps the states that the rounded layers make as well.
    """
    shape = ModelShape.of(config)
    # In, out, and what is made next; AutoRound keeps two more.
    states = 5 if rounding == "autoround" else 3
    return samples * seq_len_tokens * _BF16 * (states * shape.hidden + seq_len_tokens)


def calibration_tokens(shape: ModelShape) -> int:
    """Tokens that a model of this shape is calibrated on, where the rows have them."""
    return min(TOKENS_AN_INPUT * shape.widest_input, _MOST_CALIBRATION_TOKENS)


def rows_in_a_batch(longest_tokens: int) -> int:
    """How many calibration rows go through a layer at once: eight, or fewer where they are long."""
    return max(1, min(CALIBRATION_ROWS, CALIBRATION_TOKENS // longest_tokens))


def matrices_at_once(shape: ModelShape) -> int:
    """How many matrices of one shape are quantized together, which saves calls: eight, or fewer large ones."""
    return max(1, min(_STACKED_MATRICES, _STACKED_BYTES // (_FP32 * shape.widest_input**2)))


def _layer_bytes(shape: ModelShape, seq_len_tokens: int, rounding: Rounding, samples: int) -> int:
    """A layer's turn: its weights, what a batch leaves in it, and the Hessians and work copies of GPTQ, three fp32
    copies of the largest matrix where weights are rounded to the nearest step, or what a search holds.

    A batch leaves 16 hidden and 7 intermediate values a token, an fp32 copy of the widest input, and a row of attention
    per head in bf16 and fp32, since calibration computes attention eagerly. All experts meet all tokens, one by one.
    """
    rows = rows_in_a_batch(seq_len_tokens)
    tokens, all_tokens = rows * seq_len_tokens, samples * seq_len_tokens
    width = max(shape.expert_intermediate, shape.shared_intermediate) if shape.experts else shape.intermediate
    # Of a token, as said above: hidden and intermediate values, and the widest input in fp32.
    batch = tokens * (_BF16 * (16 * shape.hidden + 7 * width) + 2 * _FP32 * shape.widest_input)
    attention = shape.heads * tokens * seq_len_tokens * (2 * _BF16 + _FP32)
    if rounding == "gptq":
        work = _gptq_bytes(shape)
    elif rounding == "autoround":
        work = autoround_bytes(shape, tokens=all_tokens, row_tokens=seq_len_tokens, rows_at_once=rows)
    else:
        work = 3 * _FP32 * shape.largest_matrix  # to the nearest step: copies, as said above
    return _layer_weights(shape) + batch + attention + work


def _layer_weights(shape: ModelShape) -> int:
    """A layer in bf16; twice for a mixture, whose experts are read joined and then separated."""
    return (shape.attention_parameters + shape.mlp_parameters) * _BF16 * (2 if shape.experts else 1)


def _gptq_bytes(shape: ModelShape) -> int:
    """The fp32 Hessians of a layer, two more of the widest while it is quantized, and three fp32 copies of its matrix.

    Of a mixture's experts several are quantized at once: as many of each of these.
    """
    narrow = max(shape.hidden, shape.heads * shape.head_dim) ** 2
    at_once = matrices_at_once(shape) if shape.experts else 1
    # Of each linear layer, by its inputs: q, k, v and o; gate and up; down.
    if shape.experts:
        hessians = 4 * narrow + shape.experts * (2 * shape.hidden**2 + shape.expert_intermediate**2)
        hessians += 2 * shape.hidden**2 + shape.shared_intermediate**2
    else:
        # q, k, v, o and gate, up by the model's width; down by its own.
        hessians = 6 * narrow + shape.intermediate**2
    work = 2 * shape.widest_input**2 + 3 * shape.hidden * shape.widest_input
    return _FP32 * (hessians + at_once * work)


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """Peak of one vLLM server, whichever it computes on."""

    ram_bytes: int
    """On the CPU."""
    vram_bytes: int
    """On a GPU, without the margin that a plan keeps free beside."""
    cache_bytes: int = 0
    """Of that, the key-value cache."""
    full_cache_bytes: int = 0
    """What of it could be of use, where the server has the GPU for itself: for every sequence at full length."""
    cards: int = 1
    """GPUs that the model is split over; the figures of VRAM are of each."""


def server_memory(
    weight_bytes: int,
    *,
    kv_bytes_per_token: int,
    context_tokens: int = CONTEXT_TOKENS,
    sequences: int = SERVED_SEQUENCES,
    whole: int = WHOLE_SEQUENCES,
    slot_bytes: int = 0,
    cards: int = 1,
) -> ServerMemory:
    """Peak of a server that is asked for so many sequences of such a context at once; estimates, no measurements.

    On the CPU `cpu_server_bytes` with the cache that it is given (`cpu_cache_gib`). On a GPU: the weights as stored and
    3 % for padding, `slot_bytes` for adapters, the cache, and `GPU_SERVER_BYTES`. The cache holds every sequence at
    full length, but no more than `whole` of them or 1 GiB, whichever is larger: vLLM lets the others wait. Of several
    `cards` each has its part of the weights, `kv_bytes_per_token` as one card holds them, the slots whole (a factor of
    each adapter is on every card), and `CARD_LINK_BYTES`.
    """
    whole_bytes = (context_tokens + _BLOCK_TOKENS) * kv_bytes_per_token
    cache_bytes = min(sequences * whole_bytes, max(whole * whole_bytes, _LEAST_KV_BYTES))
    return ServerMemory(
        cpu_server_bytes(weight_bytes, cpu_cache_gib(context_tokens * kv_bytes_per_token)) + slot_bytes,
        int(1.03 * weight_bytes / cards)  # 3 %: padding
        + slot_bytes
        + cache_bytes
        + GPU_SERVER_BYTES
        + (CARD_LINK_BYTES if cards > 1 else 0),
        cache_bytes,
        sequences * whole_bytes,
        cards,
    )


def splits(config: Mapping[str, object], cards: int, *, group_size: int = 0) -> bool:
    """Whether vLLM can split a model over so many cards (`--tensor-parallel-size`): every card gets as many heads, as
    many key-value heads or a copy of one, and as wide a part of each MLP, in whole groups of quantized weights."""
    if cards == 1:
        return True
    try:
        shape = ModelShape.of(config)
    except (KeyError, TypeError, ValueError):  # a config that does not say its sizes
        return False
    dense = not shape.experts or shape.dense_layers
    widths = (shape.intermediate if dense else 0, shape.expert_intermediate, shape.shared_intermediate)
    shared_heads = shape.kv_heads % cards == 0 or cards % shape.kv_heads == 0
    return shape.heads % cards == 0 and shared_heads and all(w % (cards * (group_size or 1)) == 0 for w in widths)


def adapter_slot_bytes(shape: ModelShape, rank: int, *, attention_only: bool = False) -> int:
    """What vLLM holds for one adapter of a rank, loaded or not: two factors for each matrix that one may have.

    That is every projection, the input matrix and the head, or attention alone (`--lora-target-modules`).
    """
    attention = shape.lora_parameters(rank, experts=False)
    if attention_only:
        return _BF16 * attention
    return _BF16 * (attention + 2 * rank * (shape.vocab + shape.hidden)) + expert_slot_bytes(shape, rank)


def expert_slot_bytes(shape: ModelShape, rank: int) -> int:
    """Of these what a mixture's experts have: gate, up and down of each, apart (vllm/lora/layers/fused_moe.py)."""
    width = shape.hidden + shape.expert_intermediate
    return _BF16 * rank * shape.mixture_layers * 3 * shape.experts * width


def cpu_cache_gib(conversation_bytes: int) -> int:
    """Cache that a server on the CPU is given, in whole GiB: one, or what a conversation of full length takes."""
    return max(1, math.ceil(conversation_bytes / (1 << 30)))


def cpu_server_bytes(weight_bytes: int, cache_gib: int) -> int:
    """Peak RAM of a vLLM server on the CPU: the weights 1.3 times while they load, its process tree, and its cache."""
    return int(weight_bytes * 1.3) + SERVER_BYTES + (cache_gib << 30)


def serving_peaks(needed: ServerMemory, *, on_gpu: bool) -> dict[str, int]:
    """Peak RAM and VRAM of a server that needs so much: on a GPU VRAM, with the margin beside."""
    if on_gpu:
        return {"ram_bytes": 0, "vram_bytes": needed.vram_bytes + GPU_MARGIN_BYTES}
    return {"ram_bytes": needed.ram_bytes, "vram_bytes": 0}


def quantized_weight_bytes(
    config: Mapping[str, object],
    *,
    bits: int,
    group_size: int = 0,
    unquantized: Collection[str] = (),
) -> int:
    """Of a quantized model's tensors: its projections at so many bits with their scales, and the rest in bf16.

    One scale for `group_size` weights, or for each output where that is 0. `unquantized` are kinds of projection that
    stay in bf16: down_proj, o_proj. Embeddings, head, norms and routers always do.
    """
    shape = ModelShape.of(config)
    down = shape.mlp_parameters // 3 * shape.mixture_layers + shape.dense_layers * shape.hidden * shape.intermediate
    out = shape.layers * shape.heads * shape.head_dim * shape.hidden
    stays = (down if "down_proj" in unquantized else 0) + (out if "o_proj" in unquantized else 0)
    packed = shape.linear_parameters - stays
    scales = packed // (group_size or shape.hidden)
    return packed * bits // 8 + _BF16 * scales + _BF16 * (shape.parameters - packed)


def kv_bytes_per_token(config: Mapping[str, object], *, bytes_per_value: int = _BF16, cards: int = 1) -> int:
    """A token's keys and values in every layer that keeps them, of each of several cards.

    Those of a usual model where the config does not say.
    """
    try:
        shape = ModelShape.of(config)
    except (KeyError, TypeError, ValueError):  # a config that does not say its sizes
        return USUAL_KV_BYTES
    return 2 * shape.kv_layers * math.ceil(shape.kv_heads / cards) * shape.head_dim * bytes_per_value


def group_size_for(config: Mapping[str, object], preferred: int = 128) -> int:
    """The largest of 128, 64, 32 (from `preferred` down) that divides the inputs of every quantized layer.

    0 where none does: one scale per output channel then.
    """
    shape = ModelShape.of(config)
    inputs = {shape.hidden, shape.heads * shape.head_dim}
    inputs |= {shape.expert_intermediate} if shape.experts else {shape.intermediate}
    if shape.shared_intermediate:
        inputs.add(shape.shared_intermediate)
    candidates = [size for size in (128, 64, 32) if size <= preferred]
    return next((size for size in candidates if all(width % size == 0 for width in inputs)), 0)


def rounding_memory_bytes(config: Mapping[str, object]) -> int:
    """Peak RAM of rounding a base to 4 bits, some rows at a time: it grows with neither depth nor experts.

    Runtime (a bundled model was converted in the same process), and the larger of two: the codes of the largest
    projection, made, joined and written (2 bytes a weight); or the input matrix, copied as it is stored.
    """
    shape = ModelShape.of(config)
    return RUNTIME_BYTES + _BF16 * shape.hidden * max(shape.vocab, shape.intermediate, shape.heads * shape.head_dim)
