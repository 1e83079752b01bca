"""The measurement of `sensitivity`: a layer in memory at a time, a few calibration rows through it for each part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.memory.files import atomic_write
from tunesmith.tools.export.calibration import Batch
from tunesmith.tools.export.layer_stream import ModelPart, let_go, parts_of
from tunesmith.tools.export.sensitivity import Part, Sensitivity, parted
from tunesmith.tools.export.streamed_weights import StreamedWeights
from tunesmith.tools.machine.device import computes_on_cpu
from tunesmith.tools.models.full_precision import matches_layer

if TYPE_CHECKING:
    from torch import Tensor, nn

Progress = Callable[[float, float, str], None]
_HIGHEST_CODE, _LOWEST_CODE, _STEPS_A_SIDE = 7, -8, 7.5


def measured_sensitivity(
    model_dir: Path, batch: Batch, group_size: int, kept: Sequence[str], file: Path, progress: Progress
) -> Sensitivity:
    """Measure every part of a dense model on one batch; taken from `file` where that is there, and written to it.

    `kept` are patterns of the layers that stay at 16 bits anyway. `group_size` 0 is a scale per output channel.
    """
    import torch

    if file.is_file():
        return Sensitivity.model_validate_json(file.read_bytes())
    weights = StreamedWeights(model_dir, torch.device("cpu" if computes_on_cpu() else "cuda"), separate_experts=False)
    pieces, found = parts_of(weights, batch), list[Part]()
    values: dict[str, Any] = {
        name: value.to(weights.device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
    }
    layers = [name for piece in pieces for name in piece.layers]
    counted = batch["attention_mask"].to(weights.device).bool()
    with torch.no_grad():
        for piece in pieces:
            for module in piece.modules:
                weights.load(module)
            forward = partial(_forward, piece, weights.model, values)
            for name in piece.layers:
                at = layers.index(name)
                progress(at, len(layers), f"measuring what rounding does to layer {at + 1} of {len(layers)}")
                found += _layer(weights.model.get_submodule(name), name, forward, group_size, kept, counted)
            made = forward()
            values |= made if isinstance(made, dict) else {}
            for module in piece.modules:
                weights.drop(module)
            let_go(weights.device.type)
    measured = Sensitivity(parts=tuple(found))
    atomic_write(file, measured.model_dump_json())
    return measured


def _forward(piece: ModelPart, model: nn.Module, values: Mapping[str, Any]) -> object:
    return piece.graph.forward(model, **{name: values[name] for name in piece.graph.input_names})


def _layer(
    layer: nn.Module,
    name: str,
    forward: Callable[[], object],
    group_size: int,
    kept: Sequence[str],
    counted: Tensor,
) -> Iterator[Part]:
    """The parts of one decoder layer."""
    from torch import nn

    linear = {f"{name}.{end}": module for end, module in layer.named_modules() if isinstance(module, nn.Linear)}
    free = [path for path in linear if not any(matches_layer(path, pattern) for pattern in kept)]
    with _output_of(layer) as output:
        forward()
        [reference] = output
        for part in parted(free):
            before = {path: linear[path].weight.data for path in part}
            for path, weight in before.items():
                linear[path].weight.data = rounded(weight, group_size)
            output.clear()
            forward()
            for path, weight in before.items():
                linear[path].weight.data = weight
            yield Part(
                names=part,
                weights=sum(weight.numel() for weight in before.values()),
                error=_off(output[0], reference, counted),
            )


@contextmanager
def _output_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """What the module returned in its calls."""
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _m, _i, made: seen.append(made[0] if isinstance(made, tuple) else made))
    try:
        yield seen
    finally:
        hook.remove()


def _off(changed: Tensor, reference: Tensor, counted: Tensor) -> float:
    """Mean over tokens of the squared change as a share; of a row's first token, which all attend to, nothing."""
    reference = reference.float()
    off = (changed.float() - reference).square().sum(-1) / reference.square().sum(-1).clamp_min(1e-12)
    tokens = counted.clone()
    tokens[:, 0] = False
    return float(off[tokens].mean()) if bool(tokens.any()) else 0.0


def rounded(weight: Tensor, group_size: int) -> Tensor:
    """The nearest of 16 steps for every weight: a step is the largest of its group ÷ 7.5."""
    groups = weight.float().reshape(weight.shape[0], -1, group_size or weight.shape[1])
    step = (groups.abs().amax(-1, keepdim=True) / _STEPS_A_SIDE).clamp_min(1e-12)
    codes = (groups / step).round_().clamp_(_LOWEST_CODE, _HIGHEST_CODE)
    return (codes * step).reshape(weight.shape).to(weight.dtype)
