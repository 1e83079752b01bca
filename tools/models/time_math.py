"""How long each kind of work takes, by arithmetic on a model's config and a device's rates.

Each formula states its terms, as `memory_math` does for bytes. Of a mixture the active parameters count where tokens
are multiplied, all of them where weights are read. The shares of a device's best that are reached (0.55 in training,
0.5 in GPTQ, 0.75 of the memory's rate) and a server's start on a card are published figures; starts on a CPU were
measured. Not covered: several cards, disks that are read over a network.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from tunesmith.tools.core.rates import Rates, Seconds
from tunesmith.tools.models.rounding_terms import ROUNDING_STEPS
from tunesmith.tools.models.shape import ModelShape

WORKER_START_S = 1.5
"""Of a worker that loads no torch."""
LAB_START_S = 7.5
"""Of a worker with torch, transformers and peft, before it has loaded a model."""
SERVER_START_S, CARD_SERVER_START_S = 16.0, 35.0
"""Of vLLM beside its weights; on a card it compiles and captures graphs: 60 s cold, 25 s warm (read)."""
# Of a device's best rate, what such work reaches in published runs; steps that were measured correct the price.
_TRAIN_SHARE, _NF4_SHARE, _PREFILL_SHARE, _GPTQ_SHARE, _MEMORY_SHARE = 0.55, 0.40, 0.55, 0.5, 0.75
_CPU_TRAIN_SHARE = 0.40
"""Of a processor's best, in training: 135M and 241M, steps of 64 to 2,048 tokens (measured)."""
_LAYER_STEP_S, _CARD_LAYER_STEP_S = 10e-3, 6e-4
"""Of a layer's operations forward and backward, apart from what they compute: their dispatch (measured likewise)."""
_NF4_TRAFFIC_BYTES = 150
"""Of the memory's traffic in the time that a processor takes to round one weight to NF4 as it is loaded (measured)."""
_LOADED_LAYER_S = 0.05
"""Of a layer that is built and gets its adapter, before the first step; on two cores."""
_COLUMN_S = 7e-5
"""Of one column that GPTQ rounds into the others, apart from what is computed: a handful of small operations."""
_PROVEN_LAYER_S = 0.07
"""Of a layer of three models whose logits a merge compares, beside reading it; on two cores."""
_DECODE_LAYER_S, _CARD_DECODE_S = 4e-4, 3e-3
"""Of a step that writes a token, beside reading weights and cache: a layer's operations on a CPU, all on a card."""
_ACTIVATION_PASSES = 4
"""Times that what a layer keeps of a token is written or read, forward and backward: itself and its gradient, each
written and read."""
_HANDLED_BYTES_S = 8e8
"""Read, checked and handed on by Python and its libraries, wherever the disk is faster than that."""
_ROUNDED_FLOP = 8000
"""Of fp32 products in the time that scaling, rounding and packing one weight takes: 20 to 45 million weights a second
on two cores of two kinds, whose memory differs fourfold (measured)."""
_LEARNED_BYTES = 400
"""Of the memory's traffic a weight, in a step of AutoRound that learns how it is rounded. By processor
seconds on two busy cores, of 135M (`tests/tools/models/test_rounding_terms`)."""
_BF16 = 2


def passed(weight_bytes: float, rates: Rates) -> float:
    """Of weights that are read or written once, with what is done to each byte: a digest, a copy, another type."""
    return weight_bytes * (1 / rates.disk_bytes_s + 1 / _HANDLED_BYTES_S)


