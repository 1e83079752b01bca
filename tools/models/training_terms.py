"""Terms of training's memory that follow from how its layers, its loss and its experts are computed."""

from __future__ import annotations

from tunesmith.tools.models.shape import ModelShape

_CHUNK_BYTES = 64 << 20
"""Of one fp32 copy of a chunk's logits; larger ones gain no pace, and each is held three times."""
_FEWEST_TOKENS = 16  # else the product with a huge vocabulary's matrix has too few rows to be fast
_CPU_PROCESS_BYTES = 580 << 20  # these three are fitted: see `runtime_on_cpu_bytes`
_CPU_VOCABULARY_ENTRY_BYTES = 900
_CPU_HEAP_TOKEN_BYTES = 2 << 10
_CPU_ATTENDED_TOKENS = 1024
"""Of a row, whose attention weights exist at once; of longer ones torch computes a block after the other."""


def chunk_tokens(vocab: int) -> int:
    """Labelled tokens whose logits exist at once."""
    return max(_FEWEST_TOKENS, _CHUNK_BYTES // (4 * vocab))  # four bytes a logit in fp32


def head_bytes(vocab: int, hidden: int, labelled_tokens: int, *, value_bytes: int = 2) -> int:
    """Peak memory of the output head and the loss beside the model's weights.

    Of one chunk's logits three fp32 copies (log-probabilities of model and base, the base's probabilities) and two at
    the model's precision; of every labelled token its hidden state, the base's, and the gradient.
    """
    chunk = min(chunk_tokens(vocab), labelled_tokens)
    return chunk * vocab * (3 * 4 + 2 * value_bytes) + 3 * labelled_tokens * hidden * value_bytes


def unpacked_bytes(shape: ModelShape, *, value_bytes: int = 2) -> int:
    """What of 4-bit weights exists at the precision that is computed in: the experts of one layer, or one matrix."""
    return value_bytes * (shape.expert_parameters or shape.largest_matrix)


def activation_bytes(
    shape: ModelShape, *, lora_rank: int, row_tokens: int = 0, value_bytes: int = 2, adapts_experts: bool = False
) -> int:
    """What autograd keeps of a token in one layer, where every LoRA layer is fused (`training/fused_lora`).

    At the model's precision: the inputs of q/k/v, of o and of gate/up; queries, keys and values with keys and values
    repeated for the query heads, and the attention's output; of a gated MLP the gate, its activation, the other factor
    and the product. In fp32: the inputs of the norms, and queries and keys where each head has a norm. A mixture keeps
    the first three of each chosen expert (gate and factor are one tensor) and its outputs, and, where experts are
    adapted, its inputs and products. Where attention caps its scores (Gemma 2), they are kept too, three times, one of
    them in fp32, for each of a row's `row_tokens`. `tests/gpu_rehearsal` holds all this against what torch keeps.

    An estimate of a hybrid: its linear attention counts as five times all that it projects.
    """
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = 2 * hidden + 5 * shape.mixed_width + 7 * lora_rank
    if shape.experts:
        routed = shape.experts_per_token * (hidden + 3 * shape.expert_intermediate)
        routed += shape.experts_per_token * (hidden + shape.expert_intermediate) if adapts_experts else 0
        mlp = routed + 4 * shape.shared_intermediate - hidden
    else:
        mlp = 4 * shape.intermediate
    norms = shape.layer_norms * hidden + (queries + keys if shape.has_head_norms else 0)
    # Three times, one of them in fp32, as said above.
    scores = shape.heads * row_tokens * (2 * value_bytes + 4) if shape.keeps_scores else 0
    return value_bytes * (attention + mlp) + 4 * norms + scores


def plain_activation_bytes(shape: ModelShape, *, value_bytes: int = 2) -> int:
    """The same where peft's own layers compute (LoRA dropout): an fp32 copy of every projection's input beside."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 4 * (queries + keys) if shape.has_head_norms else 0
    return value_bytes * (16 * shape.hidden + 7 * shape.mlp_width) + norms


def backward_bytes(shape: ModelShape, *, value_bytes: int = 2) -> int:
    """Gradients of a token that exist at once in one layer's backward pass: of the MLP's factors and of its ends."""
    return value_bytes * (3 * shape.mlp_width + 4 * shape.hidden)


def adapted_experts_bytes(shape: ModelShape, *, value_bytes: int = 2) -> int:
    """Of one layer whose experts are adapted: peft adds the update to the stacks, and the sums are kept."""
    return shape.expert_parameters * value_bytes * 5 // 4  # the sum, and a part of the update at a time


def runtime_on_cpu_bytes(shape: ModelShape, *, rows: int, row_tokens: int, checkpointing: bool) -> int:
    """What training holds beside tensors that can be counted, where a processor computes.

    The process with its libraries; the tokenizer, by entries of the vocabulary; what the heap rounds up and keeps
    between the tensors of a layer, by tokens of layers whose activations are kept; and one layer's attention weights,
    forward and backward, in fp32. All four are fitted to peaks of resident bytes, of rows up to 3,072 tokens:
    `tests/bench/training_memory` measures them again.
    """
    tokens, layers = rows * row_tokens, 1 if checkpointing else shape.layers
    heap = _CPU_HEAP_TOKEN_BYTES * layers * tokens
    weights = 2 * 4 * shape.heads * tokens * min(row_tokens, _CPU_ATTENDED_TOKENS)  # forward and backward, in fp32
    return _CPU_PROCESS_BYTES + _CPU_VOCABULARY_ENTRY_BYTES * shape.vocab + heap + weights
