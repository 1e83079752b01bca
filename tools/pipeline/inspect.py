"""inspect: what there is to compute with, and what fits. A look, and a step only in a written plan."""

from __future__ import annotations

from tunesmith.tools.core.estimate import estimate
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.stage import Facts, Plan, Result, Stage


class InspectRequest(PlacedRequest):
    """Measure this machine."""


class GpuReport(Result):
    """One GPU, as NVML sees it."""

    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: str


class MemoryNeed(Result):
    """What one size of dense model needs for one kind of work, and whether that is free."""

    parameters: int
    work: str
    needs_bytes: int
    free_bytes: int
    fits: bool


class InspectResult(Result):
    """The machine at one moment."""

    cpu: str
    cores: int
    ram_total_bytes: int
    ram_free_bytes: int
    swap_free_bytes: int
    disk_free_bytes: int
    gpus: tuple[GpuReport, ...]
    gpus_left_out: tuple[str, ...] = ()
    """Those that are there and not used, with the reason."""
    fits: tuple[MemoryNeed, ...]
    vllm: str | None


def plan(request: InspectRequest, facts: Facts, context: None = None) -> Plan:
    """Reading NVML and the kernel's counters costs milliseconds."""
    return Plan(
        stage="inspect",
        run=facts.run,
        summary="measure this machine",
        steps=("read NVML, /proc and the disk",),
        request=request.model_dump(mode="json"),
        estimate=estimate("inspect", facts, seconds=0.5),  # drivers and disks that are asked answer in less
    )


STAGE = Stage("inspect", InspectRequest, InspectResult, plan)
