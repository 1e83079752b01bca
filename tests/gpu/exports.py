"""Merging and quantizing beside a card: the merge's own proof, and GPTQ on the card against the processor's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.gpu.measures import let_go, make_model, make_rows, peak, rates_of
from tests.gpu.table import MODELS, SECONDS, UPPER, Check, skipped
from tests.gpu.trainings import trained_adapter
from tunesmith.tools.export.calibration import Batch, calibration_batches, calibration_rows
from tunesmith.tools.export.logit_proof_job import compare_logits
from tunesmith.tools.export.merge_job import merge_adapter
from tunesmith.tools.export.quantize import QuantizeRequest
from tunesmith.tools.export.quantize_job import chosen_group_size, quantize_with
from tunesmith.tools.models.memory_math import CUDA_BYTES, quantize_vram_bytes
from tunesmith.tools.models.schemes import SchemeName
from tunesmith.tools.models.tensor_file import read_places, weight_files
from tunesmith.tools.models.time_math import gptq_seconds
from tunesmith.tools.pipeline.gpu_check.findings import Finding, compared, stated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tunesmith.tools.training.library import Tokenizer

_LEAST_AGREEMENT = 0.95
"""Of a merge's choices; 0.97 and more was measured on processors."""
_ALIKE = (0.95, 1.0)
"""Share of 4-bit codes: Hessians are summed in another order there, and a code half-way falls the other way."""


def merge(check: Check) -> Iterator[Finding]:
    """An adapter trained on the device, merged, and the logits of both compared, where a card is in sight."""
    base = make_model(check, "dense", check.sizes.dense)
    adapter, merged = trained_adapter(check), check.dir / MODELS / "merged"
    merge_adapter(base, adapter, merged, _quiet)
    proof = compare_logits(base, adapter, merged, _quiet)
    agreement = proof["argmax_agreement"]
    yield stated(
        "merge proof",
        expected=f"{_LEAST_AGREEMENT:.0%} of the choices alike",
        measured=f"{agreement:.1%}",
        holds=agreement >= _LEAST_AGREEMENT,
        why=f"off by {proof['update_error']:.3f} of what the adapter changes",
    )


def quantize_on_processor(check: Check) -> Iterator[Finding]:
    """One layer by GPTQ in a process that sees no card."""
    yield _timed(check.model_copy(update={"device": "cpu"}), "GPTQ seconds, processor", _out(check, "processor"))


def quantize(check: Check) -> Iterator[Finding]:
    """The same layer on the device, in what time and in what memory, and whether the codes are the processor's."""
    out = _out(check, check.device)
    with peak(check) as most:
        seconds = _timed(check, "GPTQ seconds", out)
    yield seconds
    expected = quantize_vram_bytes(_config(check), seq_len_tokens=check.sizes.tokens) - CUDA_BYTES
    if check.on_card:
        yield compared("GPTQ peak", expected=expected, measured=most.bytes, within=UPPER, unit="bytes")
    else:
        yield skipped("GPTQ peak", "on a CPU it is in RAM, with all that Python holds")
    theirs = _out(check, "processor")
    if not (theirs / "config.json").is_file():
        yield skipped("GPTQ like the processor's", "the processor's layer was not made")
        return
    alike = _alike(theirs, out)
    yield compared("GPTQ like the processor's", expected=1.0, measured=alike, within=_ALIKE, unit="of the codes")


def at_eight_bits(check: Check, scheme: SchemeName) -> Path:
    """The dense model in a format of 8 bits, rounded to the nearest step: how well, nobody asks. Made once."""
    model, out = make_model(check, "dense", check.sizes.dense), check.dir / MODELS / f"dense-{scheme}"
    request = QuantizeRequest(scheme=scheme, group_size=0, rounding="nearest", keep=())
    quantize_with(_batches(check, model), model, out, request, _quiet)
    let_go(check)
    return out


def _batches(check: Check, model: Path) -> list[Batch]:
    from transformers import AutoTokenizer

    rows = make_rows(check, model, check.sizes.calibration_rows, check.sizes.tokens)
    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(model)
    return calibration_batches(
        tokenizer, calibration_rows(tokenizer, rows, check.sizes.calibration_rows, check.sizes.tokens, 17)
    )


def _timed(check: Check, name: str, out: Path) -> Finding:
    """Quantize the layer to W4A16, as `quantize` does, and hold the seconds against the price."""
    import torch

    config = _config(check)
    model = make_model(check, "layer", config)
    batches = _batches(check, model)
    group = chosen_group_size(config, "W4A16", 0)
    began = time.monotonic()
    quantize_with(batches, model, out, QuantizeRequest(scheme="W4A16", group_size=group, keep=()), _quiet)
    if check.on_card:
        torch.cuda.synchronize()
    tokens = float(check.sizes.calibration_rows * check.sizes.tokens)
    price = gptq_seconds(config, rates_of(check), tokens=tokens)
    return compared(
        name,
        expected=price.total,
        measured=time.monotonic() - began,
        within=(0.1, SECONDS[1]),
        unit="seconds",
        why=f"{price.fixed:.1f} s of the price are for programs that start, which this one had",
    )


def _config(check: Check) -> dict[str, Any]:
    return {**check.sizes.dense, "num_hidden_layers": 1}


def _out(check: Check, where: str) -> Path:
    return check.dir / MODELS / f"quantized-{where}"


def _alike(one: Path, other: Path) -> float:
    """Share of 4-bit codes that two quantized models have in common."""
    import numpy as np

    same = total = 0
    for left, right in zip(weight_files(one), weight_files(other), strict=True):
        ours, theirs = read_places(left), read_places(right)
        for name in (name for name in ours if name.endswith(".weight_packed")):
            codes = [_codes(place.path, place.start, place.end) for place in (ours[name], theirs[name])]
            same += int(np.sum(codes[0] == codes[1]))
            total += codes[0].size
    return same / max(total, 1)


def _codes(path: Path, start: int, end: int) -> NDArray[np.uint8]:
    """The 4-bit codes between two places of a file, one a value."""
    import numpy as np

    packed = np.fromfile(path, dtype=np.uint8, count=end - start, offset=start)
    return np.concatenate([packed & 15, packed >> 4])


def _quiet(done: float, total: float, note: str) -> None:
    """Nobody follows the parts of one item."""
