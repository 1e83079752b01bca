"""The device that a step really computes on, held against what its plan was priced for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.memory.errors import StepFailed
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.machine import chosen_gpu
from tunesmith.tools.core.stage import Request
from tunesmith.tools.machine.gpus import measure_gpus, trains_on_cpu

if TYPE_CHECKING:
    from accelerate import PartialState


def computes_on_cpu() -> bool:
    """Whether torch computes on the CPU here; the one question that leads into `tools.cpu`."""
    import torch

    return not torch.cuda.is_available()


def this_rank() -> PartialState:
    """Which process this is of those that train together, in accelerate's words; it meets the others first."""
    from accelerate import PartialState

    return PartialState(cpu=computes_on_cpu())


def need_priced_device(job: Job[Request]) -> None:
    """Raise StepFailed where the plan counts on a GPU that torch cannot use: the CPU would take days in silence."""
    if not job.plan.estimate.peak_vram_bytes or trains_on_cpu():
        return
    if not computes_on_cpu():
        return
    import torch

    card = chosen_gpu(measure_gpus())
    named = f"{card.name} with the driver {card.driver}" if card else "the GPU, which is gone"
    raise StepFailed(
        f"the plan counts on a GPU, and torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use {named}; see "
        "nvidia-smi and update the driver, or compute on the CPU: tunesmith setup --device cpu"
    )
