"""The contract every stage keeps: a frozen request, a pure plan with its price, a result.

`plan(request, facts)` reads nothing but its arguments: no disk, no clock, no network. What it returns is what the
user decides on, and its hash is what an approval is bound to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store

GIB = 1 << 30
SERVING, TRAINING = "serving", "training"
"""The two environments: vLLM's own, and the lab's."""
ARMS = ("base", "prompted", "adapter", "merged", "quantized")


class Frozen(BaseModel):
    """Base of everything declared: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(Frozen):
    """What a stage is asked to do; exactly this is stored, and reproduces the step."""

    run: str = Field(default="", description="Run to work in, for example r3; empty: the newest one.")


class Result(Frozen):
    """What a stage reports when it is done; numbers in it were measured."""


class Estimate(Frozen):
    """The price of a step. Bytes are peaks for memory and a sum for disk."""

    seconds: float
    basis: str
    """Why we think so: past runs of this step on this machine, or the calibration it comes from."""
    peak_ram_bytes: int = 0
    peak_vram_bytes: int = 0
    disk_bytes: int = 0
    calibrated_seconds: float = 0.0
    """The same before past runs on this machine corrected it."""
    like: str = ""
    """The kind of work, where a stage does several that take their time differently."""


class Input(Frozen):
    """An artifact that a plan uses, pinned by digest: another one under the same name is another plan."""

    artifact: str
    sha256: str


class Plan(Frozen):
    """What will happen, what it costs and what it replaces; what the user says yes or no to."""

    stage: str
    run: str
    arm: str = ""
    summary: str
    steps: tuple[str, ...]
    request: dict[str, Any]
    inputs: dict[str, Input] = {}
    pins: dict[str, str] = {}
    """What was read for this plan and is read again at work, by what it is called: its whole sha256."""
    estimate: Estimate
    writes: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    """Why this cannot be done, each with the number and the next thing to try; empty for a plan that can run."""
    notes: tuple[str, ...] = ()
    """What the user should know beside it, such as the driver that gives way, or a base that needs no training."""
    reasons: dict[str, str] = {}
    """Field of the request → why it has its value, where the stage chose it and the user did not."""
    free_ram_bytes: int = 0
    free_vram_bytes: int = 0
    free_disk_bytes: int = 0

    def in_run(self, run: str) -> Plan:
        """The same plan for a run that was opened once its price was known."""
        return self.model_copy(update={"run": run, "request": {**self.request, "run": run}})

    @property
    def hash(self) -> str:
        """What an approval is bound to: everything but how much happens to be free right now, and why."""
        decided = self.model_dump(exclude={"notes", "reasons", "free_ram_bytes", "free_vram_bytes", "free_disk_bytes"})
        if not self.pins:
            del decided["pins"]  # a plan of before there were any keeps its hash
        return hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA device as NVML reports it."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: str
    driver: str
    uuid: str = ""


def chosen_gpu(gpus: Sequence[Gpu]) -> Gpu | None:
    """The one GPU that is worked on: the one with the most free memory, the first of equals; None without any."""
    return max(gpus, key=lambda gpu: gpu.free_bytes, default=None)


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to compute with, measured at one moment. RAM that is free includes reclaimable cache."""

    cpu: str
    cores: int
    ram_total_bytes: int
    ram_free_bytes: int
    swap_free_bytes: int
    disk_free_bytes: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def vram_free_bytes(self) -> int:
        """Free memory of the GPU that is worked on; 0 without one."""
        chosen = chosen_gpu(self.gpus)
        return chosen.free_bytes if chosen else 0


@dataclass(frozen=True, slots=True)
class Past:
    """One finished step of the past: what calibration alone would have said, and what it took."""

    calibrated_seconds: float
    seconds: float
    like: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a plan may know: the machine, the run's artifacts, and how long steps took here before."""

    home: Path
    machine: Machine
    run: str
    vllm: str | None = None
    vllm_from: str = ""
    """Where the vllm program was named, or why there is none."""
    cpu_builds: frozenset[str] = frozenset()
    """Which of SERVING and TRAINING have kernels for the CPU installed, so that they leave a GPU alone."""
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    """Newest artifact of each kind in the run: base, teacher, rows, dataset, adapter, merged, quantized …"""
    past: Mapping[str, tuple[Past, ...]] = field(default_factory=dict)
    """Stage → its newest finished steps of every kind on this machine, the newest first."""
    seen: Mapping[str, Any] = field(default_factory=dict)
    """What the stage's own `look` read before planning, such as parsed suites or what is deployed now."""

    @property
    def serves_on_gpu(self) -> bool:
        """Whether vLLM computes on a GPU here."""
        return bool(self.machine.gpus) and SERVING not in self.cpu_builds

    @property
    def trains_on_gpu(self) -> bool:
        """Whether the lab computes on a GPU here."""
        return bool(self.machine.gpus) and TRAINING not in self.cpu_builds

    def need(self, kind: str, maker: str) -> Artifact:
        """The run's newest artifact of a kind. Raises BadInput, naming the stage `maker` that makes one."""
        if kind not in self.artifacts:
            raise BadInput(f"run {self.run} has no {kind} yet; make one with `tunesmith {maker}` first")
        return self.artifacts[kind]


R = TypeVar("R", bound=Request)


@dataclass(frozen=True, slots=True)
class Stage(Generic[R]):
    """One declaration from which the tool, the slash command, the subcommand and the README row all come."""

    name: str
    request: type[R]
    result: type[Result]
    plan: Callable[[R, Facts], Plan]
    look: Callable[[R, Store, str], Mapping[str, Any]] | None = None
    """Reads (never writes) the files and records that a request names in a run, and refuses bad ones; becomes
    `Facts.seen`."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment its worker is started with."""


def pinned(**artifacts: Artifact | None) -> dict[str, Input]:
    """Inputs of a plan from the artifacts it uses; those that are None are left out."""
    return {name: Input(artifact=a.id, sha256=a.sha256) for name, a in artifacts.items() if a is not None}
