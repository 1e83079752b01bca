"""The sizes of a model by its config.json alone: parameters by kind, of the whole and of what a token meets.

Exact for the families in `tests/tools/models/test_shape.py`, which hold it against the models that transformers builds.
Covers decoder-only transformers with gated MLPs, dense or mixture-of-experts, tied or untied embeddings, and hybrids
of them with gated delta nets (Qwen3-Next, Qwen3.5). Does not cover vision towers, other state-space layers, or latent
attention (DeepSeek): their count is off by what they have beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_int, as_list, as_object

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Names of the projections of attention: all that an adapter of a mixture at 4 bits has."""
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_QKV_BIAS = ("qwen2", "qwen2_moe")
_HYBRID = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")
"""Most layers are gated delta nets; the attention of the others has a gate as wide as its queries."""
_HEAD_NORMS = ("qwen3", "qwen3_moe", "gemma3", "gemma3_text", "smollm4", *_HYBRID)
"""Query and key are normed with one weight a head's dimension."""
_WIDE_NORMS = ("olmo2", "olmoe", "olmo3")
"""Query and key are normed over all heads."""
# Norms of a layer where it has not the usual two.
_NORMS = {"gemma2": 4, "gemma3": 4, "gemma3_text": 4, "cohere": 1}
_GATED_EXPERT = ("qwen2_moe", "qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text")
"""What the shared expert says is weighed by a gate."""
_CAPPED = ("gemma2",)
_JOINED = ("phi3",)
"""Queries, keys and values are one matrix, gate and up another."""
_TIED = ("gemma", "gemma2", "gemma3", "gemma3_text", "cohere")
"""Families whose configs leave out that input and output share one matrix."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes in a transformers config that memory and time depend on."""

    family: str
    hidden: int
    intermediate: int
    layers: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    """0 for a dense model."""
    expert_intermediate: int
    shared_intermediate: int
    experts_per_token: int
    dense_layers: int
    """Of a mixture, the layers that have an ordinary MLP."""
    tied: bool
    biases: int
    """Of one layer's attention projections."""
    norms: int
    """Weights of one layer's norms."""
    linear_layers: int = 0
    """Layers of linear attention, which keep a state of one size and no keys and values."""
    linear_keys: int = 0
    """Values of a token's query, and of its key, in such a layer."""
    linear_values: int = 0
    linear_heads: int = 0
    """Heads of its values, each with two numbers of its own."""
    linear_kernel: int = 0
    """Tokens that its convolution sees."""

    @classmethod
    def of(cls, config: Mapping[str, object]) -> ModelShape:
        """Read the shape from a config.json, or its text_config. Raises KeyError where a size is missing."""
        c = {**config, **as_object(config.get("text_config", {}))}
        family = str(c.get("model_type") or "llama")
        hidden, heads = _size(c, "hidden_size"), _size(c, "num_attention_heads")
        kv_heads = _size(c, "num_key_value_heads", heads)
        head_dim = _size(c, "head_dim", hidden // heads)
        experts = next((_size(c, key) for key in EXPERT_COUNTS if c.get(key)), 0)
        queries, keys = heads * head_dim, kv_heads * head_dim
        biases = queries + 2 * keys if family in _QKV_BIAS else 0
        if c.get("attention_bias"):
            biases = queries + 2 * keys + (hidden if c.get("attention_out_bias", True) else 0)
        norms = _NORMS.get(family, 2) * hidden
        norms += 2 * head_dim if family in _HEAD_NORMS else 0
        norms += queries + keys if family in _WIDE_NORMS else 0
        return cls(
            family=family,
            hidden=hidden,
            intermediate=_size(c, "intermediate_size", 4 * hidden),  # GPT-2's rule, which such configs leave out
            layers=_layers(c),
            vocab=_size(c, "vocab_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            experts=experts,
            expert_intermediate=_size(c, "moe_intermediate_size", c.get("intermediate_size") or 0) if experts else 0,
            shared_intermediate=_shared(c) if experts else 0,
            experts_per_token=_size(c, "num_experts_per_tok", 1) if experts else 0,
            dense_layers=_dense_layers(c) if experts else 0,
            tied=bool(c.get("tie_word_embeddings", family in _TIED)),
            biases=biases,
            norms=norms,
            **(_linear(c) if family in _HYBRID else {}),
        )

    @property
    def layer_norms(self) -> int:
        """How many norms of the hidden state a layer has."""
        return _NORMS.get(self.family, 2)

    @property
    def keeps_scores(self) -> bool:
        """Whether attention caps its scores, which fused kernels do not: each is computed and kept."""
        return self.family in _CAPPED

    @property
    def attention_options(self) -> dict[str, str]:
        """What transformers has to be told when it loads the model: its fused attention leaves a cap out unsaid."""
        return {"attn_implementation": "eager"} if self.keeps_scores else {}

    @property
    def has_head_norms(self) -> bool:
        """Whether queries and keys are normed."""
        return self.family in (*_HEAD_NORMS, *_WIDE_NORMS)

    @property
    def attention_parameters(self) -> int:
        """Of one layer's q, k, v and o projections and its gate, without biases."""
        gate = self.heads if self.family in _HYBRID else 0
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads + gate)

    @property
    def kv_layers(self) -> int:
        """Layers that keep the keys and values of every token."""
        return self.layers - self.linear_layers

    @property
    def mixed_width(self) -> int:
        """Values of one token in the widest attention of a layer: its queries, or all that a delta net projects."""
        return max(self.heads * self.head_dim, 2 * self.linear_keys + 2 * self.linear_values)

    @property
    def expert_parameters(self) -> int:
        """Of one mixture layer's routed experts; 0 for a dense model."""
        return 3 * self.hidden * self.experts * self.expert_intermediate

    @property
    def mlp_parameters(self) -> int:
        """Of one layer's gate, up and down projections, all experts included."""
        if not self.experts:
            return 3 * self.hidden * self.intermediate
        return self.expert_parameters + 3 * self.hidden * self.shared_intermediate

    @property
    def linear_parameters(self) -> int:
        """Of all layers' projections: what quantization and 4-bit loading are meant to shrink."""
        dense = self.dense_layers * 3 * self.hidden * self.intermediate
        linear = self.hidden * (2 * self.linear_keys + 3 * self.linear_values + 2 * self.linear_heads)
        attention = self.kv_layers * self.attention_parameters + self.linear_layers * linear
        return attention + self.mixture_layers * self.mlp_parameters + dense

    @property
    def mixture_layers(self) -> int:
        """Layers whose MLP is counted by `mlp_parameters`; all of them in a dense model."""
        return self.layers - self.dense_layers

    @property
    def embedding_parameters(self) -> int:
        """Input matrix, and the output head where it is a matrix of its own."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def small_parameters(self) -> int:
        """Norms, biases, routers and the gates of shared experts."""
        routers = self.mixture_layers * self.hidden * (self.experts + (1 if self.family in _GATED_EXPERT else 0))
        small = self.layers * (self.norms + self.biases) + (routers if self.experts else 0) + self.hidden
        if not self.linear_layers:
            return small
        # A delta net has a convolution, two numbers a head and a norm, and no biases or norms of queries and keys.
        net = (2 * self.linear_keys + self.linear_values) * self.linear_kernel
        net += 2 * self.linear_heads + self.linear_values // self.linear_heads
        return small + self.linear_layers * (net - self.biases - 2 * self.head_dim)

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.linear_parameters + self.embedding_parameters + self.small_parameters

    @property
    def active_parameters(self) -> int:
        """What one token is multiplied with: a mixture's chosen experts only, and no row of the input matrix."""
        idle = (
            self.mixture_layers * 3 * self.hidden * self.expert_intermediate * (self.experts - self.experts_per_token)
        )
        return self.linear_parameters - (idle if self.experts else 0) + self.vocab * self.hidden

    @property
    def mlp_width(self) -> int:
        """Intermediate values of one token in one layer."""
        if not self.experts:
            return self.intermediate
        return self.experts_per_token * self.expert_intermediate + self.shared_intermediate

    @property
    def widest_input(self) -> int:
        """The largest number of input features of any quantized layer."""
        return max(self.hidden, self.heads * self.head_dim, self.expert_intermediate or self.intermediate)

    @property
    def largest_matrix(self) -> int:
        """Weights of the largest matrix of a decoder layer."""
        joined = 2 if self.family in _JOINED else 1
        return self.hidden * max(joined * self.intermediate, self.heads * self.head_dim)

    def lora_parameters(self, rank: int, *, experts: bool = True) -> int:
        """Of the LoRA adapter that training makes: rank × (in + out) for each projection that it adapts.

        A mixture's attention and, with `experts` (not at 4 bits), its fused expert matrices: peft gives each expert of
        gate_up (hidden → 2 × width) and of down (width → hidden) its own rank.
        """
        # q and o are hidden × heads, k and v hidden × key heads: in and out of each.
        attention = 2 * (self.hidden + self.head_dim * self.heads) + 2 * (self.hidden + self.head_dim * self.kv_heads)
        attention += self.head_dim * self.heads if self.family in _HYBRID else 0
        if not self.experts:
            joined = 3 * self.hidden if self.family in _JOINED else 0  # two inputs less for q, k, v, one for gate, up
            mlp = 3 * (self.hidden + self.intermediate) - joined
            return rank * (self.kv_layers * attention + self.layers * mlp)
        fused = self.experts * (2 * self.hidden + 3 * self.expert_intermediate) if experts else 0
        return rank * (self.kv_layers * attention + self.mixture_layers * fused)


# 1 << 24: sixty times the largest vocabulary; beyond it memory and time are computed for nothing.
def _size(config: Mapping[str, object], name: str, otherwise: object = None, *, most: int = 1 << 24) -> int:
    """A size that the config names, or what it is where it names none; KeyError where that is not known.

    Whoever wrote the config may have written any number. Raises BadInput for one that no model has.
    """
    value, least = (config[name], 1) if otherwise is None else (config.get(name) or otherwise, 0)
    try:
        size = as_int(value)
    except OverflowError:  # of an infinity
        size = -1
    if not least <= size <= most:
        raise BadInput(f"{name} is {str(value)[:20]} in this config, and a model has {least} to {most:,}")
    return size


def _layers(config: Mapping[str, object]) -> int:
    """Few enough to be counted one by one."""
    return _size(config, "num_hidden_layers", most=10_000)


def _linear(config: Mapping[str, object]) -> dict[str, int]:
    """The sizes of a hybrid's linear attention; three of four layers have it where the config names no kinds."""
    kinds = as_list(config.get("layer_types") or [])
    every, layers = _size(config, "full_attention_interval", 4), _layers(config)
    heads = _size(config, "linear_num_value_heads")
    return {
        "linear_layers": kinds.count("linear_attention") if kinds else layers - layers // every,
        "linear_keys": _size(config, "linear_num_key_heads") * _size(config, "linear_key_head_dim"),
        "linear_values": heads * _size(config, "linear_value_head_dim"),
        "linear_heads": heads,
        "linear_kernel": _size(config, "linear_conv_kernel_dim"),
    }


def _shared(config: Mapping[str, object]) -> int:
    """Width of the experts that every token meets; DeepSeek's and GLM's kind counts them instead."""
    if config.get("shared_expert_intermediate_size"):
        return _size(config, "shared_expert_intermediate_size")
    return _size(config, "n_shared_experts", 0) * _size(config, "moe_intermediate_size", 0)


def _dense_layers(config: Mapping[str, object]) -> int:
    """How many layers of a mixture have an ordinary MLP."""
    if config.get("first_k_dense_replace"):
        return _size(config, "first_k_dense_replace")
    layers = _layers(config)
    every = _size(config, "decoder_sparse_step", 1)
    named = as_list(config.get("mlp_only_layers") or [])
    # As transformers has it: of every so many layers the last is a mixture.
    return sum(layer in named or (layer + 1) % every != 0 for layer in range(layers))
