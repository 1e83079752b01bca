"""An adapter's updates of a mixture's experts, as low-rank updates of the tensors that are stored of them.

peft adapts the parameter that holds all experts of a layer, by factors for each; which wrapper adapts which parameter,
and how its factors are laid out, is asked of peft itself, on a model without weights. Checkpoints mostly hold a tensor
per expert and matrix: its update is that expert's factors, cut to its rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.tools.export.stored_layout import Slot, empty_model, slots

if TYPE_CHECKING:
    from torch import Tensor


class Update(NamedTuple):
    """An update of one stored tensor to W + scale · B·A, for each expert where all of them are in the tensor."""

    a: Tensor
    """(rank, in) or (expert, rank, in)"""
    b: Tensor
    """(out, rank) or (expert, out, rank)"""
    scale: float


def expert_updates(base: Path, adapter: Path, names: Iterable[str]) -> dict[str, Update]:
    """Stored name → its update, of those `names` of the base that hold adapted experts.

    Raises StepFailed where the layout of the checkpoint is not known.
    """
    from peft import PeftModel
    from peft.tuners.lora.layer import ParamWrapper

    model = empty_model(base)
    try:
        layout = slots(model, names)
    except BadInput as error:
        raise StepFailed(f"the adapter's experts cannot be merged: {error}; deploy the adapter itself") from None
    stored: dict[str, list[tuple[str, Slot]]] = {}
    for name, slot in layout.items():
        stored.setdefault(slot.parameter, []).append((name, slot))
    # Only read: without random values first, and in the precision that they are stored in.
    wrapped = PeftModel.from_pretrained(
        model, adapter, torch_device="cpu", low_cpu_mem_usage=True, autocast_adapter_dtype=False
    )
    updates = {}
    for name, module in wrapped.get_base_model().named_modules():
        if not isinstance(module, ParamWrapper):
            continue
        # A module with several adapted parameters is wrapped once for each, one around the other.
        owner = name.partition(".base_layer")[0]
        b, a, scale = module.get_delta_factors("default")  # (expert, out, rank), (expert, rank, in)
        for tensor, slot in stored[f"{owner}.{module.parameter_name}"]:
            updates[tensor] = _of_slot(a, b, float(scale), slot)
    return updates


def _of_slot(a: Tensor, b: Tensor, scale: float, slot: Slot) -> Update:
    if slot.expert is None:
        return Update(a, b, scale)
    return Update(a[slot.expert], b[slot.expert].chunk(slot.chunks)[slot.chunk], scale)
