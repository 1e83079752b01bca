"""Where each tensor of a checkpoint goes in the model that transformers builds of it, as transformers itself says.

Most names are the parameter's own. Checkpoints of mixtures hold a matrix per expert, the models one parameter of all of
them, with gate and up joined: there a tensor is one expert's rows of a parameter. Nothing is
loaded. Not covered: conversions that do more than stack experts and join rows, such as a transposition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.memory.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.core_model_loading import WeightConverter, WeightRenaming

_EXPERT = re.compile(r"\.(\d+)\.")


class Slot(NamedTuple):
    """The place of a stored tensor in the model."""

    parameter: str
    expert: int | None = None
    """Along the parameter's first axis; None where the tensor is the whole parameter."""
    chunk: int = 0
    """Of the parts that an expert's rows are joined from, in equal sizes."""
    chunks: int = 1


def empty_model(folder: Path) -> PreTrainedModel:
    """`weightless_model` in fp32, whose parameters are zeros that take no memory."""
    import torch

    model = weightless_model(folder, dtype=torch.float32)
    for_an_adapter(model)
    return model


def weightless_model(folder: Path, **options: object) -> PreTrainedModel:
    """A causal model by the config in `folder`: its parameters are on the meta device, its buffers are right."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **options).eval()
    return model


def for_an_adapter(model: PreTrainedModel) -> None:
    """Make every parameter one zero, repeated. On the meta device peft would move adapters there, and lose them."""
    import torch

    for module in model.modules():
        # torch's own dict, as named_parameters leaves out a parameter's second name.
        for name, parameter in module._parameters.items():
            if parameter is not None:
                # one value, however large it says it is
                # by every name that it has, as above
                empty = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)


def slots(model: PreTrainedModel, names: Iterable[str]) -> Mapping[str, Slot]:
    """Stored name → where it goes. Raises BadInput for a name or a conversion that is not known here."""
    _, converters = _conversions(model)
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    state = model.state_dict()
    slot_by_name = {}
    for name, (target, pattern) in renamed(model, names).items():
        if target not in state:
            raise BadInput(f"{name} has no place in a {type(model).__name__}")
        slot_by_name[name] = _slot(name, target, pattern, by_pattern[pattern]) if pattern else Slot(target)
    return slot_by_name


def renamed(model: PreTrainedModel, names: Iterable[str]) -> Mapping[str, tuple[str, str | None]]:
    """Stored name → the parameter that it becomes, or becomes a part of, and the pattern of the conversion, if any."""
    from transformers.core_model_loading import rename_source_key

    (renamings, converters), state, prefix = _conversions(model), model.state_dict(), model.base_model_prefix
    return {name: rename_source_key(name, renamings, converters, prefix, state) for name in names}


def _conversions(model: PreTrainedModel) -> tuple[list[WeightRenaming], list[WeightConverter]]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    transforms = get_model_conversion_mapping(model)
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    return [transform for transform in transforms if not isinstance(transform, WeightConverter)], converters


def _slot(name: str, target: str, pattern: str, converter: WeightConverter) -> Slot:
    """One expert's rows, whole or joined of several stored tensors."""
    from transformers.core_model_loading import Concatenate, MergeModulelist

    operations = converter.operations
    stacks = bool(operations) and isinstance(operations[0], MergeModulelist) and operations[0].dim == 0
    joins = len(operations) == 2 and isinstance(operations[1], Concatenate) and operations[1].dim == 1
    expert = _EXPERT.search(name, name.find(".experts"))
    if not stacks or not (joins or len(operations) == 1) or expert is None:
        raise BadInput(f"{name} is converted to {target} in a way that is not known here ({operations})")
    sources = converter.source_patterns
    return Slot(target, int(expert[1]), sources.index(pattern), len(sources))
