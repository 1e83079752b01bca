"""A whole model's forward pass in the memory of its largest part: each decoder layer is there only while it computes.

The parameters take no memory; hooks map those of a layer (and of what stands beside the layers: embeddings,
last norm, head) from the safetensors files before it is called, and let go of them after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tunesmith.memory.errors import BadInput
from tunesmith.tools.export.audit import reference_weights
from tunesmith.tools.export.stored_layout import Slot, empty_model, no_memory, slots

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class _TensorFile(Protocol):
    """An opened safetensors file; a tensor is mapped, not read."""

    def get_tensor(self, name: str) -> Tensor: ...


class _Stored(NamedTuple):
    """A tensor in a file, and where in the model it goes."""

    file: Path
    name: str
    slot: Slot


class _Place(NamedTuple):
    """A parameter or buffer: the module that owns it, and what is stored of it."""

    owner: nn.Module
    leaf: str
    shape: torch.Size
    stored: Sequence[_Stored]


def streamed_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model in `folder`, computing in `dtype`; its layers are read from there each time that they are called.

    An adapter may be put on it by peft afterwards. Raises BadInput for a checkpoint whose layout is not known.
    """
    model = empty_model(folder)
    places = _places(model, folder)
    units = dict(_units(model))
    of_unit: dict[str, list[_Place]] = {}
    for name, place in places.items():
        unit = next((unit for unit in units if name.startswith(f"{unit}.")), name.rpartition(".")[0])
        of_unit.setdefault(unit, []).append(place)
    for unit, needed in of_unit.items():
        _hook(model.get_submodule(unit), needed, dtype)
    return model


def keep_layers(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Leave out all decoder layers but these, by their numbers."""
    from torch import nn

    decoder = model.get_decoder()
    decoder.layers = nn.ModuleList([decoder.layers[number] for number in layers])


def _units(model: PreTrainedModel) -> Mapping[str, nn.Module]:
    """The decoder layers by name; whatever is in none of them is a unit of its own."""
    layers = {id(layer) for layer in model.get_decoder().layers}
    return {name: module for name, module in model.named_modules() if id(module) in layers}


def _places(model: PreTrainedModel, folder: Path) -> dict[str, _Place]:
    weights = reference_weights(folder)
    stored: dict[str, list[_Stored]] = {}
    for name, slot in slots(model, weights).items():
        stored.setdefault(slot.parameter, []).append(_Stored(weights[name].path, name, slot))
    tied: Mapping[str, str] = model.all_tied_weights_keys
    places = {}
    for name, held in model.state_dict().items():
        found = stored.get(name) or stored.get(tied.get(name, ""))
        if found is None:
            raise BadInput(f"{folder} holds no {name}, which a {type(model).__name__} has")
        module, _, leaf = name.rpartition(".")
        places[name] = _Place(model.get_submodule(module), leaf, held.shape, found)
    return places


def _hook(unit: nn.Module, places: Sequence[_Place], dtype: torch.dtype) -> None:
    """Bring a unit's tensors before it is called, and drop them after."""
    from safetensors import safe_open

    paths = {one.file for place in places for one in place.stored}

    def bring(*_: object) -> None:
        # Mapped anew each time, so that pages of an earlier layer count no longer.
        with ExitStack() as stack:
            files: Mapping[Path, _TensorFile] = {
                path: stack.enter_context(safe_open(path, framework="pt")) for path in paths
            }
            for place in places:
                _put(place, _read(place, dtype, files))

    def drop(*_: object) -> None:
        for place in places:
            _put(place, no_memory(place.shape, dtype))

    drop()
    unit.register_forward_pre_hook(bring)
    unit.register_forward_hook(drop)


def _put(place: _Place, value: Tensor) -> None:
    import torch

    if place.leaf in place.owner._buffers:
        place.owner._buffers[place.leaf] = value.detach()
    else:
        place.owner._parameters[place.leaf] = torch.nn.Parameter(value, requires_grad=False)


def _read(place: _Place, dtype: torch.dtype, files: Mapping[Path, _TensorFile]) -> Tensor:
    """A parameter's value: mapped from its file where it is stored whole, put together where it is not."""
    import torch

    first = place.stored[0]
    if first.slot.expert is None:
        whole = files[first.file].get_tensor(first.name)
        return whole.to(dtype) if whole.is_floating_point() else whole
    joined = torch.empty(place.shape, dtype=dtype)
    for one in place.stored:
        rows = joined[one.slot.expert].chunk(one.slot.parts)[one.slot.part]
        rows.copy_(files[one.file].get_tensor(one.name))
    return joined
