"""What is said to fit does, by the arithmetic that prices the steps; what does not comes with something that does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.terminal import Tunesmith
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.models.fits import Fits, Room, Task, find_model, fits
from tunesmith.tools.models.memory_math import quantize_memory_bytes, train_memory_bytes
from tunesmith.tools.models.model_names import usual_models

TASKS = {"train", "measure", "merge", "quantize", "serve"}


def on_card(name: str, card_gib: float, ram_gib: float = 64) -> Fits:
    model, _ = find_model(name)
    return fits(model, Room(int(ram_gib * GIB), int(card_gib * GIB), 500 * GIB))


def task(answer: Fits, name: str, precision: str) -> Task:
    [found] = [task for task in answer.tasks if (task.task, task.precision) == (name, precision)]
    return found


@pytest.mark.parametrize("model", usual_models(), ids=lambda model: model.name)
@pytest.mark.parametrize("card", [0, 8, 24, 80])
def test_a_larger_card_or_more_ram_never_loses_a_task(model: Any, card: float) -> None:
    smaller = fits(model, Room(24 * GIB, int(card * GIB), 500 * GIB))
    larger = fits(model, Room(48 * GIB, int(2 * card * GIB), 500 * GIB))
    assert {task.task for task in smaller.tasks} == TASKS
    for before, after in zip(smaller.tasks, larger.tasks, strict=True):
        assert after.fits or not before.fits
        assert before.vram_bytes <= card * GIB or not before.fits
        assert before.seconds > 0 and (before.ram_bytes or before.vram_bytes)


@pytest.mark.parametrize(
    ("name", "card"), [("Qwen2.5-32B", 24), ("Qwen3-8B", 20), ("Qwen3-8B", 10), ("7b", 8), ("Qwen3-4B", 6)]
)
def test_every_setting_that_is_named_for_training_does_fit(name: str, card: float) -> None:
    model, _ = find_model(name)
    refused = [t for t in on_card(name, card).tasks if t.task == "train" and not t.fits]
    assert any(one.try_ for one in refused)
    for one in refused:
        for setting in one.try_:
            fields = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", setting)}
            needed = train_memory_bytes(
                model.config,
                batch_size=fields["micro_batch"],
                seq_len_tokens=fields.get("max_seq_len_tokens", 512),
                lora_rank=16,
                load_in_4bit=one.precision == "nf4",
                checkpointing=True,
            )
            assert needed <= card * GIB


def test_fewer_samples_are_named_only_where_they_help() -> None:
    model, _ = find_model("Qwen3-8B")
    just_under = quantize_memory_bytes(model.config, samples=32, seq_len_tokens=256)
    found = task(fits(model, Room(just_under, 24 * GIB, 500 * GIB)), "quantize", "W4A16")
    assert (found.fits, found.try_) == (False, ("calibration_samples=32",))
    assert not task(fits(model, Room(GIB, 24 * GIB, 500 * GIB)), "quantize", "W4A16").try_


def test_a_mixture_is_priced_with_its_experts_at_16_bits_in_training_and_by_its_active_part_in_time() -> None:
    mixture, dense = on_card("Qwen/Qwen3-30B-A3B", 24), on_card("Qwen/Qwen3-32B", 24)
    assert task(mixture, "train", "nf4").vram_bytes > 50 * GIB, "bitsandbytes leaves fused experts as they are"
    assert mixture.active_parameters < 0.15 * mixture.parameters
    assert task(mixture, "train", "bf16").seconds < 0.5 * task(dense, "train", "bf16").seconds


def test_a_folder_goes_by_its_config_alone(tmp_path: Path) -> None:
    known, _ = find_model("Qwen3-4B")
    (tmp_path / "config.json").write_text(json.dumps(dict(known.config)))
    model, revision = find_model(str(tmp_path))
    assert fits(model, Room(24 * GIB, 0, GIB)).parameters == known.parameters and revision == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [("[]", "no JSON object"), ("{", "not readable JSON"), ('{"model_type": "bert"}', "does not say its sizes")],
)
def test_a_config_that_says_nothing_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=told):
        fits(find_model(str(tmp_path))[0], Room(GIB, 0, GIB))


@pytest.mark.parametrize("name", ["", "wat", "a" * 5000, "\0", "~nobody-of-that-name/x", "../../etc", "x/y/z"])
def test_what_is_no_model_is_said_in_a_line(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        find_model(name)
    assert len(str(refused.value)) < 500


def test_the_command_prints_the_documented_document(tmp_path: Path) -> None:
    cli = Tunesmith(tmp_path / "home")
    document = cli.json("fits", "Qwen/Qwen3-8B", "--card", "24")
    assert set(document) >= {"model", "revision", "parameters", "active_parameters", "tasks"}
    for one in document["tasks"]:
        assert set(one) >= {"task", "precision", "fits", "vram_bytes", "ram_bytes", "disk_bytes", "seconds", "try"}
    assert cli("fits", "no-such-model").returncode == 2
    assert cli("fits", "7b", "--card", "-3").returncode == 2
