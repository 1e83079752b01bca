"""More servers than `doctor --gpu` starts: a model at W4A16, and a mixture with adapters."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.gpu.trainings import trained_mixture
from tunesmith.tools.export.round_to_nearest import round_base
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.models.memory_math import adapter_slot_bytes
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.pipeline.gpu_check.check import MODELS, Check, Finding, compared, failed, skipped, stated
from tunesmith.tools.pipeline.gpu_check.measures_job import free_bytes, make_model
from tunesmith.tools.pipeline.gpu_check.serving_job import (
    NAME,
    NO_LOG,
    WEIGHTS,
    answered,
    artifact_of,
    logged,
    served,
    started,
)
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest

_ASKED = [{"role": "user", "content": "Say 1."}]
_SLOTS_RANK = 256
"""So high that the hundredths of a GiB in vLLM's log tell what a small mixture's slots take."""


def quantized(check: Check) -> Iterator[Finding]:
    """The same model, rounded to 4 bits, as a base is measured that has no room at 16."""
    folder = check.dir / MODELS / "w4a16"
    folder.mkdir(parents=True, exist_ok=True)
    round_base(make_model(check, "dense", check.sizes.dense), folder, lambda done, total, note: None)
    model = artifact_of(check, folder, QUANTIZED_BASE)
    before = free_bytes()
    began = time.monotonic()
    server = started(check, model)
    try:
        for finding in served(check, server, model, time.monotonic() - began, before, ", W4A16"):
            if "beside" not in finding.name:
                yield finding
    finally:
        servers.stop(server)


def mixture(check: Check) -> Iterator[Finding]:
    """A mixture whose server allows adapters of its experts, and one that allows those of attention alone."""
    names, told = ("adapter slots of experts", "adapter of attention alone"), "it is taken, and answers"
    if not check.on_card:
        yield from (skipped(name, "vLLM has no adapters of experts on a CPU") for name in names)
        return
    config, shape = check.sizes.mixture, ModelShape.of(check.sizes.mixture)
    folder, adapter = make_model(check, "mixture", config), trained_mixture(check)
    loaded = []
    for kind in ("base", QUANTIZED_BASE):  # as which it is served decides what its adapters may have
        server = started(check, artifact_of(check, folder, kind, config), rank=_SLOTS_RANK)
        try:
            loaded.append(logged(server, WEIGHTS))
            if kind == QUANTIZED_BASE:
                servers.load_adapter(server, NAME, adapter)
                [answer] = answered(server, [ChatRequest("1", NAME, _ASKED, check.sizes.answer_tokens)])
        finally:
            servers.stop(server)
    every, alone = loaded
    if every is None or alone is None:
        yield failed(names[0], NO_LOG)
    else:
        slots = [adapter_slot_bytes(shape, _SLOTS_RANK, attention_only=only) for only in (False, True)]
        expected = slots[0] - slots[1]
        yield compared(names[0], expected=expected, measured=every - alone, within=(0.85, 1.1), unit="bytes")
    yield stated(names[1], expected=told, measured=answer.error or told, holds=not answer.error)
