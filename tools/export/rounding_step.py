"""Whether the grid eats the update: an adapter's update of each layer, in rounding steps of the scheme to come.

Read from the files, some rows of every weight: the step is that of plain rounding. Integers have one for a group,
max |w| ÷ ((2^bits - 1) ÷ 2); GPTQ moves errors about within these same steps. Floats have one for each weight, which
grows with it: scale × 2^(⌊log2 |w ÷ scale|⌋ − fraction bits), and below the type's smallest power of two no smaller
(arXiv 2209.05433 for E4M3). Their scale is max |w| ÷ the type's largest value. A weight that sits anywhere between two
grid points takes a small update over on average only, with a noise of 0.29 steps; the smaller the update, the more of
it is noise. Not covered: updates of fused experts, whose layout only peft knows; of DoRA its low-rank part alone is
counted.
"""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.export.audit import Places, reference_weights
from tunesmith.tools.export.lora_update import StoredUpdate, stored_updates
from tunesmith.tools.models.full_precision import matches_layer
from tunesmith.tools.models.schemes import Scheme
from tunesmith.tools.models.tensor_file import TensorPlace
from tunesmith.tools.models.tensor_values import floats

if TYPE_CHECKING:
    from tunesmith.tools.models.tensor_values import Floats

SMALL_UPDATE = 0.1
"""Below it the noise of rounding is three times the update. At 8 bits the demo's updates of 0.3 to 0.6 kept their whole
gain; published 4-bit merges far below kept 0.1 to 0.4 of it."""
_NOISE = 12**-0.5
"""Root mean square of a rounding error that falls anywhere within a step."""
_ROWS = 16
_DECODER_LAYER = re.compile(r".*?\.layers\.(\d+)\.")


class UpdateOnGrid(Frozen):
    """How large an adapter's update is beside a scheme's rounding step, root mean squares over sampled weights."""

    scheme: str
    median: float
    """Of the layers' figures."""
    smallest: float
    smallest_layer: int
    layers: dict[int, float]
    """Decoder layer → update ÷ step."""

    @property
    def is_small(self) -> bool:
        """Whether most of what such an update does to a weight is lost in the noise of rounding."""
        return self.median < SMALL_UPDATE

    @property
    def warning(self) -> str:
        """What a user should know before an hour is spent; empty where the update is large enough."""
        if not self.is_small:
            return ""
        times = _NOISE / self.median if self.median else 0.0
        noise = f"rounding noise is {times:.0f} times that" if times else "nothing of it reaches the grid"
        return (
            f"the grid may eat the update: {self.words}; {noise}. Compare the target after it; more bits or smaller "
            "groups keep more"
        )

    @property
    def words(self) -> str:
        """The figure in one sentence."""
        return (
            f"the adapter's update is {self.median:.2g} of a {self.scheme} rounding step in the median layer "
            f"({self.smallest:.2g} in layer {self.smallest_layer}, the least)"
        )


def update_on_grid(
    merged: Path, adapter: Path, scheme: Scheme, *, group: int, kept: Collection[str], seed: int = 17
) -> UpdateOnGrid | None:
    """The update of every layer that would be quantized; None where the adapter has none, or a file is not readable."""
    try:
        updates, places = stored_updates(adapter).weights, reference_weights(merged)
    except (BadInput, OSError, ValueError, LookupError):
        return None
    draw = random.Random(seed)
    squares: dict[int, list[tuple[float, float]]] = {}
    for name in sorted(updates.keys() & places.keys()):
        match = _DECODER_LAYER.match(name)
        if match and not any(matches_layer(name.removesuffix(".weight"), pattern) for pattern in kept):
            sampled = _sample(places, name, updates[name], scheme, group, draw)
            squares.setdefault(int(match[1]), []).append(sampled)
    layers = {layer: _ratio(pairs) for layer, pairs in sorted(squares.items())}
    if not layers:
        return None
    least = min(layers, key=lambda layer: layers[layer])
    median = statistics.median(layers.values())
    return UpdateOnGrid(
        scheme=scheme.name, median=round(median, 4), smallest=layers[least], smallest_layer=least, layers=layers
    )


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    step = sum(step for _, step in pairs)
    return round((sum(update for update, _ in pairs) / step) ** 0.5, 4) if step else 0.0


def _sample(
    places: Places, name: str, update: StoredUpdate, scheme: Scheme, group: int, draw: random.Random
) -> tuple[float, float]:
    """Mean squares of the update and of the rounding step, over a few rows of a weight that lie together."""
    import numpy as np

    place: TensorPlace = places[name]
    count, width = place.spec.shape
    first = draw.randrange(max(1, count - _ROWS + 1))
    rows = slice(first, first + _ROWS)
    delta = (floats(update.b, rows) @ floats(update.a)) * np.float32(update.scale)
    steps = rounding_steps(floats(place, rows), scheme, group if group and width % group == 0 else width)
    return float(np.square(delta).mean()), float(np.square(steps).mean())


def rounding_steps(weight: Floats, scheme: Scheme, group: int) -> Floats:
    """The distance between neighbouring values of the grid where each weight is, (outputs, inputs) as the weights.

    `group` inputs share a scale and divide a row.
    """
    import numpy as np

    outputs, inputs = weight.shape
    sizes = np.abs(weight).reshape(outputs, inputs // group, group)
    largest = sizes.max(2, keepdims=True)
    codes = scheme.codes
    if codes is None:
        return np.broadcast_to(largest / ((2**scheme.bits - 1) / 2), sizes.shape).reshape(weight.shape)
    scales = largest / codes.largest
    places = sizes / np.where(scales > 0, scales, 1)
    exponents = np.maximum(np.frexp(places)[1] - 1, codes.lowest_exponent) - codes.fraction_bits
    steps: Floats = (scales * np.ldexp(np.float32(1), exponents)).reshape(weight.shape)
    return steps
