"""An adapter's updates as its file holds them: which weights of the base they change, by which factors and scale."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.memory.json_values import as_float, as_object
from tunesmith.tools.models.tensor_file import ADAPTER_NAME, TensorPlace, read_places

_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class StoredUpdate:
    """A low-rank update of one weight, where its factors lie: W + scale · B·A."""

    a: TensorPlace
    """(rank, in)"""
    b: TensorPlace
    """(out, rank)"""
    scale: float


@dataclass(frozen=True, slots=True)
class AdapterUpdates:
    """What an adapter changes."""

    weights: Mapping[str, StoredUpdate]
    """Name in the base → its update."""
    experts: frozenset[str]
    """Beginnings of the names of fused experts that have one."""


def module_of(stored: str) -> str:
    """Where a stored tensor is in the model that adapters are named by: Mixtral's files call a block as of old."""
    return stored.replace(".block_sparse_moe.", ".mlp.")


def of_experts(module: str) -> bool:
    """Whether a module's factors are those of a mixture's fused experts: wrapped once for each adapted parameter."""
    return module.removesuffix(".base_layer").endswith(".experts")


def lora_scale(config: Mapping[str, object], module: str, rank: int) -> float:
    """alpha ÷ rank, or alpha ÷ √rank when rank-stabilised, with the module's own alpha where a pattern names it."""
    alpha = config["lora_alpha"]
    for pattern, value in as_object(config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return as_float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def stored_updates(adapter: Path) -> AdapterUpdates:
    """The updates in an adapter's file, matched with nothing yet."""
    weights = adapter_tensors(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    updates, experts = {}, set()
    for name, place in weights.items():
        if not name.endswith(_A) or (b := weights.get(f"{name.removesuffix(_A)}{_B}")) is None:
            continue
        module = name.removesuffix(_A).removeprefix("base_model.model.")
        if of_experts(module):
            experts.add(module.removesuffix(".base_layer") + ".")
        else:
            scale = lora_scale(config, module, place.spec.shape[0])
            updates[f"{module}.weight"] = StoredUpdate(place, b, scale)
    return AdapterUpdates(updates, frozenset(experts))


def adapter_tensors(adapter: Path) -> Mapping[str, TensorPlace]:
    """The tensors of an adapter. Raises BadInput for a file that is not whole."""
    return read_places(adapter / ADAPTER_NAME)
