"""A run that comes to no number ends at once, with its step, the cause and what to try; nothing of it is kept."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tests.fixtures.tables import table
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import MANIFEST, read_manifest, seal
from tunesmith.tools.models.tensor_file import TensorFileWriter, TensorSpec
from tunesmith.tools.training.finite import GRADIENT, LOSS, cause, need_result, saved_is_finite
from tunesmith.tools.training.lora_settings import LoraSettings

SETTINGS = LoraSettings(lora_rank=4, lora_alpha=8, learning_rate=5e-3, max_steps=6, batch_size=4, save_steps=2)
NAN, INFINITE = float("nan"), float("inf")


@table(
    ("what", "step", "overflowed", "changed", "told"),
    [
        (LOSS, 7, True, {}, "overflow at learning_rate=0.005; try learning_rate=0.0013"),
        (LOSS, 7, False, {}, "after 6 steps at learning_rate=0.005 .* try learning_rate=0.0013 or precision=fp32"),
        (LOSS, 7, False, {"precision": "fp32"}, "try learning_rate=0.0013$"),
        (GRADIENT, 1, False, {}, "gradient overflows; try precision=fp32 or learning_rate=0.0013"),
        (LOSS, 1, False, {"load_in_4bit": True}, "nothing was learned yet.*try load_in_4bit=false"),
        (LOSS, 1, False, {"precision": "fp32"}, "nothing was learned yet.*try another base"),
    ],
)
def test_the_cause_follows_from_what_overflowed_and_when(
    what: str, step: int, overflowed: bool, changed: dict[str, Any], told: str
) -> None:
    import re

    assert re.search(told, cause(what, step, replace(SETTINGS, **changed), overflowed=overflowed))


@table(
    ("weight", "figures", "told"),
    [
        (NAN, {"train_loss": 1.0}, "its weights are no finite numbers"),
        (-INFINITE, {"train_loss": 1.0}, "its weights are no finite numbers"),
        (1.0, {"train_loss": 1.0, "validation_loss": NAN}, "its validation loss is nan"),
        (1.0, {"train_loss": INFINITE, "validation_kl": None}, "its train loss is inf"),
    ],
)
def test_what_an_earlier_version_left_without_a_number_is_removed_and_never_published(
    tmp_path: Path, weight: float, figures: dict[str, object], told: str
) -> None:
    folder, measured = adapter_of(tmp_path / "adapter", weight), tmp_path / "trained.json"
    measured.touch()
    with pytest.raises(StepFailed, match=told):
        need_result(folder, measured, figures)
    assert not folder.exists() and not measured.exists()

    sound = adapter_of(tmp_path / "sound", 3e38)
    need_result(sound, measured, {"train_loss": 1.0, "steps": 3, "validation_kl": None})
    assert saved_is_finite(sound)


def adapter_of(folder: Path, weight: float) -> Path:
    """A folder with the one weight that its adapter has."""
    folder.mkdir()
    with TensorFileWriter(folder / "adapter_model.safetensors", [("q.lora_B.weight", TensorSpec("F32", (1, 2)))]) as to:
        to.write("q.lora_B.weight", struct.pack("<2f", 0.5, weight))
    return folder


def train(base: Path, rows: Path, out: Path, settings: LoraSettings, **more: Any) -> Any:
    from tunesmith.tools.training.train_job import ToTrain, train_lora

    return train_lora(ToTrain(base, rows, out / "adapter", settings, checkpoints_dir=out / "checkpoints", **more))


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("checkpoint-*"))


@pytest.mark.lab
@pytest.mark.parametrize(
    ("changed", "told", "kept"),
    [
        ({"learning_rate": 1e36}, r"step [2-6]: the (loss|gradient's norm) is .* learning_rate=1e\+36", 2),
        (
            {"learning_rate": 1e40},
            r"step [2-6]: .*made the adapter's weights overflow.* try learning_rate=2\.5e\+39",
            0,
        ),
        ({"learning_rate": 1e40, "max_steps": 1}, r"step 1: .*made the adapter's weights overflow", 0),
    ],
    ids=["activations overflow", "weights overflow", "weights overflow in the last step"],
)
def test_a_learning_rate_that_loses_the_model_ends_training_and_leaves_nothing(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, changed: dict[str, Any], told: str, kept: int
) -> None:
    points: list[tuple[str, float, float]] = []
    with pytest.raises(StepFailed, match=told):
        train(tiny_llama, rows_file, tmp_path, replace(SETTINGS, **changed), metric=lambda *point: points.append(point))
    assert not (tmp_path / "adapter").exists() and len(checkpoints(tmp_path)) <= kept
    assert all(saved_is_finite(tmp_path / "checkpoints" / name) for name in checkpoints(tmp_path))
    assert all(value == value and abs(value) < INFINITE for _name, value, _step in points)


@pytest.mark.lab
def test_a_gradient_that_overflows_ends_training_before_it_is_used(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from accelerate import Accelerator

    steps: list[object] = []
    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(INFINITE))
    with pytest.raises(StepFailed, match=r"step 1: the gradient's norm is inf: the loss is finite"):
        train(tiny_llama, rows_file, tmp_path, SETTINGS, progress=lambda *told: steps.append(told[2]))
    assert not any("step 1 of" in str(note) for note in steps) and not checkpoints(tmp_path)


@pytest.mark.lab
def test_a_base_that_computes_no_number_is_named_before_anything_is_learned(rows_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = write_tiny_model(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.self_attn.v_proj.weight"][1, 1] = INFINITE
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    told = r"step 0: the validation loss is nan: 1 tensors of the base .*v_proj\.weight.*fetch or make it again"
    with pytest.raises(StepFailed, match=told):
        train(base, rows_file, tmp_path, SETTINGS, valid_path=rows_file)
    with pytest.raises(StepFailed, match=r"step 1: the loss is nan: 1 tensors of the base"):
        train(base, rows_file, tmp_path, SETTINGS)


@pytest.mark.lab
def test_a_checkpoint_of_weights_that_are_no_numbers_is_passed_over_for_the_one_before(
    tiny_llama: Path, rows_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    train(tiny_llama, rows_file, tmp_path, SETTINGS)
    assert checkpoints(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-6")
    spoilt = tmp_path / "checkpoints" / "checkpoint-4"
    notes = {name: read_manifest(spoilt)[name] for name in ("step", "fingerprint")}  # type: ignore[index,literal-required]
    shutil.copytree(spoilt, tmp_path / "checkpoints" / "checkpoint-2")
    tensors = load_file(spoilt / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = NAN
    save_file(tensors, spoilt / "adapter_model.safetensors", metadata={"format": "pt"})
    (spoilt / MANIFEST).unlink()
    seal(spoilt, **notes)
    said: list[str] = []
    assert train(tiny_llama, rows_file, tmp_path, SETTINGS, log=said.append).steps == 6
    assert "checkpoint-4 is left out: its weights are no finite numbers" in said
    assert "going on from checkpoint-2" in said and saved_is_finite(tmp_path / "adapter")


@pytest.mark.lab
def test_the_pace_is_that_of_the_steps_that_were_taken_now(
    tiny_llama: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.tools.training import train_job

    train(tiny_llama, rows_file, tmp_path, SETTINGS)
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-6")
    clock = iter(range(0, 10_000, 10))  # ten seconds go by between two looks
    monkeypatch.setattr(train_job.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    train(tiny_llama, rows_file, tmp_path, SETTINGS, progress=lambda *told: said.append(str(told[2])))
    assert "step 5 of 6, 1 to go, 10.00 s each" in said and "step 6 of 6, 0 to go, 10.00 s each" in said
