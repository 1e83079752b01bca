"""doctor --gpu: measure the card that prices rest on, each item against what tunesmith predicts of it.

It is asked about as every expensive step is: it takes the card. No pipeline holds it. Whether a chain works on a card
is for `preflight` to try, and whether every formula holds on one for `make test-gpu`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tunesmith.memory.records import RunRule
from tunesmith.tools.core.estimate import estimate
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import TRAINING, Facts, Plan, Request, Result, Stage
from tunesmith.tools.machine.gpus import why_no_gpu
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.memory_math import CUDA_BYTES
from tunesmith.tools.pipeline.gpu_check.findings import Finding

_SECONDS = 25.0
"""To load torch, to measure, and to end."""
_MEASURED_BYTES = 3 << 30
"""Of what is multiplied and copied."""


class Part(NamedTuple):
    """What is measured together."""

    doing: str
    gives: tuple[str, ...]
    """The names of its items, in their order."""


PARTS: Mapping[str, Part] = {
    "card": Part(
        "read the driver and the card, by NVML and by torch",
        ("driver", "compute capability", "total memory", "CUDA context", "free memory"),
    ),
    "rates": Part(
        "measure matrix products, memory and disk",
        ("bf16 rate", "fp32 rate", "memory rate", "disk rate"),
    ),
}


class GpuCheckRequest(Request):
    """There is nothing to set."""


class GpuCheckResult(Result):
    """Every item, in the order in which they were tried."""

    device: str
    """The card's name."""
    took_seconds: float
    ok: int
    failed: int
    skipped: int
    items: tuple[Finding, ...]


def plan(request: GpuCheckRequest, facts: Facts, context: None = None) -> Plan:
    """Say what will be measured."""
    why = why_no_gpu(facts.machine.gpus, on_cpu=TRAINING in facts.cpu_builds)
    vram = CUDA_BYTES + _MEASURED_BYTES if facts.machine.gpus else 0
    return Plan(
        stage="doctor",
        run=facts.run,
        summary="measure the GPU that prices rest on",
        steps=tuple(part.doing for part in PARTS.values()),
        request=request.model_dump(mode="json"),
        estimate=estimate("doctor", facts, seconds=Seconds(_SECONDS), vram_bytes=vram),
        writes=("the card's rates, for later prices",),
        refusals=(why,) if why else (),
        notes=("`preflight` tries a run's whole chain on it, a vLLM server included",),
    )


STAGE = Stage(
    "doctor", GpuCheckRequest, GpuCheckResult, plan,
    run_rule=lambda request: RunRule.CHECKS,
    headline=("ok", "failed", "skipped"),
    env=TORCH_ENV,
)  # fmt: skip
