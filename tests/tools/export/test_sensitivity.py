"""Which weights stay at 16 bits where a share may: those measured to matter, whole parts, within the share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tunesmith.tools.export.calibration import calibration_batches
from tunesmith.tools.export.quantize import QuantizeRequest, contradictions
from tunesmith.tools.export.quantize_job import quantize_model
from tunesmith.tools.export.sensitivity import Part, Sensitivity, parted
from tunesmith.tools.export.sensitivity_job import measured_sensitivity
from tunesmith.tools.models.full_precision import kept_layers
from tunesmith.tools.models.tensor_file import read_headers, weight_files

pytestmark = pytest.mark.lab


def test_layers_that_are_served_as_one_are_one_part() -> None:
    names = [f"layers.0.{end}" for end in "qkvo"]
    assert parted(f"{name}_proj" for name in names) == [
        ("layers.0.q_proj", "layers.0.k_proj", "layers.0.v_proj"),
        ("layers.0.o_proj",),
    ]


def test_the_most_error_for_a_weight_comes_first_and_no_part_exceeds_the_share() -> None:
    parts = [
        Part(names=("layers.0.a", "layers.0.b"), weights=600, error=0.6),
        Part(names=("layers.0.c",), weights=100, error=0.2),
        Part(names=("model.layers.0.d",), weights=300, error=0.01),
    ]
    found = Sensitivity(parts=tuple(parts))
    chosen = {share: "".join(name[-1] for name in found.exceptions(share)) for share in (0.0, 0.1, 0.5, 0.7, 1.0)}
    assert chosen == {0.0: "", 0.1: "c", 0.5: "cd", 0.7: "abc", 1.0: "abcd"}, "what fits after a large one is taken"
    assert found.exceptions(0.5) == ("layers.0.c", "layers.0.d")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in whose second layer one row of down_proj's inputs is so large that 4 bits lose all others."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_tiny_model(tmp_path_factory.mktemp("spoilt") / "model")
    [file] = weight_files(folder)
    tensors = load_file(file)
    with torch.no_grad():
        tensors["model.layers.1.mlp.down_proj.weight"].mul_(20)[:, ::32] *= 40
    save_file(tensors, file, {"format": "pt"})
    return folder


def test_the_weights_that_rounding_hurts_are_found_whatever_they_are_called(
    spoilt: Path, rows_file: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    config = json.loads((spoilt / "config.json").read_text())
    [batch] = calibration_batches(AutoTokenizer.from_pretrained(spoilt), rows_file, 4, 64, 1)
    before = weight_files(spoilt)[0].read_bytes()
    found = measured_sensitivity(spoilt, batch, 32, kept_layers(config), tmp_path / "measured.json", lambda *_: None)
    assert [part.names for part in found.parts[:2]] == [
        tuple(f"model.layers.0.self_attn.{name}_proj" for name in "qkv"),
        ("model.layers.0.self_attn.o_proj",),
    ]
    assert len(found.parts) == 8 and weight_files(spoilt)[0].read_bytes() == before
    worst = max(found.parts, key=lambda part: part.error)
    assert worst.names == ("model.layers.1.mlp.down_proj",)
    again = measured_sensitivity(tmp_path / "no model", batch, 32, (), tmp_path / "measured.json", lambda *_: None)
    assert again == found, "what was measured is not measured again"


def test_what_was_chosen_stays_at_16_bits_and_nothing_else_does(spoilt: Path, rows_file: Path, tmp_path: Path) -> None:
    out, chosen = tmp_path / "quantized", list[str]()
    quantize_model(
        spoilt, rows_file, out, scheme="W4A16", group_size=32, samples=4, max_seq_len_tokens=64, seed=1,
        progress=lambda *_: None, rounding="nearest", keep_share=0.2, measured=tmp_path / "measured.json",
    )  # fmt: skip
    chosen += Sensitivity.model_validate_json((tmp_path / "measured.json").read_bytes()).exceptions(0.2)
    assert "layers.1.mlp.down_proj" in chosen
    floats = {
        name.removeprefix("model.").removesuffix(".weight")
        for name, spec in read_headers(weight_files(out)).items()
        if name.endswith("proj.weight") and spec.dtype == "BF16"
    }
    assert floats == set(chosen)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"scheme": "W8A8"}, "llama", "keep=measured is for W4A16"),
        ({"scheme": "NVFP4A16", "rounding": "nearest"}, "llama", "keep=measured is for W4A16"),
        ({"scheme": "W4A16"}, "qwen3_moe", "without experts"),
        ({"scheme": "W4A16", "rounding": "awq"}, "llama", "AWQ scales layers"),
        ({"scheme": "W4A16", "rounding": "autoround"}, "llama", ""),
    ],
)
def test_where_it_cannot_be_measured_the_plan_says_so(
    changes: dict[str, str], kind: str, says: str, tmp_path: Path
) -> None:
    config = json.loads((write_tiny_model(tmp_path / "model", kind) / "config.json").read_text())
    found = "; ".join(contradictions(QuantizeRequest.model_validate({"keep": ["measured"], **changes}), config))
    assert (says in found) if says else "measured" not in found, found
