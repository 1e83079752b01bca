"""What a training run is asked, what it calls back with meanwhile, and what it measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.tools.training.lora_settings import LoraSettings

Progress = Callable[[float, float, str], None]
"""Done, of how much, and what is being done."""
Metric = Callable[[str, float, float], None]
"""Name of a curve, value, step."""


def _silent(*values: object) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class ToTrain:
    """What a training run is asked, and whom it calls back."""

    base_dir: Path
    rows_path: Path
    out_dir: Path
    """Where the adapter goes."""
    settings: LoraSettings
    checkpoints_dir: Path
    valid_path: Path | None = None
    progress: Progress = _silent
    metric: Metric = _silent
    log: Callable[[str], None] = _silent


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run measured."""

    steps: int
    epochs: float
    train_loss: float
    validation_loss_before: float | None
    validation_loss: float | None
    trainable_parameters: int
    trained_tokens: int
    seconds: float
    validation_kl: float | None = None
    best_step: int = 0
    choice: str = ""
    peak_vram_bytes: int = 0
    """Most that its process held of a card, with what CUDA itself takes; 0 on a processor."""
    bytes_per_parameter: dict[str, float] = field(default_factory=dict)
