"""The plugin's arithmetic against the definition: each token gets its own adapter, and nothing else."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.tools.cpu.settings import VLLM_PLUGIN

pytestmark = pytest.mark.alone

RANK, INPUTS, SLICES = 4, 24, (16, 8, 8)


def plugin() -> Any:
    spec = importlib.util.spec_from_file_location("tunesmith_vllm", VLLM_PLUGIN / "tunesmith_vllm.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("runs", [[(5, 0)], [(3, -1), (4, 1), (1, 0)], [(1, 0), (1, -1)] * 4], ids=str)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_token_gets_its_own_adapter_and_one_without_keeps_its_output(
    runs: list[tuple[int, int]], scale: float
) -> None:
    import torch

    torch.manual_seed(0)
    slots = [slot for length, slot in runs for _ in range(length)]
    a = tuple(torch.randn(2, 1, RANK, INPUTS) for _ in SLICES)
    b = tuple(torch.randn(2, 1, width, RANK) for width in SLICES)
    x, before = torch.randn(len(slots), INPUTS), torch.randn(len(slots), sum(SLICES))
    metadata = (None, torch.tensor([n for n, _ in runs]), torch.tensor([s for _, s in runs]), len(runs), 0, 0)
    batch = SimpleNamespace(no_lora=False, prefill_metadata=metadata)

    y = before.clone()
    plugin().add_lora_linear(batch, y, x, a, b, scale, SLICES)

    for token, slot in enumerate(slots):
        delta = [scale * b[i][slot, 0] @ (a[i][slot, 0] @ x[token]) for i in range(len(SLICES))]
        expected = before[token] + torch.cat(delta) if slot >= 0 else before[token]
        assert torch.allclose(y[token], expected, atol=1e-4), f"token {token} of slot {slot}"
    assert all(torch.equal(y[i], before[i]) for i, slot in enumerate(slots) if slot < 0)


@pytest.mark.parametrize("slots", [[0, 0], [1, -1, 0, 1], [-1, -1]], ids=str)
def test_a_rows_logits_get_its_own_adapters_part_where_it_has_one(slots: list[int]) -> None:
    import torch

    torch.manual_seed(0)
    a, b = torch.randn(2, 1, RANK, INPUTS), torch.randn(2, 1, 40, RANK)
    b[0] = 0  # an adapter without a part on the output layer
    x, before = torch.randn(len(slots), INPUTS), torch.randn(len(slots), 40)
    batch = SimpleNamespace(no_lora=False, sampler_indices=torch.tensor([*slots, 1]))  # vLLM's may be longer

    y = before.clone()
    plugin().add_lora_logits(batch, y, x, a, b, 0.5)

    for row, slot in enumerate(slots):
        added = 0.5 * b[1, 0] @ (a[1, 0] @ x[row]) if slot == 1 else 0
        assert torch.allclose(y[row], before[row] + added, atol=1e-4), f"row {row} of slot {slot}"


def test_without_an_adapter_in_the_batch_logits_are_left_alone() -> None:
    import torch

    y = torch.randn(3, 40)
    before = y.clone()
    plugin().add_lora_logits(SimpleNamespace(no_lora=True), y, torch.randn(3, INPUTS), None, None, 1.0)
    assert torch.equal(y, before)
