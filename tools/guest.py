"""The conversation's own model as a guest on the machine: what its server holds, and when it has to leave.

It gives its memory back before a step that would not fit beside it, whoever starts that step, and it does not come
back while such a step runs. Memory that it holds is therefore counted as free when a step is priced.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil

from tunesmith.memory.records import RUNNING, Step
from tunesmith.memory.store import Store
from tunesmith.tools import runner, serving
from tunesmith.tools.processes import tree
from tunesmith.tools.stage import Estimate, Machine

GIVES_WAY = "the driver gives its memory back for this step, and returns with the words after it"


def without_driver(machine: Machine, home: Path) -> Machine:
    """The machine as it will be once the driver's servers have left it."""
    for server in serving.list_servers(home, role=serving.DRIVER):
        gpus = machine.gpus
        if gpus and server.spec.device == "cuda":
            held_bytes = int(server.spec.gpu_share * gpus[0].total_bytes)
            gpus = (replace(gpus[0], free_bytes=min(gpus[0].free_bytes + held_bytes, gpus[0].total_bytes)), *gpus[1:])
        free_bytes = min(machine.ram_free_bytes + _private_bytes(server.pid), machine.ram_total_bytes)
        machine = replace(machine, ram_free_bytes=free_bytes, gpus=gpus)
    return machine


def _private_bytes(pid: int) -> int:
    """What the end of a process and its descendants sets free; pages of files that they mapped are counted as free."""
    total = 0
    for process in tree(pid).values():
        try:
            memory = process.memory_info()
        except psutil.Error:
            continue
        total += max(memory.rss - getattr(memory, "shared", 0), 0)
    return total


def in_the_way(machine: Machine, home: Path, price: Estimate) -> list[serving.Server]:
    """The driver's servers, where a step of this price does not fit beside them as `machine` is now; else none."""
    if _fits(machine, price.peak_ram_bytes, price.peak_vram_bytes):
        return []
    return serving.list_servers(home, role=serving.DRIVER)


def give_way(machine: Machine, home: Path, price: Estimate) -> bool:
    """Stop the driver's servers where a step of this price does not fit beside them; whether any had to go."""
    servers = in_the_way(machine, home, price)
    for server in servers:
        serving.stop(server)
    return bool(servers)


def kept_out_by(machine: Machine, store: Store, *, ram_bytes: int, vram_bytes: int) -> Step | None:
    """The running step beside which a driver of this size would not fit, by what that step may still come to need."""
    for step in store.steps(status=RUNNING):
        price = step.plan.get("estimate", {})
        more_ram = max(int(price.get("peak_ram_bytes", 0)) - (step.peak_rss_bytes or 0), 0)
        more_vram = max(int(price.get("peak_vram_bytes", 0)) - (step.peak_vram_bytes or 0), 0)
        if runner.is_alive(step) and not _fits(machine, ram_bytes + more_ram, vram_bytes + more_vram):
            return step
    return None


def _fits(machine: Machine, ram_bytes: int, vram_bytes: int) -> bool:
    """Whether this much is free, swap left out: a step that swaps takes longer than the driver takes to come back."""
    return ram_bytes <= machine.ram_free_bytes and (not machine.gpus or vram_bytes <= machine.vram_free_bytes)
