"""Open model families by the facts of their config.json, for questions that are asked before anything is downloaded.

Published configs, written down once; `tests/tools/models/test_shape.py` holds the parameter counts that follow from
them against the sizes that their makers state. A model that is not here is read from its folder or from the hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.memory.errors import BadInput
from tunesmith.tools.models.shape import ModelShape

_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size",
)  # fmt: skip
_EXPERT_KEYS = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model by its config's sizes."""

    name: str
    """Of a published one, its id on the hub."""
    config: Mapping[str, object]
    approximate: bool = False
    """Whether it only stands for a size that was named."""

    @property
    def shape(self) -> ModelShape:
        """Its sizes, for the memory formulas."""
        return ModelShape.of(self.config)

    @property
    def parameters(self) -> int:
        """All of them. Raises BadInput for a config without the sizes that decide."""
        try:
            return self.shape.parameters
        except (KeyError, TypeError, ValueError) as error:  # a config may leave anything out
            why = f"the config of {self.name} does not say its sizes ({error}): no arithmetic can be done"
            raise BadInput(why) from None


def _model(
    name: str, family: str, sizes: tuple[int, ...], *, tied: bool = False, experts: tuple[int, ...] = (), **more: int
) -> NamedModel:
    config, mixture = dict(zip(_KEYS, sizes, strict=True)), dict(zip(_EXPERT_KEYS, experts, strict=bool(experts)))
    return NamedModel(name, {"model_type": family, **config, "tie_word_embeddings": tied, **mixture, **more})


