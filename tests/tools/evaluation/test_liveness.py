"""An adapter is proven on its server before it is compared: what each fault looks like, and what then takes over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.memory.errors import BadInput
from tunesmith.tools.evaluation.liveness import Liveness, apart
from tunesmith.tools.models.probe_adapters import adapted_kinds, write_probe
from tunesmith.tools.models.tensor_file import TensorFileWriter, TensorSpec, read_places
from tunesmith.tools.models.tensor_values import floats

RIGHT: dict[str, Any] = {
    "tokens": 100, "base_afterwards": 0.0, "kinds": {"self_attn.q_proj": 2.0, "mlp.down_proj": 1.0},
}  # fmt: skip


@pytest.mark.parametrize(
    "measured, says",
    [
        ({"base_afterwards": 0.3}, "answers otherwise after adapters have"),
        ({"base_afterwards": float("inf")}, "answers otherwise after adapters have"),
        ({"kinds": {"self_attn.q_proj": 2.0, "mlp.experts": 0.0}}, "adapters of mlp.experts are dropped"),
        ({"kinds": {"mlp.down_proj": float("nan")}}, "adapters of mlp.down_proj are dropped"),
    ],
)
def test_every_known_fault_is_named(measured: dict[str, Any], says: str) -> None:
    assert says in Liveness(**{**RIGHT, **measured}).fault


def test_where_each_kind_counts_and_the_base_stays_there_is_no_fault() -> None:
    assert not Liveness(**RIGHT).fault and "1.00 at least over 2 kinds of module" in Liveness(**RIGHT).summary


def test_scores_that_are_no_numbers_or_of_other_texts_are_infinitely_apart() -> None:
    assert apart([-1.0, -2.0], [-1.5, -2.0]) == 0.25
    assert apart([-1.0], [float("nan")]) == apart([-1.0], [-1.0, -2.0]) == apart([], []) == float("inf")


def write_adapter(folder: Path, *names: str, kind: str = "F32") -> Path:
    """As peft saves one: two matrices for each module."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    specs = {
        f"base_model.model.model.layers.{name}.lora_{end}.weight": TensorSpec(kind, (4, 4))
        for name in names
        for end in "AB"
    }
    with TensorFileWriter(folder / "adapter_model.safetensors", specs.items()) as writer:
        for name, spec in specs.items():
            writer.write(name, np.ones(spec.bytes // 2, "<u2").tobytes())
    return folder


@pytest.mark.parametrize(("kind", "at"), [("F32", "self_attn.q_proj"), ("BF16", "self_attn.q_proj"), ("BF16", "")])
def test_a_probe_is_large_in_one_kind_of_module_or_none_and_zero_in_all_others(
    kind: str, at: str, tmp_path: Path
) -> None:
    names = ["0.self_attn.q_proj", "11.self_attn.q_proj", "0.mlp.experts.3.up_proj", "0.mlp.experts.base_layer"]
    adapter = write_adapter(tmp_path / "adapter", *names, kind=kind)
    assert adapted_kinds(adapter) == ("mlp.experts", "mlp.experts.up_proj", "self_attn.q_proj")
    large = read_places(write_probe(adapter, tmp_path / "large", at) / "adapter_model.safetensors")
    was = read_places(adapter / "adapter_model.safetensors")
    for name in was:
        if "lora_A" in name:
            assert np.array_equal(floats(large[name]), floats(was[name]))
            continue
        is_large = bool(at) and "q_proj" in name
        assert (0.1 < floats(large[name]).std() < 0.35) == is_large == bool(np.any(floats(large[name])))
    assert (tmp_path / "large" / "adapter_config.json").is_file()


def test_an_adapter_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="train again"):
        adapted_kinds(tmp_path)
