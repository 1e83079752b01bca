"""Which weights of a model matter most when they are rounded: measured one part of a layer at a time, not by name.

A part is what vLLM serves at one precision: q, k and v together, gate and up together, any other linear layer alone.
Its figure is what the layer's output is off by, squared and as a share of that output, when this part alone is rounded
to the nearest step. Of the bundled model rounded in groups of 64, a quarter of the weights chosen by figure and size
took the divergence from the merged one from 0.23 to 0.09 nats a token; all down_proj, as many weights, to 0.15.
Not covered: that errors of two parts may add up or cancel; how far later layers carry one. Experts of a mixture have
to share a precision, so mixtures are not measured.
"""

from __future__ import annotations

from collections.abc import Iterable

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.models.rounding_terms import MEASURED

FILE = "sensitivity.json"
SENSITIVITY_ROWS = 8
"""Calibration rows that go through each layer, half of them rehearsal."""
PASSES_A_LAYER = 6
"""As it is, once for each of four parts, and once to hand on."""
_TOGETHER = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up"),
}


class Part(Frozen):
    """Linear layers of one decoder layer that have one precision, and what rounding them does."""

    names: tuple[str, ...]
    weights: int
    error: float
    """Mean over tokens of ‖change of the layer's output‖² ÷ ‖output‖²."""


class Sensitivity(Frozen):
    """All parts of a model."""

    parts: tuple[Part, ...]

    def exceptions(self, share: float) -> tuple[str, ...]:
        """The layers to leave at 16 bits: the most error for each weight first, as long as they fit into the share.

        By the ends of their names, from "layers." on, as `kept_layers` takes them.
        """
        room = share * sum(part.weights for part in self.parts)
        chosen = []
        for part in sorted(self.parts, key=lambda part: part.error / part.weights, reverse=True):
            if part.error > 0 and part.weights <= room:
                chosen.append(part)
                room -= part.weights
        return tuple(
            name[max(0, name.find("layers.")) :] for part in self.parts if part in chosen for name in part.names
        )


def by_name(keep: Iterable[str]) -> tuple[str, ...]:
    """Of what a request keeps, the kinds of layers that it names."""
    return tuple(name for name in keep if name != MEASURED)


def parted(names: Iterable[str]) -> list[tuple[str, ...]]:
    """The linear layers of one decoder layer by the parts that they are served in, in the order that they come."""
    parts: dict[str, list[str]] = {}
    for name in names:
        before, _, last = name.rpartition(".")
        parts.setdefault(f"{before}.{_TOGETHER.get(last, last)}", []).append(name)
    return [tuple(part) for part in parts.values()]
