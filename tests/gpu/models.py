"""Models on the device: packed documents are computed as each alone, and 4 bits take what they are priced at."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

from tests.gpu.measures import make_model
from tests.gpu.table import Check, skipped
from tunesmith.tools.models.memory_math import loaded_bytes, nf4_bytes
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.pipeline.gpu_check.findings import Finding, compared, failed
from tunesmith.tools.training.four_bit import weights_by_kind
from tunesmith.tools.training.model import load_base
from tunesmith.tools.training.packing import most_rounding, sequence_distance

BYTES = (0.97, 1.03)
"""Of weights as they are loaded: nothing but their padding is open."""
ALLOCATED = (0.97, 1.1)
"""Of the same as torch's allocator hands them out, in blocks."""
_LENGTHS = (300, 210)
"""Of two documents, in tokens: beyond the size of a block of a fused attention kernel."""


def attention(check: Check) -> Iterator[Finding]:
    """Two documents in one sequence against each alone, by the kernels that the device chooses."""
    config = check.sizes.dense
    folder = make_model(check, "dense", config)
    for precision in ("bf16", "fp32"):
        model = load_base(folder, precision=precision, load_in_4bit=False)
        name = f"packed documents, {precision}"
        distance = sequence_distance(model, config, _LENGTHS)
        if distance is None:
            yield failed(name, "the model does not take the attention that keeps documents apart")
            continue
        why = "relative distance of the second document's hidden states, the median over its tokens"
        yield compared(
            name, expected=most_rounding(model), measured=distance, within=(0, 1), unit="of the states", why=why
        )


def four_bits(check: Check) -> Iterator[Finding]:
    """Weights by what they are stored in, and by what torch's allocator gave for them."""
    for name, config in (("dense", check.sizes.dense), ("mixture", check.sizes.mixture)):
        yield from _loaded(check, name, config)


def four_bit_bytes(config: Mapping[str, Any]) -> dict[str, float]:
    """Of a model loaded at 4 bits: `all` of it, and `experts`, those of a mixture alone."""
    shape = ModelShape.of(config)
    return {
        "all": loaded_bytes(shape, load_in_4bit=True),
        "experts": nf4_bytes(shape.mixture_layers * shape.expert_parameters),
    }


def _loaded(check: Check, name: str, config: Mapping[str, Any]) -> Iterator[Finding]:
    import torch

    folder = make_model(check, name, config)
    gc.collect()
    before = torch.cuda.memory_allocated() if check.on_card else 0
    model = load_base(folder, precision="bf16", load_in_4bit=True)
    kinds, predicted = weights_by_kind(model), four_bit_bytes(config)
    if name == "mixture":
        measured = kinds["experts"].bytes
        yield compared("NF4 bytes, experts", expected=predicted["experts"], measured=measured, within=BYTES,
                       unit="bytes", why=f"{kinds['experts'].bytes_per_parameter:.3f} bytes a weight")  # fmt: skip
    else:
        measured = sum(kind.bytes for kind in kinds.values())
        yield compared("NF4 bytes, dense", expected=predicted["all"], measured=measured, within=BYTES, unit="bytes")
    allocated = f"NF4 allocated, {name}"
    if not check.on_card:
        yield skipped(allocated, "a CPU has no allocator that could be asked")
        return
    gc.collect()
    taken = torch.cuda.memory_allocated() - before
    yield compared(allocated, expected=predicted["all"], measured=taken, within=ALLOCATED, unit="bytes")
