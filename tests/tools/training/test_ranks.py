"""Training on several cards: here processes on the CPU that exchange gradients by gloo, as cards do by NCCL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tunesmith.tools.training.apart_job import train_apart
from tunesmith.tools.training.train_job import LoraSettings, train_lora
from tunesmith.tools.training.trained import Trained

pytestmark = pytest.mark.lab

SETTINGS = LoraSettings(
    lora_rank=4, lora_alpha=8, learning_rate=5e-3, epochs=1, batch_size=5, save_steps=2, precision="fp32"
)
"""24 rows: the last of five steps has four of them, which three ranks cannot share evenly."""


class Asked:
    """What a training is asked, and what it called back with."""

    def __init__(self, base: Path, rows: Path, out: Path) -> None:
        self.base, self.rows, self.out = base, rows, out
        self.points: dict[tuple[str, float], float] = {}
        self.pid, self.log = 0, list[str]()
        out.mkdir()

    def train(self, settings: LoraSettings, at_step: Any = lambda step: None) -> Trained:
        options: dict[str, Any] = {
            "valid_path": self.rows,
            "checkpoints_dir": self.out / "checkpoints",
            "progress": lambda done, total, note: at_step(done) if note.startswith("step ") else None,
            "metric": lambda name, value, x: self.points.update({(name, x): value}),
            "log": self.log.append,
        }
        if settings.cards == 1:
            return train_lora(self.base, self.rows, self.out / "adapter", settings, **options)
        options["watch"] = lambda pid: setattr(self, "pid", pid)
        return train_apart(self.base, self.rows, self.out / "adapter", settings, **options)

    def ranks(self) -> list[psutil.Process]:
        """The processes that train, rank 0 first."""
        return sorted(psutil.Process(self.pid).children(), key=lambda process: int(process.environ()["RANK"]))


def test_ranks_compute_the_steps_of_one_process(tiny_llama: Path, rows_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    results, adapters, curves = [], [], []
    for cards in (1, 2):
        asked = Asked(tiny_llama, rows_file, tmp_path / str(cards))
        results.append(asked.train(replace(SETTINGS, cards=cards)))
        adapters.append(load_file(asked.out / "adapter" / "adapter_model.safetensors"))
        curves.append(asked.points)
    assert curves[0].keys() == curves[1].keys()
    for point, value in curves[0].items():
        assert curves[1][point] == pytest.approx(value, abs=1e-4), point
    assert results[0].validation_loss == pytest.approx(results[1].validation_loss, abs=1e-4)
    for name, tensor in adapters[0].items():
        assert (adapters[1][name] - tensor).abs().max() < 1e-4, name
