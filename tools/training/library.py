"""What training uses of a model of transformers, with or without peft around it, and of a trainer's batch.

mypy does not look into these libraries: what is listed here is held to, and an attribute that is not is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from tunesmith.tools.models import turn_end

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from datasets import Dataset
    from torch import Tensor
    from torch.nn import Module
    from transformers import TrainerState

    from tunesmith.tools.training.batch_loss import Measured

    Inputs = Mapping[str, Tensor]
    """A trainer's batch: input_ids, labels and attention_mask, (rows, tokens) each, and our own columns."""


class Output(Protocol):
    """Of a forward pass."""

    last_hidden_state: Tensor
    """(rows, tokens, hidden), of the backbone."""
    logits: Tensor
    """(rows, tokens, vocabulary), with the head."""


class Config(Protocol):
    """Of a model as it is loaded."""

    _attn_implementation: str


class Batch(Protocol):
    """Prompts as tokens: input_ids and attention_mask, (prompts, tokens) each."""

    def __getitem__(self, name: str) -> Tensor: ...

    def keys(self) -> Iterator[str]: ...

    def to(self, device: str) -> Batch: ...


class Tokenizer(turn_end.Tokenizer, Protocol):
    """What is asked of a tokenizer beside what rows need."""

    chat_template: str
    pad_token_id: int | None

    def __call__(
        self, texts: list[str], *, return_tensors: str, padding: bool, add_special_tokens: bool = True
    ) -> Batch: ...

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str: ...

    def convert_ids_to_tokens(self, token: int) -> str: ...


class GenerationConfig(Protocol):
    """What a model's folder says of how it answers."""

    eos_token_id: int | list[int] | None


class Model(Protocol):
    """A causal language model; `base_model` is its backbone, without the head."""

    config: Config
    generation_config: GenerationConfig
    device: torch.device
    dtype: torch.dtype
    training: bool

    def __call__(self, **inputs: object) -> Output: ...

    def base_model(self, **inputs: object) -> Output: ...

    def generate(
        self, *, max_new_tokens: int, do_sample: bool, pad_token_id: int | None, **inputs: Tensor
    ) -> Tensor: ...

    def train(self, mode: bool = True) -> Model: ...

    def eval(self) -> Model: ...

    def disable_adapter(self) -> AbstractContextManager[object]:
        """Of peft's wrapper: the base as it is, for a while."""

    def set_attn_implementation(self, name: str) -> None: ...

    def get_output_embeddings(self) -> Module | None: ...

    def get_input_embeddings(self) -> Module: ...

    def get_submodule(self, name: str) -> Module: ...

    def get_parameter(self, name: str) -> Tensor: ...

    def get_parameter_or_buffer(self, name: str) -> Tensor: ...

    def modules(self) -> Iterator[Module]: ...

    def named_modules(self) -> Iterator[tuple[str, Module]]: ...

    def parameters(self) -> Iterator[Tensor]: ...

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...


class PeftModel(Model, Protocol):
    """A model in peft's wrapper, with one adapter."""

    active_adapter: str

    def load_adapter(self, folder: str, name: str, *, is_trainable: bool) -> object: ...

    def save_pretrained(self, folder: Path, *, save_embedding_layers: bool) -> None: ...


class Trainer(Protocol):
    """What `trainer.make_trainer` makes: trl's, with what is our own."""

    model: PeftModel
    state: TrainerState
    base_states: Mapping[int, Tensor]

    def train(self, *, resume_from_checkpoint: str | None) -> object: ...

    def measure(self, dataset: Dataset) -> Measured:
        """What a data set costs, nothing trained."""


class QuantState(Protocol):
    """How bitsandbytes packed a matrix."""

    shape: Sequence[int]

    def as_dict(self, packed: bool = False) -> Mapping[str, object]: ...


class LoraLayer(Protocol):
    """A layer that peft has put an adapter on."""

    active_adapters: Sequence[str]
    base_layer: Module
    lora_dropout: Mapping[str, Module]
    lora_A: Mapping[str, Module]  # noqa: N815  # peft's own name
    lora_B: Mapping[str, Module]  # noqa: N815
    use_dora: Mapping[str, bool]
    scaling: Mapping[str, float]
    disable_adapters: bool
    merged: bool
    forward: Callable[..., Tensor]
