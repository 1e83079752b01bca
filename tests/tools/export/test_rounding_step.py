"""Will the grid eat the update: the figure is that of whole matrices, and a plan warns with it before a yes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_adapter, write_tiny_model
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, Facts, Inputs, Plan
from tunesmith.tools.export import rounding_step
from tunesmith.tools.export.merge_job import merge_adapter
from tunesmith.tools.export.quantize import QuantizeRequest, inspect_inputs, plan
from tunesmith.tools.export.rounding_step import UpdateOnGrid, rounding_steps, update_on_grid
from tunesmith.tools.models.schemes import SCHEMES, Scheme

pytestmark = pytest.mark.lab


def merged_with(alpha: float, at: Path) -> tuple[Path, Path]:
    base = write_tiny_model(at / "base")
    adapter = write_adapter(base, at / "adapter", lora_alpha=alpha, target_modules=["q_proj", "down_proj"])
    merge_adapter(base, adapter, at / "merged", lambda *_: None)
    return at / "merged", adapter


def measured(merged: Path, adapter: Path, bits: int, group: int) -> UpdateOnGrid:
    found = update_on_grid(merged, adapter, Scheme("W", bits), group=group, kept=())
    assert found is not None
    return found


def test_the_figure_of_some_rows_is_that_of_whole_matrices(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    merged, adapter = merged_with(8, tmp_path)
    weights, factors = (load_file(next(folder.glob("*.safetensors"))) for folder in (merged, adapter))
    expected = []
    for layer in (0, 1):
        updates, steps = [], []
        for name in (f"model.layers.{layer}.self_attn.q_proj", f"model.layers.{layer}.mlp.down_proj"):
            a, b = (factors[f"base_model.model.{name}.lora_{end}.weight"].float() for end in "AB")
            updates.append((8 / 4 * b @ a).square().mean())
            scales = weights[f"{name}.weight"].float().unflatten(1, (-1, 32)).abs().amax(-1) / 7.5
            steps.append(scales.square().mean())
        expected.append(float((torch.stack(updates).sum() / torch.stack(steps).sum()).sqrt()))
    found = measured(merged, adapter, bits=4, group=32)
    assert list(found.layers) == [0, 1]
    assert [found.layers[n] for n in (0, 1)] == pytest.approx(expected, rel=0.25)  # 16 of 64 rows
    assert found.smallest == min(found.layers.values()) == found.layers[found.smallest_layer]


def test_more_bits_and_a_larger_update_are_a_larger_figure(tmp_path: Path) -> None:
    small, large = merged_with(0.01, tmp_path / "small"), merged_with(0.02, tmp_path / "large")
    four = measured(*small, bits=4, group=32)
    # Both steps are of the same maximum.
    assert measured(*small, bits=8, group=32).median == pytest.approx(four.median * 255 / 15, rel=0.02)
    assert measured(*large, bits=4, group=32).median == pytest.approx(2 * four.median, rel=0.03)


def test_layers_that_stay_do_not_count_and_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    merged, adapter = merged_with(8, tmp_path)
    every = update_on_grid(merged, adapter, Scheme("W", 4), group=0, kept=[r"re:.*_proj$"])
    assert every is None
    (adapter / "adapter_model.safetensors").write_bytes(b"x")
    assert update_on_grid(merged, adapter, Scheme("W", 4), group=0, kept=()) is None


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_the_steps_are_those_between_the_librarys_own_values(name: str) -> None:
    """Rounded by compressed-tensors no weight moves further than half its step, and some move nearly as far."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    scheme, group = SCHEMES[name], 64 if name == "W4A16" else 0
    args = preset_name_to_scheme(scheme.preset or name, ["Linear"]).weights
    if not scheme.preset:
        shared: dict[str, Any] = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        args = QuantizationArgs(num_bits=scheme.bits, type="int", symmetric=True, **shared)
    assert args is not None
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(5)) * torch.logspace(-3, 0, 256)[:, None]
    width = group or 256
    largest = weight.abs().reshape(256, 256 // width, width).amax(2)
    scale, zero = calculate_qparams(-largest, largest, args)
    moved = (fake_quantize(weight, scale, zero, args) - weight).abs().numpy()
    share = moved / rounding_steps(weight.numpy(), scheme, width)
    assert 0.49 < share.max() < 0.501


@pytest.mark.parametrize(("scheme", "warns"), [("W4A16", True), ("W8A16", False)])
def test_a_plan_warns_with_the_figure_where_most_would_be_noise(scheme: str, warns: bool, tmp_path: Path) -> None:
    merged_folder, adapter_folder = merged_with(0.02, tmp_path)
    store = Store(tmp_path / "home")
    run = store.new_run("test")
    config = json.loads((merged_folder / "config.json").read_text())

    def add(stage: str, kind: str, folder: Path, *parents: str, **meta: Any) -> Artifact:
        step = store.propose(run, stage, plan_hash=kind)
        return store.add_artifact(Artifact("", run, step, kind, folder, kind, GIB, parents, meta))

    adapter = add("train", "adapter", adapter_folder)
    merged = add("merge", "merged", merged_folder, adapter.id, config=config, parameters=10**9)
    artifacts = {"merged": merged, "dataset": add("critique", "dataset", tmp_path, train_rows=64, tokens_per_row=80)}
    facts = Facts(tmp_path, Machine("cpu", 2, 64 * GIB, 64 * GIB, 0, 64 * GIB), run, artifacts=artifacts)
    request = QuantizeRequest.model_validate({"scheme": scheme})

    def planned() -> Plan:
        return plan(request, facts, inspect_inputs(request, Inputs(store, run, artifacts)))

    notes = planned().notes
    assert bool(notes) == warns
    if warns:
        context = inspect_inputs(request, Inputs(store, run, artifacts)).update
        assert context is not None and 0 < context.median < rounding_step.SMALL_UPDATE
        assert f"update is {context.median:.2g} of a {scheme} rounding step in the median layer" in notes[0]
        assert f"rounding noise is {12**-0.5 / context.median:.0f} times that" in notes[0]
