"""doctor --gpu: measure what only a card can say, each item against what tunesmith predicts of it.

It is asked about as every expensive step is: it takes the card for minutes. No pipeline holds it.
"""

from __future__ import annotations

from tunesmith.tools.core.estimate import estimate
from tunesmith.tools.core.format import duration
from tunesmith.tools.core.rates import Seconds
from tunesmith.tools.core.stage import TRAINING, Facts, Plan, Request, Result, RunRule, Stage
from tunesmith.tools.machine.gpus import why_no_gpu
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.measuring import USUAL_RANK, measuring_server
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS, serving_peaks
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.pipeline.gpu_check.check import MINUTES, TASKS, Finding, Sizes

ENDING_S = 30.0
"""Of the minutes, what is kept for the start of the worker, for what is stopped, and for the record."""
_SCRATCH_BYTES = 6 << 30
"""Models that are made and thrown away."""


class GpuCheckRequest(Request):
    """There is nothing to set."""


class GpuCheckResult(Result):
    """Every item, in the order in which they were tried."""

    device: str
    """The card's name."""
    minutes: int
    took_seconds: float
    ok: int
    failed: int
    skipped: int
    items: tuple[Finding, ...]


def plan(request: GpuCheckRequest, facts: Facts, context: None = None) -> Plan:
    """Say what will be measured and within which time."""
    tasks = [task for task in TASKS if facts.vllm or not task.needs_vllm]
    usual, bound = sum(task.seconds for task in tasks), 60.0 * MINUTES
    price = estimate(
        "doctor",
        facts,
        seconds=Seconds(min(usual + ENDING_S, bound)),
        vram_bytes=_peak_bytes() if facts.machine.gpus else 0,
        disk_bytes=_SCRATCH_BYTES,
    )
    why = why_no_gpu(facts.machine.gpus, on_cpu=TRAINING in facts.cpu_builds)
    notes = () if facts.vllm else ("no vLLM was found: what a server would say is left out",)
    return Plan(
        stage="doctor",
        run=facts.run,
        summary=f"measure on the GPU what only a card can say, in {MINUTES} minutes at most",
        steps=(
            *(task.doing for task in tasks),
            f"whatever is not done after {duration(bound)} is left out; what fails does not end the rest",
        ),
        request=request.model_dump(mode="json"),
        estimate=price,
        writes=("models of random weights, thrown away at its end; the card's rates, for later prices",),
        refusals=(why,) if why else (),
        notes=notes,
    )


def _peak_bytes() -> int:
    """What its largest tenant needs: the server."""
    config = Sizes().dense
    weights = 2 * ModelShape.of(config).parameters
    needed = measuring_server(weights, config, CONTEXT_TOKENS, rank=USUAL_RANK, quantized_base=False)
    return serving_peaks(needed, on_gpu=True)["vram_bytes"]


STAGE = Stage(
    "doctor",
    GpuCheckRequest,
    GpuCheckResult,
    plan,
    run_rule=lambda request: RunRule.CHECKS,
    headline=("ok", "failed", "skipped"),
    env=TORCH_ENV,
)
