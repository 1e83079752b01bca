"""A model whose parts are read from its files when they are needed, and whose changed layers are written as shards.

The model is on the meta device and takes no memory; transformers' own conversions bring a part's tensors into it, and
take the names of what is saved back to those of the checkpoint. Experts of a mixture become linear layers of their own,
so that each is quantized. Not covered: parameters that the model itself owns, outside all of its modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import sync_folder
from tunesmith.tools.export.stored_layout import renamed, weightless_model
from tunesmith.tools.models.tensor_file import TensorFileWriter, TensorPlace, places_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class StreamedWeights:
    """The model of a folder, on the meta device but for the parts that are loaded just now."""

    def __init__(self, folder: Path, device: torch.device, *, separate_experts: bool) -> None:
        """Raises BadInput where a stored tensor has no place in the model."""
        from transformers.conversion_mapping import get_model_conversion_mapping

        self.folder, self.device = folder, device
        self.places = places_of(folder)
        self.model = _empty_model(folder)
        self._conversions = get_model_conversion_mapping(self.model)
        self._parameter_of = {name: parameter for name, (parameter, _) in renamed(self.model, self.places).items()}
        self._names = tuple(self.model.state_dict())
        self._take_stored_precision()
        for buffer in self.model.buffers():
            buffer.data = buffer.to(device)
        self._fused = _separate_experts(self.model) if separate_experts else {}

    def load(self, module: str) -> None:
        """Read a module's tensors. Raises BadInput where the files lack one."""
        import torch

        fused = {name: experts for name, experts in self._fused.items() if f"{name}.".startswith(f"{module}.")}
        linear = {name: self.model.get_submodule(name) for name in fused}
        for name, experts in fused.items():
            self.model.set_submodule(name, experts)
        self._read(module)
        for name, separate in linear.items():
            self.model.set_submodule(name, separate.to_empty(device=self.device))
            with torch.no_grad():
                for index in range(separate.num_experts):
                    separate[index].copy_from_experts_module(fused[name], index)
            fused[name].to("meta")
        self.model.get_submodule(module).requires_grad_(False)
        for owner in self.model.get_submodule(module).modules():
            for name, empty in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
                if empty.is_meta:  # of the quantization, which fills them in
                    value = torch.zeros_like(empty, device=self.device)
                    buffer = name in owner._buffers  # both kinds are in that list
                    setattr(owner, name, value if buffer else torch.nn.Parameter(value, requires_grad=False))

    def _read(self, module: str) -> None:
        from safetensors import safe_open
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        stored = {name for name, parameter in self._parameter_of.items() if parameter.startswith(f"{module}.")}
        with ExitStack() as stack:
            # Read, not mapped: a mapped file's pages count as this process's memory.
            files = {
                path: stack.enter_context(safe_open(path, framework="pt", backend="pread"))
                for path in {self.places[name].path for name in stored}
            }
            info, _ = convert_and_load_state_dict_in_model(
                self.model,
                {name: files[self.places[name].path].get_slice(name) for name in stored},
                LoadStateDictConfig(weight_mapping=self._conversions, device_map={"": self.device}),
            )
        missing = {name for name in info.missing_keys.intersection(self._names) if name.startswith(f"{module}.")}
        if missing or info.conversion_errors:
            raise BadInput(f"{self.folder} holds no {min(missing, default=module)}, which its architecture has")

    def drop(self, module: str) -> None:
        """Let go of a module's tensors."""
        self.model.get_submodule(module).to("meta")

    def tensors(self, module: str) -> dict[str, Tensor]:
        """A loaded module's tensors, by the names that a checkpoint has for them."""
        from transformers.core_model_loading import revert_weight_conversion

        state = self.model.get_submodule(module).state_dict()
        # as files hold them: without gaps
        named = {f"{module}.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        reverted: dict[str, Tensor] = revert_weight_conversion(self.model, named)
        return reverted

    def outside(self, modules: Iterable[str]) -> dict[str, TensorPlace]:
        """The stored tensors that are in none of these modules: embeddings, the last norm, the head."""
        inside = tuple(f"{module}." for module in modules)
        return {name: place for name, place in self.places.items() if not self._parameter_of[name].startswith(inside)}

    def owners_outside(self, modules: Iterable[str]) -> list[str]:
        """The modules with tensors of their own that are in none of these."""
        inside = tuple(f"{module}." for module in modules)
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self._names if not name.startswith(inside)))

    def _take_stored_precision(self) -> None:
        """Give every parameter the precision that it is stored in."""
        import torch

        kinds = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
        for name, parameter in self._parameter_of.items():
            owner, _, leaf = parameter.rpartition(".")
            kind = kinds.get(self.places[name].spec.dtype)
            if kind and parameter in self._names:
                module = self.model.get_submodule(owner)
                empty = getattr(module, leaf).detach().to(kind)
                if leaf in module._parameters:  # a buffer stays one
                    setattr(module, leaf, torch.nn.Parameter(empty, requires_grad=False))


def _empty_model(folder: Path) -> PreTrainedModel:
    """`weightless_model`, which knows its folder by name."""
    model = weightless_model(folder)
    # llm-compressor reads config.json there as it saves, and fails where no folder is named
    model.config._name_or_path = model.name_or_path = str(folder)
    return model


def _separate_experts(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Put linear layers in the place of a mixture's fused experts, and return the fused ones by their names."""
    from accelerate import init_empty_weights
    from llmcompressor.modeling.moe.linear_experts import LinearExperts2D
    from llmcompressor.modeling.moe.linearize import get_non_linearized_moes

    fused = dict(get_non_linearized_moes(model))
    for name, experts in fused.items():
        kind = next(experts.parameters()).dtype
        with init_empty_weights(include_buffers=False):
            separate = LinearExperts2D.get_linear_experts_cls(type(experts))(getattr(experts, "config", model.config))
        model.set_submodule(name, separate.to(kind))
    return fused


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whole, and sync it."""
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.part")
    save_file(dict(tensors), partial, {"format": "pt"})
    with partial.open("rb") as file:  # safetensors leaves its file unsynced
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def copy_shard(path: Path, places: Mapping[str, TensorPlace]) -> None:
    """Copy stored tensors into a file of their own, one at a time, byte for byte."""
    with TensorFileWriter(path, [(name, place.spec) for name, place in places.items()]) as writer:
        for name, place in places.items():
            writer.write(name, place.read())
    sync_folder(path.parent)


def shard_paths(folder: Path, count: int) -> Iterator[Path]:
    """Where the shards of a model go, by the names that everyone knows."""
    return (folder / f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1))