def training_seconds(
    config: Mapping[str, object],
    rates: Rates,
    *,
    tokens: float,
    micro_steps: int,
    on_card: bool,
    read_tokens: float = 0.0,
    checkpointing: bool = False,
    load_in_4bit: bool = False,
    precision: str = "bf16",
) -> Seconds:
    """LoRA training on so many tokens: load + matrix products + activations + dispatch.

    Products, at the rate of the precision: 2 FLOP a parameter and token forward and 2 backward, since frozen weights
    have no gradient of their own; 2 more with checkpointing. `read_tokens` only go forward: rehearsal through the base,
    validation. Activations: (16 hidden + 7 intermediate) values a token and layer, by the memory's rate. Dispatch: by
    micro-step and layer. 4-bit weights are unpacked for each pass of a micro-step.
    """
    shape = ModelShape.of(config)
    # Forward and backward: frozen weights have no gradient of their own. Checkpointing goes forward again.
    passes = 3 if checkpointing else 2
    share = _NF4_SHARE if load_in_4bit else _TRAIN_SHARE if on_card else _CPU_TRAIN_SHARE
    flops, size = (rates.fp32_flops, 2 * _BF16) if precision == "fp32" else (rates.bf16_flops, _BF16)
    products = 2 * (passes * tokens + read_tokens) * shape.active_parameters / (share * flops)
    # Values that a layer keeps of a token, as training_terms.plain_activation_bytes counts them.
    activation_bytes = tokens * shape.layers * (16 * shape.hidden + 7 * shape.mlp_width) * size
    moved = _ACTIVATION_PASSES * activation_bytes / (_MEMORY_SHARE * rates.memory_bytes_s)
    dispatch = micro_steps * shape.layers * (_CARD_LAYER_STEP_S if on_card else _LAYER_STEP_S)
    # Unpacking reads half a byte and writes two.
    unpacked = 2.5 * micro_steps * passes * shape.linear_parameters / rates.memory_bytes_s if load_in_4bit else 0.0
    load = loading_seconds(shape, rates, load_in_4bit=load_in_4bit, on_card=on_card)
    return load + Seconds(LAB_START_S, train=products + moved + dispatch + unpacked)


def loading_seconds(shape: ModelShape, rates: Rates, *, load_in_4bit: bool, on_card: bool) -> Seconds:
    """Of a model that training reads and puts adapters on; a processor rounds it to 4 bits as slowly as it computes."""
    built = _LOADED_LAYER_S * shape.layers
    if load_in_4bit and not on_card:
        built += _NF4_TRAFFIC_BYTES * shape.linear_parameters / rates.memory_bytes_s
    return Seconds(read=passed(_BF16 * shape.parameters, rates), train=built)


def answering_seconds(
    shape: ModelShape,
    weight_bytes: int,
    rates: Rates,
    *,
    answers: float,
    answer_tokens: float,
    prompt_tokens: float,
    at_once: int,
    on_card: bool,
) -> Seconds:
    """A server's answers, so many at once: the steps that decode them and the prompts that are read.

    A step takes the longer of reading weights and caches and of multiplying, and its dispatch. `prompt_tokens` are
    those that no other prompt begins with, since what prompts share is read once.
    """
    if answers <= 0:
        return Seconds()
    together = max(1.0, min(at_once, answers))
    steps = answers * answer_tokens / together
    context = prompt_tokens + answer_tokens / 2
    cache = together * context * 2 * shape.kv_layers * shape.kv_heads * shape.head_dim * _BF16
    read = (weight_bytes * _read_share(shape, together) + cache) / (_MEMORY_SHARE * rates.memory_bytes_s)
    multiplied = 2 * shape.active_parameters * together / (_PREFILL_SHARE * rates.served_flops)
    dispatch = _CARD_DECODE_S if on_card else _DECODE_LAYER_S * shape.layers
    prefill = 2 * shape.active_parameters * answers * prompt_tokens / (_PREFILL_SHARE * rates.served_flops)
    return Seconds(answer=steps * (max(read, multiplied) + dispatch) + prefill, answers=answers)


def _read_share(shape: ModelShape, together: float) -> float:
    """Of a model's weights, what a step reads: of a mixture the experts that any of the sequences has chosen."""
    if not shape.experts:
        return 1.0
    chosen = 1 - math.pow(1 - shape.experts_per_token / shape.experts, together)
    experts = shape.mixture_layers * shape.expert_parameters
    return 1 - experts * (1 - chosen) / shape.parameters


def server_start(weight_bytes: int, rates: Rates, *, on_card: bool) -> Seconds:
    """Of a vLLM server: its own start, and its weights from the disk."""
    return Seconds(CARD_SERVER_START_S if on_card else SERVER_START_S, read=passed(weight_bytes, rates))


def merge_seconds(config: Mapping[str, object], weight_bytes: int, rates: Rates) -> Seconds:
    """Base verified and read, every shard summed and written, all of it audited: four passes over the bytes; and the
    logits of three models, layer by layer."""
    layers = ModelShape.of(config).layers
    return Seconds(LAB_START_S + 1, read=4 * passed(weight_bytes, rates), compute=_PROVEN_LAYER_S * layers)


