"""What a training run measured, and what it calls back with meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Progress = Callable[[float, float, str], None]
"""Done, of how much, and what is being done."""
Metric = Callable[[str, float, float], None]
"""Name of a curve, value, step."""


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
    bytes_per_parameter: dict[str, float] = field(default_factory=dict)
