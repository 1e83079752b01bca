"""Rows behind each other: each is computed as if it were alone, and a model that mixes them is known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tunesmith.tools.training.packing import (
    ATTENTION,
    best_fit,
    hidden_states,
    keeps_sequences_apart,
    packed_sequences,
    use_document_attention,
)
from tunesmith.tools.training.rows import IGNORED

pytestmark = pytest.mark.lab

WINDOW = {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": WINDOW,
    "mistral": {"sliding_window": 16},
    "qwen3_moe": {},
    "gemma3_text": {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16},
}


def rows(prefix: int, lengths: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Rows with a common beginning, labelled at their ends."""
    chance = random.Random(5)
    common = [chance.randrange(3, 250) for _ in range(prefix)]
    made = []
    for number, length in enumerate(lengths):
        ids = [*common, 3 + number, *(chance.randrange(3, 250) for _ in range(length - prefix - 1))]
        made.append((ids, [IGNORED] * (length - 3) + ids[-3:]))
    return made


def model_of(kind: str, folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(write_tiny_model(folder, kind, **KINDS[kind]), dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.dim() > 1 else 1  # attention that looks somewhere
    return model


@pytest.mark.parametrize("sizes", [1, 32])
@pytest.mark.parametrize(("kind", "prefix"), [("llama", 0), *((kind, 20) for kind in KINDS)])
def test_hidden_states_and_gradients_are_those_of_each_row_alone(
    kind: str, prefix: int, sizes: int, tmp_path: Path
) -> None:
    import torch

    model = model_of(kind, tmp_path)
    some = rows(prefix, (200, 70, 60, 41, 30, 27))
    weights = torch.randn(64, generator=torch.Generator().manual_seed(1))

    def gradients() -> list[Any]:
        found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        model.zero_grad()
        return found

    alone = {}
    for number, (ids, labels) in enumerate(some):
        hidden = model.base_model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        alone[number] = hidden[[at - 1 for at, label in enumerate(labels) if label != IGNORED]]
    sum((one @ weights).pow(2).sum() for one in alone.values()).backward()
    expected = gradients()

    use_document_attention(model)
    batch = packed_sequences(some, prefix=prefix, device=model.device, sizes=sizes)
    tokens = prefix + sum(len(ids) - prefix for ids, _ in some)
    assert batch.ids.shape == (1, -(-tokens // sizes) * sizes), "no padding but to the next size"
    together = hidden_states(model, batch)[batch.predicts]
    (together @ weights).pow(2).sum().backward()
    for number, one in alone.items():
        assert torch.allclose(together[batch.row == number], one, rtol=1e-5, atol=1e-5), number
    for one, other in zip(expected, gradients(), strict=True):
        assert (one - other).norm() <= 1e-5 * one.norm() + 1e-7


def test_without_its_documents_a_sequence_of_rows_is_one_row(tmp_path: Path) -> None:
    """What the test above would see if nothing kept them apart."""
    import torch

    model = model_of("llama", tmp_path)
    some = rows(0, (60, 50))
    use_document_attention(model)
    batch = packed_sequences(some, prefix=0, device=model.device)
    apart = hidden_states(model, batch)
    mixed = model.base_model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).last_hidden_state[0]
    assert torch.allclose(apart[:60], mixed[:60], atol=1e-5)
    assert (apart[60:] - mixed[60:]).norm() > 0.05 * apart[60:].norm()


@contextmanager
def deaf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model that hears nothing of packed sequences."""
    from transformers.models.llama import modeling_llama as llama

    own = llama.LlamaAttention.forward
    with monkeypatch.context() as patch:
        patch.setattr(
            llama.LlamaAttention,
            "forward",
            lambda self, *args, sequences=None, **kwargs: own(self, *args, **kwargs),
        )
        yield


def test_a_model_is_tried_and_has_its_own_attention_where_it_mixes_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama", tmp_path)
    config = model.config.to_dict()
    with deaf(monkeypatch):
        assert not keeps_sequences_apart(model, config)
    assert model.config._attn_implementation == "sdpa"
    assert not keeps_sequences_apart(model, config | {"layer_types": ["chunked_attention"] * 2})
    assert keeps_sequences_apart(model, config)
    assert model.config._attn_implementation == ATTENTION


def test_parts_hold_every_row_once_and_no_more_tokens_than_they_may() -> None:
    chance = random.Random(3)
    for most in (64, 100, 513):
        lengths = [min(400, int(chance.lognormvariate(4, 1)) + 1) for _ in range(60)]
        parts = best_fit(lengths, most)
        assert sorted(place for part in parts for place in part) == list(range(60))
        for part in parts:
            assert sum(lengths[place] for place in part) <= most or len(part) == 1
        wide = sum(length for length in lengths if length <= most)
        alone = sum(length > most for length in lengths)
        assert len(parts) - alone <= 11 / 9 * wide / most + 2, "best fit, the longest first, wastes little"