def rounding_seconds(config: Mapping[str, object], rates: Rates) -> Seconds:
    """Rounding a base to 4 bits on the processor: read, written and audited; `_ROUNDED_FLOP` a weight."""
    shape = ModelShape.of(config)
    stored = passed(2.5 * _BF16 * shape.parameters, rates)
    return Seconds(read=stored, compute=_ROUNDED_FLOP * shape.linear_parameters / rates.fp32_flops)


def gptq_seconds(
    config: Mapping[str, object], rates: Rates, *, tokens: float, unquantized: Collection[str] = ()
) -> Seconds:
    """GPTQ on so many calibration tokens: load and save + two forward passes + Hessians + their inverses + rounding.

    Of a layer with `in` inputs and `out` outputs: 2·in² FLOP a token for the Hessian; 4/3·in³ for its Cholesky factor,
    the inverse by that and the inverse's own factor; in²·out for rounding every column into the others. All in fp32.
    Every expert sees every token. Columns are rounded one after the other. `unquantized` are the kinds of layer that
    stay as they are, such as down_proj.
    """
    shape = ModelShape.of(config)
    layers = _quantized_layers(shape, unquantized)
    # 4: forward twice, to calibrate a layer and to go on behind it rounded; 3: read, written, audited.
    forward = 4 * tokens * shape.linear_parameters / (_GPTQ_SHARE * rates.bf16_flops)
    hessians = sum(count * 2 * tokens * inputs**2 for inputs, _, count in layers)
    solved = sum(count * (4 * inputs**3 / 3 + inputs**2 * outputs) for inputs, outputs, count in layers)
    stored = 3 * passed(_BF16 * shape.parameters, rates)
    columns = _COLUMN_S * sum(count * inputs for inputs, _, count in layers)
    computed = (hessians + solved) / (_GPTQ_SHARE * rates.fp32_flops)
    return Seconds(LAB_START_S + 3, read=stored, compute=forward + computed + columns)


def nearest_seconds(config: Mapping[str, object], rates: Rates, *, tokens: float) -> Seconds:
    """Rounding every weight to its nearest step: load and save, one forward pass of so many tokens, nothing solved."""
    shape = ModelShape.of(config)
    forward = 2 * tokens * shape.linear_parameters / (_GPTQ_SHARE * rates.bf16_flops)
    return Seconds(LAB_START_S + 3, read=3 * passed(_BF16 * shape.parameters, rates), compute=forward)


def autoround_seconds(
    config: Mapping[str, object], rates: Rates, *, tokens: float, tokens_a_step: float, on_card: bool
) -> Seconds:
    """AutoRound: load and save, four forward passes of all tokens, and steps of training on each layer.

    A step: 2 FLOP a weight and token forward, 4 backward, since every weight has a gradient; its rounding made and
    learned (`_LEARNED_BYTES` of traffic a weight); and dispatch as of training, three times as much for the rounding.
    """
    shape = ModelShape.of(config)
    # 6: forward and backward, 2 FLOP a weight each for the product and for both gradients.
    step = 6 * tokens_a_step * shape.linear_parameters / (_TRAIN_SHARE * rates.bf16_flops)
    step += _LEARNED_BYTES * shape.linear_parameters / rates.memory_bytes_s
    step += 3 * shape.layers * (_CARD_LAYER_STEP_S if on_card else _LAYER_STEP_S)
    # 4 * tokens: the four passes that are named above.
    return nearest_seconds(config, rates, tokens=4 * tokens) + Seconds(compute=ROUNDING_STEPS * step)


def _quantized_layers(shape: ModelShape, unquantized: Collection[str]) -> list[tuple[int, int, int]]:
    """Inputs, outputs, and how many such layers there are."""
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layers = [(hidden, queries, shape.layers), (hidden, keys, 2 * shape.layers)]
    layers += [] if "o_proj" in unquantized else [(queries, hidden, shape.layers)]
    for width, count in (
        (shape.intermediate, shape.dense_layers if shape.experts else shape.layers),
        (shape.shared_intermediate, shape.mixture_layers if shape.shared_intermediate else 0),
        (shape.expert_intermediate, shape.mixture_layers * shape.experts),
    ):
        layers.append((hidden, width, 2 * count))
        layers += [] if "down_proj" in unquantized else [(width, hidden, count)]
    return layers