KNOWN_MODELS: tuple[NamedModel, ...] = (
    _model("HuggingFaceTB/SmolLM2-135M-Instruct", "llama", (576, 1536, 30, 9, 3, 64, 49152), tied=True),
    _model("HuggingFaceTB/SmolLM2-360M-Instruct", "llama", (960, 2560, 32, 15, 5, 64, 49152), tied=True),
    _model("HuggingFaceTB/SmolLM2-1.7B-Instruct", "llama", (2048, 8192, 24, 32, 32, 64, 49152), tied=True),
    _model("HuggingFaceTB/SmolLM3-3B", "smollm3", (2048, 11008, 36, 16, 4, 128, 128256), tied=True),
    _model("Qwen/Qwen2.5-0.5B-Instruct", "qwen2", (896, 4864, 24, 14, 2, 64, 151936), tied=True),
    _model("Qwen/Qwen2.5-1.5B-Instruct", "qwen2", (1536, 8960, 28, 12, 2, 128, 151936), tied=True),
    _model("Qwen/Qwen2.5-3B-Instruct", "qwen2", (2048, 11008, 36, 16, 2, 128, 151936), tied=True),
    _model("Qwen/Qwen2.5-7B-Instruct", "qwen2", (3584, 18944, 28, 28, 4, 128, 152064)),
    _model("Qwen/Qwen2.5-14B-Instruct", "qwen2", (5120, 13824, 48, 40, 8, 128, 152064)),
    _model("Qwen/Qwen2.5-32B-Instruct", "qwen2", (5120, 27648, 64, 40, 8, 128, 152064)),
    _model("Qwen/Qwen2.5-72B-Instruct", "qwen2", (8192, 29568, 80, 64, 8, 128, 152064)),
    _model("Qwen/Qwen2.5-Coder-0.5B-Instruct", "qwen2", (896, 4864, 24, 14, 2, 64, 151936), tied=True),
    _model("Qwen/Qwen2.5-Coder-1.5B-Instruct", "qwen2", (1536, 8960, 28, 12, 2, 128, 151936), tied=True),
    _model("Qwen/Qwen2.5-Coder-7B-Instruct", "qwen2", (3584, 18944, 28, 28, 4, 128, 152064)),
    _model("Qwen/Qwen2.5-Coder-32B-Instruct", "qwen2", (5120, 27648, 64, 40, 8, 128, 152064)),
    _model("Qwen/Qwen3-0.6B", "qwen3", (1024, 3072, 28, 16, 8, 128, 151936), tied=True),
    _model("Qwen/Qwen3-1.7B", "qwen3", (2048, 6144, 28, 16, 8, 128, 151936), tied=True),
    _model("Qwen/Qwen3-4B", "qwen3", (2560, 9728, 36, 32, 8, 128, 151936), tied=True),
    _model("Qwen/Qwen3-4B-Instruct-2507", "qwen3", (2560, 9728, 36, 32, 8, 128, 151936), tied=True),
    _model("Qwen/Qwen3-8B", "qwen3", (4096, 12288, 36, 32, 8, 128, 151936)),
    _model("Qwen/Qwen3-14B", "qwen3", (5120, 17408, 40, 40, 8, 128, 151936)),
    _model("Qwen/Qwen3-32B", "qwen3", (5120, 25600, 64, 64, 8, 128, 151936)),
    _model("Qwen/Qwen3-30B-A3B", "qwen3_moe", (2048, 6144, 48, 32, 4, 128, 151936), experts=(128, 8, 768)),
    _model(
        "Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3_moe", (2048, 6144, 48, 32, 4, 128, 151936),
        experts=(128, 8, 768),
    ),
    _model("Qwen/Qwen3-235B-A22B", "qwen3_moe", (4096, 12288, 94, 64, 4, 128, 151936), experts=(128, 8, 1536)),
    _model(
        "Qwen/Qwen3-Next-80B-A3B-Instruct", "qwen3_next", (2048, 5120, 48, 16, 2, 256, 151936), experts=(512, 10, 512),
        shared_expert_intermediate_size=512, linear_num_key_heads=16, linear_num_value_heads=32,
        linear_key_head_dim=128, linear_value_head_dim=128, linear_conv_kernel_dim=4,
    ),
    _model("meta-llama/Llama-3.2-1B-Instruct", "llama", (2048, 8192, 16, 32, 8, 64, 128256), tied=True),
    _model("meta-llama/Llama-3.2-3B-Instruct", "llama", (3072, 8192, 28, 24, 8, 128, 128256), tied=True),
    _model("meta-llama/Llama-3.1-8B-Instruct", "llama", (4096, 14336, 32, 32, 8, 128, 128256)),
    _model("meta-llama/Llama-3.3-70B-Instruct", "llama", (8192, 28672, 80, 64, 8, 128, 128256)),
    _model("meta-llama/Llama-3.1-405B-Instruct", "llama", (16384, 53248, 126, 128, 8, 128, 128256)),
    _model("mistralai/Mistral-7B-Instruct-v0.3", "mistral", (4096, 14336, 32, 32, 8, 128, 32768)),
    _model("mistralai/Mistral-Nemo-Instruct-2407", "mistral", (5120, 14336, 40, 32, 8, 128, 131072)),
    _model("mistralai/Mistral-Small-24B-Instruct-2501", "mistral", (5120, 32768, 40, 32, 8, 128, 131072)),
    _model(
        "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral", (4096, 14336, 32, 32, 8, 128, 32000),
        experts=(8, 2, 14336),
    ),
    _model("google/gemma-2-2b-it", "gemma2", (2304, 9216, 26, 8, 4, 256, 256000), tied=True),
    _model("google/gemma-2-9b-it", "gemma2", (3584, 14336, 42, 16, 8, 256, 256000), tied=True),
    _model("google/gemma-2-27b-it", "gemma2", (4608, 36864, 46, 32, 16, 128, 256000), tied=True),
    _model("google/gemma-3-270m-it", "gemma3_text", (640, 2048, 18, 4, 1, 256, 262144), tied=True),
    _model("google/gemma-3-1b-it", "gemma3_text", (1152, 6912, 26, 4, 1, 256, 262144), tied=True),
    _model("allenai/OLMo-2-1124-7B-Instruct", "olmo2", (4096, 11008, 32, 32, 32, 128, 100352)),
    _model("allenai/Olmo-3-7B-Instruct", "olmo3", (4096, 11008, 32, 32, 32, 128, 100278)),
    _model("allenai/Olmo-3.1-32B-Instruct", "olmo3", (5120, 27648, 64, 40, 8, 128, 100278)),
    _model("allenai/OLMoE-1B-7B-0125-Instruct", "olmoe", (2048, 1024, 16, 16, 16, 128, 50304), experts=(64, 8, 1024)),
    _model(
        "ByteDance-Seed/Seed-OSS-36B-Instruct", "seed_oss", (5120, 27648, 64, 80, 8, 128, 155136),
        attention_bias=True, attention_out_bias=False,
    ),
    _model("microsoft/phi-4", "phi3", (5120, 17920, 40, 40, 10, 128, 100352)),
)  # fmt: skip
_UNTRIED = {"olmo3", "qwen3_next", "seed_oss"}
FAMILIES = frozenset(str(model.config["model_type"]) for model in KNOWN_MODELS) - _UNTRIED
"""Those that were taken through the whole chain; `ModelShape` counts the parameters of all that are listed exactly."""


def config_of(name: str) -> Mapping[str, object]:
    """The config of a model that is listed under this very id."""
    return next(model.config for model in KNOWN_MODELS if model.name == name)


def find_known(words: str) -> NamedModel | None:
    """The published model that `words` mean: its hub id, or a name such as `qwen3 8b` or `llama-3.1-8b`; None for none.

    A version may be shortened ("llama 3" for 3.1), and the shortest fitting name is meant: "qwen2.5 7b" is no coder.
    """
    return min(known_of(words), key=lambda model: len(model.name), default=None)


def known_of(words: str) -> list[NamedModel]:
    """Every published model that `words` may mean: of a family's name alone, all of its sizes."""
    wanted = _name_words(words)
    return [model for model in KNOWN_MODELS if wanted and _names(wanted, _name_words(model.name))]


def _names(wanted: set[str], name_words: set[str]) -> bool:
    return all(any(part == word or part.startswith(f"{word}.") for part in name_words) for word in wanted)


def _name_words(name: str) -> set[str]:
    """The words of a model's name, with family and version apart however they are joined: {"qwen", "3", "8b"}."""
    words = re.findall(r"[a-z]+(?=\d)|\d+x\d+b|a?\d+(?:\.\d+)?[bm]?\b|\d+(?:\.\d+)?|[a-z]+", name.lower())
    return {part for part in words if part not in {"instruct", "it", "chat", "the", "model"}}
