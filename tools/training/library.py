"""What training uses of a model of transformers, with or without peft around it, and of a trainer's batch.

mypy does not look into these libraries: what is listed here is held to, and an attribute that is not is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

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


class Model(Protocol):
    """A causal language model; `base_model` is its backbone, without the head."""

    config: Config
    device: torch.device
    dtype: torch.dtype
    training: bool

    def __call__(self, **inputs: object) -> Output: ...

    def base_model(self, **inputs: object) -> Output: ...

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
