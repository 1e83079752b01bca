"""The quantized base before there is one: whether it is here, and what rounding it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tunesmith.memory.files import read_manifest
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import GIB, Facts
from tunesmith.tools.models.measuring import QUANTIZED_BASE, quantized_bytes
from tunesmith.tools.models.memory_math import RUNTIME_BYTES, rounding_memory_bytes
from tunesmith.tools.models.time_math import rounding_seconds

UNKNOWN = "size unknown (the hub cannot be reached)"


def is_quantized_here(model: str, revision: str, store: Store) -> bool:
    """Whether the quantized base of a model that was made here stands below models/.

    An earlier version could take an existing checkpoint as it; none of those is used again.
    """
    copies = store.copies_of(model, revision, QUANTIZED_BASE)
    return any(read_manifest(one.path) is not None for one in copies if "quantized_source" not in one.meta)


class Making(NamedTuple):
    """What a quantized base costs."""

    seconds: float = 0.0
    ram_bytes: int = 0
    bytes: int = 0
    steps: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    kind: str = ""
    """Of the work, beside that of getting the base."""

    @classmethod
    def of(cls, config: Mapping[str, object], facts: Facts, *, here: bool) -> Making:
        """By the base's config; little where it is here already."""
        if here:
            return cls(steps=("verify its quantized base, which is here already",))
        known = bool(config)
        bytes_ = quantized_bytes(config) if known else 0
        return cls(
            rounding_seconds(config, facts.processor_rates).total if known else 0.0,
            rounding_memory_bytes(config) if known else RUNTIME_BYTES,
            bytes_,
            (
                "round its linear layers to 4 bits, without data and one tensor at a time; head, embeddings, routers "
                "and gates stay",
                "audit the saved tensors of this quantized base against the base's own",
            ),
            _writes(bytes_, "" if known else UNKNOWN),
            "quantized",
        )


def _writes(bytes_: int, size: str = "") -> tuple[str, ...]:
    return (f"models/ again ({size or f'{bytes_ / GIB:.2f} GiB'}): the quantized base, for measuring alone",)
