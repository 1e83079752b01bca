"""The fused LoRA path against peft's own: the same outputs and gradients over fp32, bf16 and NF4 weights, less kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.tools.training.fused_lora import use_fused_lora
from tunesmith.tools.training.model import load_base

pytestmark = pytest.mark.lab


def adapted(folder: Path, precision: str, four: bool) -> Any:
    """A frozen base with an adapter on every projection, far from zero, in fp32."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    base = load_base(folder, precision=precision, load_in_4bit=four)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.train()


def ids() -> Any:
    import torch

    return torch.randint(3, 250, (2, 40), generator=torch.Generator().manual_seed(1))


def gradients(model: Any) -> Any:
    """Of all adapter weights, one behind the other."""
    import torch

    model.zero_grad()
    model(input_ids=ids(), use_cache=False).logits.float().pow(2).mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("four", [False, True], ids=["whole", "nf4"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_those_of_peft(tiny_llama: Path, precision: str, four: bool) -> None:
    """In fp32 to 1e-5. In bf16 both round, so each is held against peft in fp32 on the very same weights."""
    plain, fused = (adapted(tiny_llama, precision, four) for _ in range(2))
    assert use_fused_lora(fused) == 14
    expected, found = gradients(plain), gradients(fused)
    if precision == "fp32":
        assert (found - expected).norm() <= 1e-5 * expected.norm()
        return
    exact = gradients(adapted(tiny_llama, "fp32", four))
    assert (found - exact).norm() <= 1.25 * (expected - exact).norm() + 1e-3 * exact.norm()


def test_an_nf4_layer_gives_its_gradient_after_it_was_asked_without_one(tiny_llama: Path) -> None:
    """bitsandbytes repacks a layer on some CPUs when it is asked so, and gives no gradient from then on."""
    import torch

    model = adapted(tiny_llama, "fp32", four=True)
    expected = gradients(model)
    with torch.no_grad():
        model.eval()(input_ids=ids(), use_cache=False)
    found = gradients(model.train())
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def kept(run: Callable[[], Any]) -> dict[int, Any]:
    """What autograd keeps for the backward pass, by address."""
    import torch

    found: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        found[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return found


def test_an_nf4_layer_keeps_one_input_in_its_own_precision(tiny_llama: Path) -> None:
    import torch

    model = adapted(tiny_llama, "bf16", four=True)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    x = torch.randn(1, 512, 64, dtype=torch.bfloat16, requires_grad=True)

    def saved() -> int:
        tensors = kept(lambda: layer(x))
        return sum(one.numel() * one.element_size() for at, one in tensors.items() if at not in weights)

    before = saved()
    use_fused_lora(model)
    after = saved()
    input_bytes, rank_bytes = x.numel() * 2, 512 * 4 * 2
    adapter_bytes = 2 * 4 * (64 + 128)
    assert after <= input_bytes + rank_bytes + adapter_bytes
    assert before >= 2 * input_bytes, "peft's fp32 copy"
