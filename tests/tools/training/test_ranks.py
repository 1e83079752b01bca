"""Training on several cards: here processes on the CPU that exchange gradients by gloo, as cards do by NCCL."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.training.apart_job import train_apart
from tunesmith.tools.training.train_job import LoraSettings, train_lora
from tunesmith.tools.training.trained import ToTrain, Trained

pytestmark = pytest.mark.lab

SETTINGS = LoraSettings(
    lora_rank=4, lora_alpha=8, learning_rate=5e-3, epochs=3, batch_size=8, micro_batch=2, save_steps=1, precision="fp32"
)
"""Of 25 rows the last of an epoch's four steps has one alone: a rank has none then."""


class Asked:
    """What a training is asked, and what it called back with."""

    def __init__(self, base: Path, rows: Path, out: Path) -> None:
        self.base, self.rows, self.out = base, rows, out
        self.points: dict[tuple[str, float], float] = {}
        self.pid, self.log = 0, list[str]()
        out.mkdir(exist_ok=True)

    def train(self, settings: LoraSettings, at_step: Callable[[float], object] = lambda step: None) -> Trained:
        options: dict[str, Any] = {
            "valid_path": self.rows.parent / "valid.jsonl",
            "checkpoints_dir": self.out / "checkpoints",
            "progress": lambda done, total, note: at_step(done) if note.startswith("step ") else None,
            "metric": lambda name, value, x: self.points.update({(name, x): value}),
            "log": self.log.append,
        }
        asked = ToTrain(self.base, self.rows, self.out / "adapter", settings, **options)
        if settings.cards == 1:
            return train_lora(asked)
        return train_apart(asked, watch=lambda pid: setattr(self, "pid", pid))

    def ranks(self) -> list[psutil.Process]:
        """The processes that train, rank 0 first."""
        return sorted(psutil.Process(self.pid).children(), key=lambda process: int(process.environ()["RANK"]))


@pytest.fixture(scope="module")
def rows(rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row more than three whole steps, a few of them rehearsal."""
    lines = [json.loads(line) for line in rows_file.read_text().splitlines()]
    for row in lines[::5]:
        row["origin"] = "rehearsal"
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*lines, lines[1]]))
    (path.parent / "valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines[:5]))
    return path


def adapter(asked: Asked) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors: dict[str, Any] = load_file(asked.out / "adapter" / "adapter_model.safetensors")
    return tensors


def test_two_ranks_compute_the_steps_of_one_process_and_once_killed_they_go_on(
    tiny_llama: Path, rows: Path, tmp_path: Path
) -> None:
    alone = Asked(tiny_llama, rows, tmp_path / "alone")
    expected = alone.train(SETTINGS)
    asked, settings = Asked(tiny_llama, rows, tmp_path / "ranks"), replace(SETTINGS, cards=2)
    ranks: list[psutil.Process] = []

    def kill(step: float) -> None:
        if not ranks and step >= 2:  # the checkpoint of the step before is whole then
            ranks.extend(asked.ranks())
            ranks[0].kill()

    with pytest.raises(StepFailed, match=r"^rank 0 of the training was killed by signal 9 .*run --resume"):
        asked.train(settings, at_step=kill)
    assert len(ranks) == 2 and not any(process.is_running() for process in ranks), "nothing is left running"
    trained = asked.train(settings)
    assert any(line.startswith("going on from checkpoint-") for line in asked.log)
    assert (trained.steps, trained.best_step) == (expected.steps, expected.best_step)
    assert trained.validation_loss_before == pytest.approx(expected.validation_loss_before, abs=1e-4)
    assert trained.validation_kl == pytest.approx(expected.validation_kl, abs=1e-4)
    assert asked.points.keys() == alone.points.keys()
    for point, value in asked.points.items():
        assert value == pytest.approx(alone.points[point], abs=1e-4), point
    tensors = adapter(alone)
    assert all((tensors[name] - tensor).abs().max() < 1e-4 for name, tensor in adapter(asked).items())
