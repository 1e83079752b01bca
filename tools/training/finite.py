"""A loss, a gradient or a weight that is no finite number ends a training run, with the likely cause and what to try.

transformers leaves such losses out of its mean (`logging_nan_inf_filter`), so a run that has lost its weights looks
healthy in its logs. Here the numbers themselves are asked: of each part of a step before its backward pass, of each
step's gradient before the optimiser uses it, of the weights before a checkpoint or an adapter is written or read.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.models.tensor_file import ADAPTER_NAME, read_places
from tunesmith.tools.models.tensor_values import not_finite
from tunesmith.tools.training.lora_settings import LoraSettings

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.tools.training.library import Model

GRADIENT, LOSS = "gradient's norm", "loss"
_LOWER = 4
"""What the learning rate is divided by in a proposal: a rate that overflows is far too high, not a little."""


def need_finite(what: str, value: float, step: int, model: Model, settings: LoraSettings) -> None:
    """Raise StepFailed where `value` is no finite number: of the loss or the gradient of `step`, counted from 1.

    The cause is looked for in the weights, which only an overflow or a damaged file makes anything but finite.
    """
    if math.isfinite(value):
        return
    parameters = list(model.named_parameters())
    if damaged := _odd((name, one) for name, one in parameters if not one.requires_grad):
        name = damaged[0].removeprefix("base_model.model.").replace(".base_layer.", ".")
        why = (
            f"{len(damaged)} tensors of the base hold values that are no finite numbers (the first: {name}): the base "
            "is damaged; fetch or make it again"
        )
    else:
        why = cause(what, step, settings, overflowed=bool(_odd(parameters)))
    raise StepFailed(f"step {step}: the {what} is {value}: {why}")


def cause(what: str, step: int, settings: LoraSettings, *, overflowed: bool) -> str:
    """Why a sound base came to no finite `what` in `step`, and what to try; `overflowed`: the adapter's weights did."""
    lower = f"learning_rate={settings.learning_rate / _LOWER:.2g}"
    if settings.load_in_4bit:
        precise = "load_in_4bit=false"
    else:
        precise = "" if settings.precision == "fp32" else "precision=fp32"
    if overflowed:
        return f"the steps before made the adapter's weights overflow at learning_rate={settings.learning_rate:g}; " + (
            f"try {lower}"
        )
    if what == GRADIENT:
        return "the loss is finite and its gradient overflows; try " + " or ".join(filter(None, (precise, lower)))
    if step <= 1:
        return "nothing was learned yet, so the base itself computes no number on these rows; try " + (
            precise or "another base, or look at the rows for text that is none"
        )
    return (
        f"the weights are finite, and so far from the base's after {step - 1} steps at "
        f"learning_rate={settings.learning_rate:g} that activations overflow; try "
        + " or ".join(filter(None, (lower, precise)))
    )


def need_finite_weights(step: int, model: Model, settings: LoraSettings) -> None:
    """Raise StepFailed where a weight that is trained is no finite number after `step`: nothing of it may be kept."""
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    if _odd(trained):
        raise StepFailed(f"step {step}: {cause(LOSS, step, settings, overflowed=True)}")


def saved_is_finite(folder: Path) -> bool:
    """Whether every weight of a saved adapter, a checkpoint's too, is a finite number."""
    places = read_places(folder / ADAPTER_NAME).values()
    return not any(not_finite(place) for place in places)


def need_result(adapter: Path, measured: Path, figures: Mapping[str, object]) -> None:
    """Raise StepFailed, both being removed, where a saved adapter or what was measured of it holds no finite number: an
    attempt of an earlier version may have left it so."""
    odd = [name for name, value in figures.items() if isinstance(value, float) and not math.isfinite(value)]
    if not odd and saved_is_finite(adapter):
        return
    shutil.rmtree(adapter)
    measured.unlink()
    what = f"its {odd[0].replace('_', ' ')} is {figures[odd[0]]}" if odd else "its weights are no finite numbers"
    raise StepFailed(f"this training came to no result: {what}; train again with a lower learning_rate")


def _odd(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of those that hold an infinity or a NaN; packed ones, which have none, are passed over."""
    return [name for name, one in tensors if one.is_floating_point() and not one.isfinite().all()]
